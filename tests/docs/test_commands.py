"""The commands of the documents exist, with the options that are shown."""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import ROOT, SHELLS, Block, blocks, links, pages, quick_start

SHELL_BLOCKS = [block for page in pages() for block in blocks(page) if block.language in SHELLS]


def arguments_of_lakebase(words: list[str]) -> list[str] | None:
    """What is given to this library's command line, or `None` for another command."""
    if words[0].rpartition("/")[2] == "lakebase":
        return words[1:]
    if words[0].rpartition("/")[2].startswith("python") and words[1:3] == ["-m", "lakebase"]:
        return words[3:]
    return None


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda b: b.where)
def test_the_command_line_knows_every_command_shown(block: Block, monkeypatch, capsys):
    cli = importlib.import_module("lakebase.cli")
    for words in block.commands():
        arguments = arguments_of_lakebase(words)
        if arguments is None:
            continue
        plain = [word for word in arguments if not word.startswith("-")]
        subcommands = plain[: 2 if plain[:1] == ["local"] else 1]
        monkeypatch.setattr("sys.argv", ["lakebase", *subcommands, "--help"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        text = capsys.readouterr().out
        assert ended.value.code == 0, f"{block.where}: {' '.join(words)}"
        options = {word.partition("=")[0] for word in arguments if word.startswith("-")}
        unknown = options - {word.strip("[],") for word in text.split()}
        assert not unknown, f"{block.where}: {' '.join(words)}: no {unknown} in\n{text}"


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda b: b.where)
def test_every_module_and_extra_shown_exists(block: Block):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in block.commands():
        if "-m" in words[:2] and words[0].rpartition("/")[2].startswith("python"):
            assert importlib.util.find_spec(words[2]), f"{block.where}: no module {words[2]}"
        for word in words:
            distribution, bracket, rest = word.partition("[")
            if bracket and distribution in {".", "lakebase-pooling"}:
                assert set(rest.partition("]")[0].split(",")) <= set(extras), f"{block.where}: {word}"


def test_the_quick_start_is_two_command_lines():
    lines = quick_start().text.splitlines()
    assert len(lines) == 2
    assert "lakebase demo" in lines[0]
    assert "pytest" in lines[1]
    assert all(line.startswith("python3 -m venv ") for line in lines), "each line makes its own environment"


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_between_the_documents_lead_somewhere(page):
    targets = [urlsplit(target) for target in links(page)]
    assert [url.path for url in targets if not url.scheme and not (page.parent / url.path).exists()] == []
