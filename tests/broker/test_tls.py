"""Certificates: which pairs are taken, made, read again, and what the operator hears of those that are not."""

import logging
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from pybroker.broker.config.schema import Tls
from pybroker.broker.tls import Certificate, TlsError, _load, self_signed
from support.certificates import Issued, issue, trusting, write


@pytest.fixture
def issued() -> Issued:
    return issue("first")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """Let two contexts agree in memory. Raises SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(back, there, server_hostname=name), server.wrap_bio(there, back, server_side=True))
    for _ in range(10):
        done = 0
        for end in ends:
            try:
                end.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done == len(ends):
            return True
    return False


def spoil(folder: Path, what: str, issued: Issued) -> str:
    """Damage the pair in `folder`; return which file the operator has to hear of."""
    certificate, key = folder / "server.pem", folder / "server.key"
    content: dict[str, tuple[Path, bytes | None]] = {
        "no certificate file": (certificate, None),
        "no key file": (key, None),
        "no certificate in it": (certificate, b"a certificate\n"),
        "an empty certificate file": (certificate, b""),
        "half a certificate": (certificate, issued.pem[:200]),
        "no key in it": (key, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "somebody else's key": (key, issue("other").key_pem()),
        "a key with a passphrase": (key, issued.key_pem(b"secret")),
    }
    file, data = content[what]
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    return str(file)


SPOILT = [
    "no certificate file", "no key file", "no certificate in it", "an empty certificate file", "half a certificate",
    "no key in it", "somebody else's key", "a key with a passphrase",
]  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_pair_that_cannot_be_used_is_refused_by_file(tmp_path: Path, issued: Issued, what: str) -> None:
    settings = write(tmp_path, issued)
    file = spoil(tmp_path, what, issued)
    with pytest.raises(TlsError) as raised:
        Certificate("tcp.tls", settings, "127.0.0.1")
    assert str(raised.value).startswith(f"tcp.tls.{'key' if file.endswith('key') else 'cert'}_file {file}: ")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("what", SPOILT)
def test_a_reload_that_fails_keeps_what_there_was(
    tmp_path: Path, issued: Issued, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    certificate = Certificate("tcp.tls", write(tmp_path, issued), "h")
    file = spoil(tmp_path, what, issued)
    certificate.reload()
    (line,) = warnings(caplog)
    assert file in line
    assert line.endswith("the certificate from before stays")
    assert handshake(certificate.context, trusting(issued.pem), "localhost")


def test_clients_get_the_whole_chain(tmp_path: Path) -> None:
    root = issue("root", authority=True)
    between = issue("between", root, authority=True)
    certificate = Certificate("tcp.tls", write(tmp_path, issue("leaf", between), between), "127.0.0.1")
    assert handshake(certificate.context, trusting(root.pem), "localhost")


def test_a_certificate_whose_time_is_over_gets_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = write(tmp_path, issue("old", age=timedelta(days=90)))
    Certificate("tcp.tls", settings, "127.0.0.1")
    (line,) = warnings(caplog)
    assert settings.cert_file in line
    assert "clients will refuse it" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "broker.example", "::"])
def test_a_self_signed_certificate_is_for_this_machine_and_the_host(host: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = self_signed(host)
    wanted = ["localhost", "127.0.0.1", "::1"] + ([host] if host[0] not in "0:" else [])
    _load(server, pem)
    for name in wanted:
        assert handshake(server, trusting(pem), name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, trusting(pem), "other.example")


def test_a_self_signed_certificate_is_made_only_while_there_is_no_file(
    tmp_path: Path, issued: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(write(tmp_path, issued), self_signed=True)
    assert handshake(Certificate("tcp.tls", settings, "h").context, trusting(issued.pem), "localhost")
    assert warnings(caplog) == []
    for file in tmp_path.iterdir():
        file.unlink()
    caplog.set_level(logging.INFO)
    made = Certificate("tcp.tls", settings, "h")
    assert caplog.records == []  # until somebody comes
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made.context, trusting(issued.pem), "localhost")
    (record,) = caplog.records
    assert "made a self-signed certificate" in record.getMessage()
    assert made.pem is made.pem
    made.reload()
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, issued)
    made.reload()
    assert handshake(made.context, trusting(issued.pem), "localhost")


@pytest.mark.parametrize("missing", ["server.pem", "server.key"])
def test_half_a_pair_is_a_mistake_and_no_reason_to_make_one(tmp_path: Path, issued: Issued, missing: str) -> None:
    settings = replace(write(tmp_path, issued), self_signed=True)
    (tmp_path / missing).unlink()
    with pytest.raises(TlsError, match=missing):
        Certificate("tcp.tls", settings, "h")


@pytest.mark.parametrize("name", ["cert_file", "key_file"])
def test_a_file_that_is_not_named_is_asked_for(tmp_path: Path, issued: Issued, name: str) -> None:
    settings = write(tmp_path, issued)
    settings = replace(settings, cert_file="") if name == "cert_file" else replace(settings, key_file="")
    with pytest.raises(TlsError, match=f"tcp.tls.{name}: give the file"):
        Certificate("tcp.tls", settings, "h")


def test_without_names_a_certificate_is_made() -> None:
    made = Certificate("tcp.tls", Tls(enabled=True, cert_file="", key_file=""), "h")
    assert handshake(made.context, trusting(made.pem.partition(b"-----BEGIN PRIVATE")[0]), "localhost")


def test_tls_is_off_unless_asked_for() -> None:
    assert not Tls().enabled
