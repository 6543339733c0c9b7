"""Which addresses are public: the table, and every way to write one of those that are not."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from responses.public_addresses import is_public, parse_rules
from schemas.errors import AddressRefused, SettingsError

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.15.255.255",
    "172.32.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:82a::200e",
    "2400:cb00::1",
    "::ffff:1.1.1.1",
    "64:ff9b::1.1.1.1",
]
NOT_PUBLIC = {
    "0.0.0.0": "unspecified, which is this machine",
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "carrier NAT",
    "100.100.100.200": "Alibaba's metadata",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "Azure's own",
    "169.254.169.254": "metadata of most clouds",
    "169.254.170.2": "container credentials",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.192": "Oracle's metadata",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relay",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "IPv4-compatible",
    "::8.8.8.8": "IPv4-compatible",
    "::ffff:0:127.0.0.1": "IPv4-translated",
    "::ffff:10.0.0.1": "mapped private",
    "::ffff:127.0.0.1": "mapped loopback",
    "::ffff:169.254.169.254": "mapped metadata",
    "64:ff9b::10.0.0.1": "NAT64 to private",
    "64:ff9b::7f00:1": "NAT64 to loopback",
    "64:ff9b::169.254.169.254": "NAT64 to metadata",
    "64:ff9b:1::1": "local NAT64",
    "100::1": "discard only",
    "2001::1": "Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4 to loopback",
    "2002:a00:1::": "6to4 to private",
    "3fff::1": "documentation",
    "4000::1": "reserved",
    "5f00::1": "segment routing",
    "fc00::1": "unique local",
    "fd00:ec2::254": "metadata",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local with a zone",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "ff0e::1": "multicast, global",
}
WRITTEN_ODDLY = {
    "2130706433": "127.0.0.1",
    "0x7f000001": "127.0.0.1",
    "017700000001": "127.0.0.1",
    "127.1": "127.0.0.1",
    "0177.0.0.1": "127.0.0.1",
    "0x7f.0x0.0x0.0x1": "127.0.0.1",
    "2852039166": "169.254.169.254",
    "0xa9fea9fe": "169.254.169.254",
    "0": "0.0.0.0",
}


@pytest.mark.parametrize("text", PUBLIC)
def test_it_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC, ids=[f"{text} {why}" for text, why in NOT_PUBLIC.items()])
def test_it_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(("text", "address"), WRITTEN_ODDLY.items())
def test_what_the_system_makes_of_an_odd_spelling_is_what_is_judged(text: str, address: str) -> None:
    found = {place[0] for *_, place in socket.getaddrinfo(text, 80, type=socket.SOCK_STREAM)}
    assert found == {address}
    assert not any(is_public(ip_address(str(one))) for one in found)


def test_what_is_allowed_is_allowed_in_every_form_and_nothing_beside_it() -> None:
    rules = parse_rules(ports="80, 8443", allowed="10.1.2.0/24, fd00:1::/32")
    for text in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00:1::9", "1.1.1.1"):
        rules.check_address(ip_address(text))
    for text in ("10.1.3.1", "::ffff:10.1.3.1", "fd00:2::9", "127.0.0.1"):
        with pytest.raises(AddressRefused, match="no public address"):
            rules.check_address(ip_address(text))
    rules.check_port(8443)
    with pytest.raises(AddressRefused, match="port 6379 is not one of 80, 8443"):
        rules.check_port(6379)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ports": "http"}, "OPENCHAT_OUTBOUND_PORTS: 'http'"),
        ({"ports": "0"}, "OPENCHAT_OUTBOUND_PORTS: '0'"),
        ({"ports": "65536"}, "OPENCHAT_OUTBOUND_PORTS"),
        ({"allowed": "10.0.0.1/8"}, "OPENCHAT_OUTBOUND_ALLOW: 10.0.0.1/8 has host bits set"),
        ({"allowed": "intranet"}, "OPENCHAT_OUTBOUND_ALLOW"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_rules(**({"ports": "80", "allowed": ""} | given))
