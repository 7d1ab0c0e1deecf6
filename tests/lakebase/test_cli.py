"""The command line program: which command runs, what is loaded for it, and where its output goes."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys

import pytest

from lakebase import cli
from tests.architecture.source import ROOT

PROGRAM = [sys.executable, "-m", "lakebase"]


def run(*arguments, shell=None, **environment):
    """The finished program, or a shell's line in which `$LAKEBASE` is the program."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [*PROGRAM, *arguments] if shell is None else ["bash", "-c", shell],
        env={**environ, "PYTHONPATH": str(ROOT), "LAKEBASE": " ".join(PROGRAM), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, capsys):
    def missing(_):
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    assert cli.main(["demo"]) == 2
    assert "pip install 'lakebase-pooling[local]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["demo", "--users", "0"], ["demo", "--requests", "x"], ["nothing"], ["--nothing"]]
)
def test_arguments_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: lakebase" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("doctor",), ("local", "status")])
def test_an_unknown_option_is_refused_with_the_usage_of_its_command(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--bogus"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"usage: lakebase {' '.join(command)} [-h]")
    assert "unrecognized arguments: --bogus" in err


@pytest.mark.parametrize(("arguments", "words"), [([], "doctor"), (["local"], "get-pooler")])
def test_without_a_command_it_prints_what_there_is(arguments, words, capsys):
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert words in printed.out
    assert not printed.err


def test_it_says_its_version():
    assert run("--version").stdout.startswith("lakebase-pooling ")


def test_the_module_of_a_command_is_imported_when_the_command_is_used():
    code = "import sys; from lakebase import cli; cli.main([]); print(__import__('json').dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    loaded = set(json.loads(found.stdout.splitlines()[-1]))
    assert not loaded & {"lakebase.local", "lakebase.doctor", "lakebase.plan", "lakebase.demo", "pooling", "psycopg"}


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        ("$LAKEBASE --version > /dev/full", {1}),
        ("$LAKEBASE --version >&-", {0}),
        ("$LAKEBASE --version <&- >&- 2>&-", {0}),
        ("set -o pipefail; $LAKEBASE --version | true", {0, 141}),
        ("set -o pipefail; $LAKEBASE --version | head -1", {0, 141}),
    ],
)
def test_output_that_nobody_takes_ends_it_quietly(line, statuses):
    ended = run(shell=line)
    assert ended.returncode in statuses
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    if "/dev/full" in line and ended.returncode:
        assert ended.stderr == "lakebase: the output cannot be written: No space left on device\n"
    else:
        assert ended.stderr == ""


@pytest.mark.parametrize("command", cli.command_names())
def test_help_fits_into_eighty_columns_and_has_no_colours_where_these_are_not_wanted(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


@pytest.fixture(scope="module")
def scripts():
    """The script for each shell."""
    found = {}
    for shell in ("bash", "zsh", "fish"):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            assert cli.main(["completion", shell]) == 0
        found[shell] = output.getvalue()
    return found


def complete(script, *words):
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in ("lakebase", *words))
    script += f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _lakebase; echo "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("",), {*cli.command_names(), "--version"}),
        (("lo",), {"local"}),
        (("local", "get"), {"get-pooler"}),
        (("local", "up", "--compute"), {"--compute-units"}),
        (("local", "env", "--for", "n"), {"node"}),
        (("local", "up", "--name", ""), set()),
        (("completion", "f"), {"fish"}),
    ],
)
def test_bash_completes_commands_options_and_values(scripts, words, offered):
    found = set(complete(scripts["bash"], *words))
    assert offered <= found
    assert offered or not found  # of a value that can be anything, bash completes names of files


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_reads_its_script(scripts):
    script = "autoload -U compinit; compinit -D -u; " + scripts["zsh"] + "echo $_comps[lakebase]"
    ended = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True)
    assert (ended.stderr, "lakebase" in ended.stdout) == ("", True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [("lakebase lo", "local"), ("lakebase local get", "get-pooler"), ("lakebase local env --for n", "node")],
)
def test_fish_completes_commands_options_and_values(scripts, line, offered, tmp_path):
    script = scripts["fish"] + f"complete -C '{line}'"
    ended = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert ended.stderr == ""
    assert [each.partition("\t")[0] for each in ended.stdout.splitlines()] == [offered]
