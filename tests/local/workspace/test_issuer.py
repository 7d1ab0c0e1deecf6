"""Which tokens and credentials are valid, and until when."""

import pytest

from lakebase.local.workspace import Issuer

ANN, BOB = "ann@corp.example", "bob@corp.example"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def issuer(clock):
    issuer = Issuer(60.0, clock)
    issuer.add(ANN)
    issuer.add("app", is_service=True)
    return issuer


def test_a_credential_is_valid_for_its_role_until_it_expires(issuer, clock):
    credential = issuer.mint(ANN)
    assert credential.expires_at == 1060.0
    assert issuer.is_valid(ANN, credential.token)
    assert not issuer.is_valid(BOB, credential.token)
    clock.now = 1059.9
    assert issuer.is_valid(ANN, credential.token)
    clock.now = 1060.0
    assert not issuer.is_valid(ANN, credential.token)


def test_a_credential_can_have_another_lifetime(issuer, clock):
    credential = issuer.mint(ANN, lifetime=600.0)
    clock.now = 1599.0
    assert issuer.is_valid(ANN, credential.token)


def test_expiry_ends_the_credentials_of_one_principal_or_of_all(issuer):
    ann, bob = issuer.mint(ANN).token, issuer.mint(BOB).token
    issuer.expire(ANN)
    assert (issuer.is_valid(ANN, ann), issuer.is_valid(BOB, bob)) == (False, True)
    issuer.expire()
    assert not issuer.is_valid(BOB, bob)
    assert issuer.minted() == {ANN: 1, BOB: 1}


def test_a_workspace_token_belongs_to_its_principal_until_it_is_revoked(issuer):
    first, second = issuer.workspace_token(ANN), issuer.workspace_token(ANN)
    assert issuer.principal(first).name == issuer.principal(second).name == ANN
    assert issuer.principal("unknown") is None
    issuer.revoke(ANN)
    assert issuer.principal(first) is issuer.principal(second) is None


def test_a_service_principal_gets_a_token_for_its_latest_secret(issuer, clock):
    former, secret = issuer.client_secret("app"), issuer.client_secret("app")
    assert issuer.access_token("app", former) is None
    assert issuer.access_token("other", secret) is None
    token, lifetime = issuer.access_token("app", secret)
    assert (issuer.principal(token).is_service, lifetime) == (True, 60.0)
    clock.now += lifetime
    assert issuer.principal(token) is None
