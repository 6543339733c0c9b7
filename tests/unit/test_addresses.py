"""Broker URLs (streams/addresses.py)."""

from __future__ import annotations

import pytest

from schemas.errors import SettingsError
from streams.addresses import parse_broker_url


@pytest.mark.parametrize("url", ["redis://host", "rediss://u:p@host:1/2", "unix:///a/b.sock?db=1"])
def test_one_node_is_left_to_redis_py(url: str) -> None:
    address = parse_broker_url(url)
    assert (address.kind, address.url) == ("single", url)


def test_sentinel_has_hosts_a_service_and_logins_of_two_kinds() -> None:
    address = parse_broker_url(
        "redis+sentinel://us%40er:p%3Aw@a:1,b,[::1]:3/4?service=mine&sentinel_username=s&sentinel_password=t%26&client_name=x"
    )
    assert address.kind == "sentinel"
    assert address.hosts == (("a", 1), ("b", 26379), ("::1", 3))
    assert address.service == "mine"
    assert address.options == {"username": "us@er", "password": "p:w", "db": 4, "client_name": "x"}
    assert address.sentinel_options == {"username": "s", "password": "t&"}
    assert not address.is_tls


def test_a_cluster_has_hosts_and_options_in_their_types() -> None:
    address = parse_broker_url("rediss+cluster://:secret@a:1,b?health_check_interval=5")
    assert address.kind == "cluster"
    assert address.hosts == (("a", 1), ("b", 6379))
    assert address.options == {"password": "secret", "health_check_interval": 5}
    assert address.is_tls


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "empty"),
        ("host:6379", "empty"),
        ("http://secret@host", "'http' is no supported scheme"),
        ("redis://host:secret", "Port"),
        ("redis+sentinel://a:1", "name the master"),
        ("redis+sentinel://:secret@a:1,,b?service=x", "every host needs a name"),
        ("redis+sentinel://?service=x", "every host needs a name"),
        ("redis+cluster://:secret@a:70000", "[Pp]ort"),
        ("redis+cluster://:secret@a:1/3", "only database 0"),
        ("redis+cluster://a:1?service=x", "belong to redis.sentinel"),
        ("redis+cluster://a:1?sentinel_password=secret", "belong to redis.sentinel"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_without_showing_it(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        parse_broker_url(url)
    assert "secret@" not in str(caught.value)
    assert "OPENCHAT_REDIS_URL" in str(caught.value)
