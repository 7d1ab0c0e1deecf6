"""The certificates of the gateway."""

from tests.local.clients import refusal


def test_a_client_that_trusts_another_authority_does_not_connect(settings, tmp_path):
    from lakebase.local.gateway import Certificates

    other = Certificates(tmp_path, ("localhost",)).ca_file
    assert "certificate verify failed" in refusal(settings, sslrootcert=str(other))
