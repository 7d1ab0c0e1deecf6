"""The file in which tokens and secrets are kept."""

import pytest

from lakebase.local import LocalLakebaseError
from lakebase.local.workspace import Identities


def test_what_was_saved_is_loaded_again(tmp_path):
    identities = Identities.load(tmp_path)
    assert (identities.tokens, identities.secrets, identities.app) == ({}, {}, "")
    identities.tokens["ann@corp.example"] = "dapi1"
    identities.secrets["app"] = "dose1"
    identities.app = "app"
    identities.save()
    assert Identities.load(tmp_path) == identities
    assert (tmp_path / "identities.json").stat().st_mode & 0o077 == 0


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    identities = Identities.load(None)
    identities.tokens["ann@corp.example"] = "dapi1"
    identities.save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tokens": 1, "secrets": {}, "app": ""}'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "identities.json").write_text(content)
    with pytest.raises(LocalLakebaseError, match=r"identities\.json is damaged: delete it"):
        Identities.load(tmp_path)


def test_a_representation_shows_no_token():
    assert "dapi1" not in repr(Identities(tokens={"ann@corp.example": "dapi1"}))
