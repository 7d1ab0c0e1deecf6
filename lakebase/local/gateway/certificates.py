"""The certificate authority of the local Lakebase, and the gateway's certificate from it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pooling.extras import install_command

from ..errors import LocalLakebaseError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificates"]

# Apple's clients trust no certificate that is valid for longer than 825 days.
_VALID = timedelta(days=365)
_RENEW = timedelta(days=30)


class Certificates:
    """
    Files for TLS in a directory: the authority's certificate, which clients trust, and the server's.

    Certificates that exist and are not about to expire are kept, so that
    clients set up in an earlier run still trust the gateway. The authority's
    key is never stored: it can sign no other certificate that such a client
    would trust.

    Args:
        directory: Made if missing, for the owner only.
        names: Host names and addresses of the server.
    """

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self.ca_file: Path = directory / "ca.pem"
        self._chain = directory / "server.pem"
        self._key = directory / "server.key"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._can_be_kept():
            self._make(names)

    def server_context(self) -> ssl.SSLContext:
        """The gateway's side of TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._chain, self._key)
        # libpq resumes no sessions: tickets would only be two more records at each login.
        context.num_tickets = 0
        return context

    def _can_be_kept(self) -> bool:
        if not (self.ca_file.exists() and self._chain.exists() and self._key.exists()):
            return False
        from cryptography import x509

        certificate = x509.load_pem_x509_certificate(self._chain.read_bytes())
        return certificate.not_valid_after_utc - datetime.now(UTC) > _RENEW

    def _make(self, names: tuple[str, ...]) -> None:
        try:
            import trustme
        except ImportError as error:
            raise LocalLakebaseError(
                f"a local Lakebase needs the package 'trustme' for its certificate: {install_command('local')}"
            ) from error
        authority = trustme.CA(organization_name="local Lakebase")
        server = authority.issue_cert(*names, organization_name="local Lakebase", not_after=datetime.now(UTC) + _VALID)
        self._key.touch(mode=0o600)
        self._key.write_bytes(server.private_key_pem.bytes())
        self._chain.write_bytes(b"".join(pem.bytes() for pem in server.cert_chain_pems))
        self.ca_file.write_bytes(authority.cert_pem.bytes())
