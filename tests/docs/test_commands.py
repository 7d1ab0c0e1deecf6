"""The commands of the documents exist, with the options that are shown."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib

import pytest

from tests.docs.pages import ROOT, SHELLS, Block, blocks, pages, quick_start

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
        unknown = options - set(re.findall(r"(?<!\S)--?[\w-]+", text))
        assert not unknown, f"{block.where}: {' '.join(words)}: no {unknown} in\n{text}"


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda b: b.where)
def test_every_module_and_extra_shown_exists(block: Block):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in block.commands():
        if "-m" in words[:2] and words[0].rpartition("/")[2].startswith("python"):
            assert importlib.util.find_spec(words[2]), f"{block.where}: no module {words[2]}"
        for word in words:
            named = re.fullmatch(r"(?:\.|lakebase-pooling)\[([\w,-]+)\].*", word)
            if named:
                assert set(named[1].split(",")) <= set(extras), f"{block.where}: {word}"


def test_the_quick_start_is_two_command_lines():
    lines = quick_start().text.splitlines()
    assert len(lines) == 2
    assert "lakebase demo" in lines[0]
    assert "pytest" in lines[1]
    assert all(line.startswith("python3 -m venv ") for line in lines), "each line makes its own environment"


def test_links_between_the_documents_lead_somewhere():
    wrong = []
    for page in pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path = target.partition("#")[0]
            if path and not re.match(r"[a-z]+:", path) and not (page.parent / path).exists():
                wrong.append(f"{page.relative_to(ROOT)}: {target}")
    assert not wrong
