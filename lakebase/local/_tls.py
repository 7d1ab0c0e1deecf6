"""A certificate authority of the local Lakebase's own, and the gateway's certificate from it."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from .errors import LocalLakebaseError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificates"]

_VALID = timedelta(days=365)
_RENEW = timedelta(days=30)


class Certificates:
    """
    Files for TLS in a directory: the authority's certificate, which clients trust, and the server's.

    Those that are there and not about to expire are kept, so that clients set
    up in an earlier run still trust the gateway. The authority's key is never
    stored: nobody can sign another certificate that such a client would trust.

    Args:
        directory: Made if missing, for the owner only.
        names: Host names and addresses the server answers to.
    """

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self.ca_file = directory / "ca.pem"
        self._chain = directory / "server.pem"
        self._key = directory / "server.key"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._are_good():
            self._make(names)

    def server_context(self) -> ssl.SSLContext:
        """What the gateway answers TLS with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._chain, self._key)
        # libpq resumes no sessions: tickets would only be two more records at each login.
        context.num_tickets = 0
        return context

    def _are_good(self) -> bool:
        if not (self.ca_file.exists() and self._chain.exists() and self._key.exists()):
            return False
        from cryptography import x509

        certificate = x509.load_pem_x509_certificate(self._chain.read_bytes())
        return certificate.not_valid_after_utc - datetime.now(UTC) > _RENEW

    def _make(self, names: tuple[str, ...]) -> None:
        try:
            from cryptography import x509
            from cryptography.hazmat.primitives import hashes, serialization
            from cryptography.hazmat.primitives.asymmetric import ec
            from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
        except ImportError as error:
            raise LocalLakebaseError(
                "a local Lakebase needs the package 'cryptography' for its certificate; "
                "install: pip install 'lakebase-pooling[local]'"
            ) from error

        now = datetime.now(UTC)

        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        def usage(*, signs: bool) -> x509.KeyUsage:
            return x509.KeyUsage(
                digital_signature=not signs,
                key_cert_sign=signs,
                crl_sign=signs,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            )

        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = named("local Lakebase authority")
        ca = (
            x509.CertificateBuilder()
            .subject_name(ca_name)
            .issuer_name(ca_name)
            .public_key(ca_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + _VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        server = (
            x509.CertificateBuilder()
            .subject_name(named("local Lakebase"))
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + _VALID)
            .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        self._key.touch(mode=0o600)
        self._key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self._chain.write_bytes(server.public_bytes(pem))
        self.ca_file.write_bytes(ca.public_bytes(pem))


def _alternative(name: str):  # type: ignore[no-untyped-def]
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
