"""The certificate authority of the local Lakebase, and the gateway's certificate from it."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..errors import LocalLakebaseError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["Certificates"]

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
        self.ca_file = directory / "ca.pem"
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
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError as error:
            raise LocalLakebaseError(
                "a local Lakebase needs the package 'cryptography' for its certificate; "
                "install: pip install 'lakebase-pooling[local]'"
            ) from error
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca = _sign_authority(ca_key)
        server = _sign_server(key, names, ca, ca_key)
        pem = serialization.Encoding.PEM
        self._key.touch(mode=0o600)
        self._key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self._chain.write_bytes(server.public_bytes(pem))
        self.ca_file.write_bytes(ca.public_bytes(pem))


def _sign_authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """The authority's certificate, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = _name("local Lakebase authority")
    return (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _sign_server(
    key: ec.EllipticCurvePrivateKey, names: tuple[str, ...], ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """The server's certificate for these names, signed by the authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    return (
        _builder(_name("local Lakebase"), ca.subject, key)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
    )


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
