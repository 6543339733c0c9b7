"""Free ports on the loopback interface, below those that the system gives to clients."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"


def free_ports(count: int = 1) -> int:
    """The first of `count` neighbouring free ports."""
    for _ in range(100):
        first = random.randint(10_000, 32_000)
        if all(_is_free(first + i) for i in range(count)):
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
    return True
