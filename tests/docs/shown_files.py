"""
The files that documents show: a block of any language with title="examples/…" has the text of that file.

`python -m tests.docs.shown_files` writes the files' texts into the documents; `nox -s fix` does so, too.
"""

from __future__ import annotations

from tests.docs.pages import ROOT, Block, blocks, pages


def shown_files() -> list[Block]:
    return [block for page in pages() for block in blocks(page) if block.file]


def text_of(block: Block) -> str:
    """The text of the file that a block shows."""
    return (ROOT / block.file).read_text(encoding="utf-8").removesuffix("\n")


def show() -> None:
    """Write the files' texts into the blocks that show them."""
    for block in reversed(shown_files()):  # from the end of each document: the lines above keep their numbers
        if block.text != text_of(block):
            lines = block.page.read_text(encoding="utf-8").splitlines()
            lines[block.line : block.line + len(block.text.splitlines())] = text_of(block).splitlines()
            block.page.write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"{block.where} shows {block.file} as it is now")  # noqa: T201


if __name__ == "__main__":
    show()
