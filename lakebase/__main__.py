"""`python -m lakebase` is the command line program `lakebase`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
