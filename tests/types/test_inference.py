"""mypy --strict and pyright accept what a user writes, infer what a reader expects, and find mistakes."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from pooling import KeyedPoolingService, PoolingService, PoolingServiceOptions, PoolingServiceOptionsDict
from pooling.keyed import KeyedArguments
from pooling.service import ServiceArguments
from tests.docs.pages import ROOT, pages
from tests.types.checkers import Error, Program, check, programs_of, python_of

pytestmark = pytest.mark.timeout(600)  # the two have all libraries to read when nothing is cached

HERE = Path(__file__).parent
CHECKERS = ["mypy", "pyright"]
PLANTED = """# A document

```python
from pooling import PoolingService

pool = PoolingService(list, max_size=1)
```

Text.

```python
with pool.lease() as value:
    value.apend(1)
```
"""


@pytest.fixture(scope="module")
def errors(request, tmp_path_factory) -> list[Error]:
    """What both checkers find in all files, from one run of each: most of its time goes into reading libraries."""
    for checker in CHECKERS:
        pytest.importorskip(checker, reason="type checkers come with the extra `lint`")
    # The same folder in each run, so that mypy finds what it kept of the libraries; a new one where there is no cache.
    cache = getattr(request.config, "cache", None)
    folder = Path(cache.mkdir("types")) if cache else tmp_path_factory.mktemp("types")
    documents = folder / "documents"
    shutil.rmtree(documents, ignore_errors=True)
    documents.mkdir()
    planted = documents / "planted.md"
    planted.write_text(PLANTED, encoding="utf-8")

    programs = [Program.of(path) for path in [*sorted(HERE.glob("*_types.py")), HERE / "wrong_uses.py"]]
    examples = sorted((ROOT / "examples").rglob("*.py"))
    # The recipes are checked where their frameworks are: `nox -s recipes`.
    programs += [Program.of(path) for path in examples if not path.is_relative_to(ROOT / "examples" / "recipes")]
    for page in pages():
        programs += programs_of(page, page.relative_to(ROOT).as_posix(), documents)
    programs += programs_of(planted, planted.name, documents)
    return check(programs, folder)


def in_folder(errors: list[Error], checker: str, *beginnings: str) -> list[str]:
    return [str(error) for error in errors if error.checker == checker and error.path.startswith(beginnings)]


@pytest.mark.parametrize("checker", CHECKERS)
def test_types_are_inferred_as_a_reader_expects(errors, checker):
    found = [error for error in errors if error.checker == checker and error.path.endswith("_types.py")]
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("checker", CHECKERS)
def test_mistakes_are_errors(errors, checker):
    lines = (HERE / "wrong_uses.py").read_text(encoding="utf-8").splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    found = {error.line: str(error) for error in errors if error.checker == checker and "wrong_uses" in error.path}
    missed = [f"{number}: {lines[number - 1]}" for number in sorted(expected - set(found))]
    unexpected = [found[number] for number in sorted(set(found) - expected)]
    assert not missed
    assert not unexpected


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_of_a_document_is_typed(errors, checker, page):
    found = in_folder(errors, checker, page.relative_to(ROOT).as_posix())
    assert not found, "\n".join(found)


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_examples_are_typed(errors, checker):
    found = in_folder(errors, checker, "examples/")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("checker", CHECKERS)
def test_nothing_else_was_found(errors, checker):
    known = ("examples/", "docs/", "README.md", "tests/types/", "planted.md")
    found = [str(error) for error in errors if error.checker == checker and not error.path.startswith(known)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_planted_mistake_is_found_at_its_line_of_the_document(errors, checker):
    lines = [error.line for error in errors if error.checker == checker and error.path == "planted.md"]
    assert lines == [PLANTED.splitlines().index("    value.apend(1)") + 1]


CLEARED = """# A document

```python
a = 1
```

- In a list:

  ```python
  if a:
      b = 2
  ```

<!--- clear-namespace -->

```bash
ls
```

```python
c = 3
```
"""


def test_blocks_share_their_names_until_a_document_clears_them():
    first, second = python_of(CLEARED)
    assert {number: line for number, line in enumerate(first, 1) if line} == {4: "a = 1", 10: "if a:", 11: "    b = 2"}
    assert {number: line for number, line in enumerate(second, 1) if line} == {21: "c = 3"}


def test_the_mapping_of_options_has_the_fields_of_the_options():
    hints = get_type_hints(PoolingServiceOptions)
    assert get_type_hints(PoolingServiceOptionsDict) == {
        field.name: hints[field.name] for field in fields(PoolingServiceOptions)
    }
    assert not PoolingServiceOptionsDict.__required_keys__


@pytest.mark.parametrize(
    ("service", "arguments"), [(PoolingService, ServiceArguments), (KeyedPoolingService, KeyedArguments)]
)
def test_the_arguments_of_an_asyncio_service_are_those_of_its_twin(service, arguments):
    named = [
        name
        for name, parameter in inspect.signature(service).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert arguments.__optional_keys__ - PoolingServiceOptionsDict.__optional_keys__ == set(named)
