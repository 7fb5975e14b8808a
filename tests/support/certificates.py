"""Certificates of authorities, servers and clients, made when a test wants them."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; its own is the file ``cert``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.cert = folder / f"{name}.pem"
        self.cert.write_bytes(self._signed(self._name, self._key.public_key(), is_authority=True))

    def issue(self, name: str, days: int = 1) -> Certificate:
        """Make a certificate for ``name`` at 127.0.0.1; again with the same name replaces its files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        made.cert.write_bytes(self._signed(subject, key.public_key(), days=days))
        made.key.write_bytes(_pem(key, serialization.NoEncryption()))
        return made

    def encrypted(self, certificate: Certificate) -> Path:
        """Write the certificate's key again, behind a passphrase."""
        key = serialization.load_pem_private_key(certificate.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        path = certificate.key.with_suffix(".locked")
        path.write_bytes(_pem(key, serialization.BestAvailableEncryption(b"passphrase")))
        return path

    def client(self, shown: Certificate | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority, and shows a certificate."""
        context = ssl.create_default_context(cafile=str(self.cert))
        if shown is not None:
            context.load_cert_chain(shown.cert, shown.key)
        return context

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int = 1, is_authority: bool = False
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([here]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
