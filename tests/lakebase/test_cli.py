"""The command line program, before a command runs."""

import pytest

from lakebase import cli


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, capsys):
    def missing(_):
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    assert cli.main(["demo"]) == 2
    assert "pip install 'lakebase-pooling[local]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["demo", "--users", "0"], ["demo", "--requests", "x"], ["nothing"], []])
def test_arguments_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: lakebase" in capsys.readouterr().err
