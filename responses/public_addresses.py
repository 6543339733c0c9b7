"""Which addresses may be connected to for others: what is on the public internet, and what the operator allows.

Whoever asks for a URL must not reach what only this server can reach: its own machine, its network, the metadata
service of its cloud. Python's `is_global` is the base. What it lets pass is refused by name: multicast, prefixes that
only wrap an IPv4 address (it is judged itself, or the prefix is gone from the internet anyway), and public addresses
that a cloud answers from within.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import msgspec

from schemas.errors import AddressRefused, SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_UNICAST = IPv6Network("2000::/3")
"""All that is public of IPv6; everything else is reserved, local or multicast."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""An IPv4 address behind a translator, which is how networks without IPv4 reach one."""
_NOT_PUBLIC: tuple[Network, ...] = (
    IPv4Network("168.63.129.16/32"),  # Azure's own, from within every machine of it
    IPv4Network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata service is among them
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, withdrawn
    IPv6Network("2001::/23"),  # protocol assignments: Teredo, ORCHID, benchmarks
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4: any IPv4 address, withdrawn
    IPv6Network("3fff::/20"),  # documentation
)
_MAX_PORT = 65_535
NO_PUBLIC_ADDRESS = "its host has no public address"


def is_public(address: Address) -> bool:
    """It is on the public internet, and nowhere nearer."""
    if any(address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, IPv6Address):
        wrapped = unwrapped(address)
        return is_public(wrapped) if wrapped is not address else address in _UNICAST and address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved


def unwrapped(address: Address) -> Address:
    """The IPv4 address that one of IPv6 stands for, where it does (`::ffff:…`, NAT64); else the address."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


class AddressRules(msgspec.Struct, frozen=True):
    """What one deployment connects to for others."""

    ports: frozenset[int]
    allowed: tuple[Network, ...] = ()
    """Though not public."""

    def check_port(self, port: int) -> None:
        """Raises AddressRefused."""
        if port not in self.ports:
            raise AddressRefused(f"port {port} is not one of {', '.join(map(str, sorted(self.ports)))}")

    def check_address(self, address: Address) -> None:
        """Raises AddressRefused. Its words are those for a name that leads nowhere: which are known here is no one's
        business."""
        if any(unwrapped(address) in network for network in self.allowed):
            return
        if not is_public(address):
            raise AddressRefused(NO_PUBLIC_ADDRESS)


def parse_rules(*, ports: str, allowed: str) -> AddressRules:
    """From the settings. Raises SettingsError naming the one that is wrong."""
    return AddressRules(frozenset(map(_port, _parts(ports))), tuple(map(_network, _parts(allowed))))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MAX_PORT):
        raise SettingsError(f"OPENCHAT_OUTBOUND_PORTS: {text!r} is no port; give numbers with commas, like 80,443")
    return int(text)


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise SettingsError(f"OPENCHAT_OUTBOUND_ALLOW: {exc}; give networks like 10.1.2.0/24, with commas") from exc
