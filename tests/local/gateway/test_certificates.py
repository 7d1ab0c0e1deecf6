"""The certificates of the gateway."""

import ssl
import stat

import pytest

from lakebase.local.gateway import Certificates
from tests.local.clients import refusal


def test_a_client_that_trusts_another_authority_does_not_connect(settings, tmp_path):
    other = Certificates(tmp_path, ("localhost",)).ca_file
    assert "certificate verify failed" in refusal(settings, sslrootcert=str(other))


def handshake(server, client, name):
    """The version of TLS that the two agree on, without a network."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
            version = end.version()
        if not ends:
            return version
    raise AssertionError("no end of the handshake")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.0.0.2"])
def test_a_strict_client_accepts_each_of_its_names(tmp_path, name):
    made = Certificates(tmp_path, ("localhost", "127.0.0.1", "127.0.0.2"))
    client = ssl.create_default_context(cafile=str(made.ca_file))
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13
    assert handshake(made.server_context(), client, name) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made.server_context(), client, "127.0.0.9")


def test_versions_of_tls_before_1_2_are_refused(tmp_path):
    made = Certificates(tmp_path, ("localhost",))
    client = ssl.create_default_context(cafile=str(made.ca_file))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(made.server_context(), client, "localhost") == "TLSv1.2"
    # A client of 1.1 would fail at this machine's own policy for keys too.
    assert made.server_context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_they_are_kept_until_shortly_before_they_expire_and_the_key_is_private(tmp_path, monkeypatch):
    from datetime import timedelta

    from lakebase.local.gateway import certificates

    first = Certificates(tmp_path, ("localhost",)).ca_file.read_bytes()
    assert Certificates(tmp_path, ("localhost",)).ca_file.read_bytes() == first
    assert stat.S_IMODE((tmp_path / "server.key").stat().st_mode) == 0o600
    monkeypatch.setattr(certificates, "_RENEW", timedelta(days=366))
    assert Certificates(tmp_path, ("localhost",)).ca_file.read_bytes() != first
