"""Connection strings: what they mean, what is refused, and that no secret gets out."""

import pytest
from pybroker.client.errors import InvalidUrl
from pybroker.client.retry import Retry
from pybroker.client.url import Target, Transport, parse
from pybroker.protocol.model.tokens import LoginWithToken
from pybroker.protocol.model.users import Login

IGGY = Login("iggy", "secret")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("iggy://iggy:secret@host:1234", Target(host="host", port=1234, login=IGGY)),
        ("iggy+tcp://iggy:secret@host:1234/", Target(host="host", port=1234, login=IGGY)),
        ("iggy://iggy:secret@host", Target(host="host", port=8090, login=IGGY)),
        ("iggy+ws://iggy:secret@host", Target(host="host", port=8092, login=IGGY, transport=Transport.WEBSOCKET)),
        (
            "iggy+wss://iggy:secret@host:1/",
            Target(host="host", port=1, login=IGGY, transport=Transport.WEBSOCKET, tls=True),
        ),
        (
            "iggy+quic://iggy:secret@host?validate_certificate=false",
            Target(host="host", port=8080, login=IGGY, transport=Transport.QUIC, tls_verify=False),
        ),
        ("iggy://iggy:secret@[::1]:1234", Target(host="::1", port=1234, login=IGGY)),
        ("iggy://iggy:secret@[::1]", Target(host="::1", port=8090, login=IGGY)),
        ("iggy://a%40b:p%3A%2F%3F%23%25@host", Target(host="host", port=8090, login=Login("a@b", "p:/?#%"))),
        ("iggy://iggypat-1%2B2@host", Target(host="host", port=8090, login=LoginWithToken("iggypat-1+2"))),
        (
            "iggy://iggy:secret@host?tls=true&tls_domain=name&tls_ca_file=/a%20b.pem&tls_validate_certificate=false",
            Target(
                host="host",
                port=8090,
                login=IGGY,
                tls=True,
                tls_domain="name",
                tls_ca_file="/a b.pem",
                tls_verify=False,
            ),
        ),
        (
            "iggy://iggy:secret@host?reconnection_retries=3&reconnection_interval=500ms&reestablish_after=1m%2030s"
            "&heartbeat_interval=2s&nodelay=true",
            Target(
                host="host",
                port=8090,
                login=IGGY,
                retry=Retry(attempts_max=3, first_s=0.5, max_s=0.5),
                reestablish_after_s=90,
                heartbeat_s=2,
            ),
        ),
        (
            "iggy://iggy:secret@host?reconnection_retries=unlimited",
            Target(host="host", port=8090, login=IGGY, retry=Retry(attempts_max=None)),
        ),
    ],
)
def test_a_connection_string_says_where_as_whom_and_how(url: str, target: Target) -> None:
    assert parse(url) == target


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://iggy:secret@host", "begins with iggy://"),
        ("host:8090", "begins with iggy://"),
        ("", "begins with iggy://"),
        ("iggy+http://iggy:secret@host", "iggy\\+http:// is not supported"),
        ("iggy://host:8090", "nobody to sign in as"),
        ("iggy://:secret@host", "nobody to sign in as"),
        ("iggy://iggy:@host", "password is empty"),
        ("iggy://iggy:secret@", "expected iggy://user"),
        ("iggy://iggy:secret@:8090", "expected iggy://user"),
        ("iggy://iggy:secret@host:65536", "no host:port"),
        ("iggy://iggy:secret@host:secret", "no host:port"),
        ("iggy://iggy:secret@host/path", "expected iggy://user"),
        ("iggy://iggy:secret/secret@host", "no host:port"),
        ("iggy://iggy:secret#secret@host:1", "no host:port"),
        ("iggy://iggy:secret?secret@host:1", "no host:port"),
        ("iggy://iggy:secret@[::1", "no host:port"),
        ("iggy://iggy:secret@host?tls", "not name=value"),
        ("iggy://iggy:secret@host?tls=yes", "option tls: expected true or false"),
        ("iggy://iggy:secret@host?colour=red", "unknown option 'colour'; there are heartbeat_interval, nodelay"),
        ("iggy://iggy:secret@host?reconnection_retries=-1", "expected a number or unlimited"),
        ("iggy://iggy:secret@host?reconnection_interval=0s", "expected more than 0"),
        ("iggy://iggy:secret@host?reestablish_after=soon", "expected a duration such as"),
        ("iggy://iggy:secret@host?heartbeat_interval=5parsecs", "expected a duration such as"),
    ],
)
def test_a_connection_string_that_can_not_be_used_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(InvalidUrl, match=said) as caught:
        parse(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["iggy://iggy:secret@host", "iggy://secret@host"])
def test_a_target_shows_no_secret(url: str) -> None:
    assert "secret" not in repr(parse(url)) and "secret" not in str(parse(url))
    assert "host:8090" in repr(parse(url))


def test_waits_grow_and_have_a_limit() -> None:
    retry = Retry(first_s=0.1, max_s=2)
    for attempt, longest in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, 2, 2)):
        assert all(longest / 2 <= retry.delay_s(attempt) <= longest for _ in range(100))
    assert retry.delay_s(10_000) <= 2


def test_attempts_have_a_limit_if_there_is_one() -> None:
    assert [Retry(attempts_max=2).allows(attempt) for attempt in range(3)] == [True, True, False]
    assert Retry().allows(10_000)
    assert not Retry(attempts_max=0).allows(0)
