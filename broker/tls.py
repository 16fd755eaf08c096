"""What a listener with TLS shows its clients: a certificate and its key from files, or one made at the start.

A new certificate goes into the context that there is, so who listens need not know. It is checked in full before: a
context is never left with half of a pair. Files are read at the start, so what is wrong with them stops it; one that
has to be made is made when it is first wanted, which for QUIC is when somebody comes.
"""

import ipaddress
import logging
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .config.schema import Tls

if TYPE_CHECKING:  # 7 MB that only who encrypts should need
    from cryptography import x509

log = logging.getLogger(__name__)

T = TypeVar("T")

# Made anew with every start, and no process gets older.
SELF_SIGNED_FOR = timedelta(days=3650)
_CLOCK_ERROR = timedelta(days=1)


class TlsError(Exception):
    """A certificate or key can't be used; the message is one line for the operator, with key and file."""


class Certificate:
    """A listener's certificate. pem: the pair. context: it, for handshakes by OpenSSL."""

    def __init__(self, name: str, settings: Tls, host: str) -> None:
        """name: the table of the configuration, "tcp.tls". host: where clients connect. Raises TlsError."""
        self._name = name
        self._settings = settings
        self._host = host
        self._pem = b"" if self._no_files() else self._read()

    @property
    def pem(self) -> bytes:
        if not self._pem:
            self._pem = self_signed(self._host)
            what = f"made a self-signed certificate, as there is no {self._settings.cert_file or 'cert_file'}"
            log.info("%s: %s; SHA-256 fingerprint %s", self._name, what, fingerprint(self._pem))
        return self._pem

    @cached_property
    def context(self) -> ssl.SSLContext:
        context = _new_context()
        _load(context, self.pem)
        return context

    def reload(self) -> None:
        """Show new clients what the files hold now. Where that can't be used, log it and go on with the old."""
        cert_file = self._settings.cert_file
        if self._no_files():
            log.info("%s: there is no %s, the certificate stays", self._name, cert_file or "cert_file")
            return
        try:
            self._pem = self._read()
        except TlsError as error:
            log.error("%s; the certificate from before stays", error)
            return
        _load(self.context, self._pem)
        log.info("%s: new clients see %s, SHA-256 fingerprint %s", self._name, cert_file, fingerprint(self._pem))

    def _no_files(self) -> bool:
        """Tell whether a certificate has to be made: half a pair is a mistake, and found when it is read."""
        settings = self._settings
        files = (settings.cert_file, settings.key_file)
        return settings.self_signed and not any(file and Path(file).exists() for file in files)

    def _read(self) -> bytes:
        """Return the pair in the files as one PEM text that a context takes."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from cryptography.x509 import load_pem_x509_certificates

        cert_name, cert_file = f"{self._name}.cert_file", self._settings.cert_file
        key_name, key_file = f"{self._name}.key_file", self._settings.key_file
        cert_pem = _read_file(cert_name, cert_file)
        key_pem = _read_file(key_name, key_file)
        certificate, *_ = _parse(load_pem_x509_certificates, cert_pem, cert_name, cert_file, "certificate")
        key = _parse(lambda pem: load_pem_private_key(pem, None), key_pem, key_name, key_file, "key without passphrase")
        if key.public_key() != certificate.public_key():
            raise TlsError(f"{key_name} {key_file}: not the key of {cert_name} {cert_file}; give the pair")
        pem = cert_pem + b"\n" + key_pem
        try:
            _load(_new_context(), pem)
        except ssl.SSLError as error:
            raise TlsError(f"{cert_name} {cert_file}: OpenSSL refuses it, {error.reason or error}") from error
        _warn_of_time(cert_name, cert_file, certificate)
        return pem


def self_signed(host: str) -> bytes:
    """Make a certificate for this machine and `host`, a name or an address; return it and its key as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pybroker")])
    now = datetime.now(UTC)
    identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _CLOCK_ERROR)
        .not_valid_after(now + SELF_SIGNED_FOR)
        .add_extension(x509.SubjectAlternativeName(_names_of(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identity, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + key_pem


def fingerprint(pem: bytes) -> str:
    """Return the SHA-256 of the first certificate in `pem`, as browsers and openssl show it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex(":").upper()


def _names_of(host: str) -> "list[x509.GeneralName]":
    from cryptography.x509 import DNSName, IPAddress

    names: dict[x509.GeneralName, None] = {DNSName("localhost"): None}
    for text in ("127.0.0.1", "::1", host.partition("%")[0]):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            names[DNSName(text)] = None
            continue
        if not address.is_unspecified:
            names[IPAddress(address)] = None
    return list(names)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # work that a client could ask for without end
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Put a pair into `context`, which takes files only: one in memory, so that no key gets to a disk."""
    file = os.memfd_create("tls")
    try:
        with open(file, "wb", closefd=False) as memory:
            memory.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


def _read_file(name: str, file: str) -> bytes:
    if not file:
        raise TlsError(f"{name}: give the file, or for trials self_signed = true")
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise TlsError(f"{name} {file}: {error.strerror or error}") from error


def _parse(read: Callable[[bytes], T], pem: bytes, name: str, file: str, what: str) -> T:
    try:
        return read(pem)
    except (ValueError, TypeError) as error:  # TypeError: a key with a passphrase
        raise TlsError(f"{name} {file}: not a {what} in PEM") from error


def _warn_of_time(name: str, file: str, certificate: "x509.Certificate") -> None:
    """Say of a certificate whose time is not now that clients will refuse it. It may be what there is."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= datetime.now(UTC) <= last:
        log.warning("%s %s: valid from %s to %s only, clients will refuse it", name, file, first, last)
