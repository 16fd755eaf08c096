"""Certificates for tests, as PEM: authorities, and what they issue for "localhost"."""

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from pybroker.broker.config.schema import Tls

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        secrecy = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secrecy)


def issue(name: str, issuer: Issued | None = None, *, authority: bool = False, age: timedelta = DAY) -> Issued:
    """Make a certificate for "localhost", signed by `issuer` or itself. It is valid for 30 days since `age` ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = datetime.now(UTC) - age
    signer = issuer.key if issuer else key
    certificate = (
        x509.CertificateBuilder(subject_name=own, issuer_name=issuer.certificate.subject if issuer else own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + 30 * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(_usage(authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Issued(certificate, key)


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def write(folder: Path, issued: Issued, *chain: Issued) -> Tls:
    """Write a pair as `server.pem` and `server.key`; return the table that names them."""
    certificate, key = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(b"".join(each.pem for each in (issued, *chain)))
    key.write_bytes(issued.key_pem())
    return Tls(enabled=True, self_signed=False, cert_file=str(certificate), key_file=str(key))


def trusting(pem: bytes) -> ssl.SSLContext:
    """Return a client's context that trusts what `pem` holds, and nobody else; as strict as CPython 3.13."""
    context = ssl.create_default_context(cadata=pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    return context


def shown(address: str, context: ssl.SSLContext) -> bytes:
    """Return the certificate that a server shows, in DER. Raises SSLError when it can't be verified."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as peer,
    ):
        found = peer.getpeercert(binary_form=True)
    assert found is not None
    return found
