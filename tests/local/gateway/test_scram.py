"""Passwords against verifiers that Postgres made."""

import base64
import hashlib
import hmac

import pytest

from lakebase.local.gateway.scram import PasswordCheck


def verifier(password, salt=b"0123456789abcdef", iterations=4096):
    """As `pg_authid` has it: https://www.postgresql.org/docs/current/catalog-pg-authid.html."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")

    def encode(data):
        return base64.b64encode(data).decode()

    return f"SCRAM-SHA-256${iterations}:{encode(salt)}${encode(stored)}:{encode(server)}"


def test_the_right_password_matches_each_time_and_others_do_not():
    check = PasswordCheck()
    for _ in range(2):
        assert check.matches(verifier("right ü"), "right ü")
        assert not check.matches(verifier("right ü"), "wrong")


def test_after_a_change_the_former_password_no_longer_matches():
    check = PasswordCheck()
    assert check.matches(verifier("former"), "former")
    assert not check.matches(verifier("new"), "former")


@pytest.mark.parametrize(
    "other", ["md5d41d8cd98f00b204e9800998ecf8427e", "", "SCRAM-SHA-256$x", "SCRAM-SHA-1$1:YQ==$YQ==:YQ=="]
)
def test_a_verifier_of_another_kind_matches_nothing(other):
    assert not PasswordCheck().matches(other, "password")
