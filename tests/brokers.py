"""A Sentinel trio with two data nodes, and a three-node Cluster, from the bundled server and our settings."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from streams.embedded import CONF, find_server
from tests.ports import HOST, free_ports

_START_LIMIT_S = 60.0
SENTINEL_CONF = CONF.with_name("sentinel.conf")
SERVICE = "openchat"


def wait_for(condition: Callable[[], object], what: str, limit_s: float = _START_LIMIT_S) -> None:
    """Until the condition holds; a connection error counts as no."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(0.02)


class Node:
    """One server process with a folder and a port of its own."""

    def __init__(self, folder: Path, name: str, conf: Path, *options: str, port: int = 0) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        own = self.folder / "server.conf"  # a Sentinel makes servers rewrite their files
        own.write_bytes(conf.read_bytes())
        self.port = port or free_ports()
        self._command = [find_server(), str(own), *options, "--port", str(self.port), "--bind", HOST]
        self._command += ["--dir", str(self.folder)]
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = redis.Redis(host=HOST, port=self.port, socket_timeout=5)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._answers, f"the server in {self.folder}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        return bool(self.client.ping())

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.info(section)
        return found


class SentinelTrio:
    """A primary, a replica and three Sentinels that watch them."""

    def __init__(self, folder: Path, *, down_after_ms: int = 1000) -> None:
        self.data = [Node(folder, "data-0", CONF)]
        self.data.append(Node(folder, "data-1", CONF, "--replicaof", f"{HOST} {self.data[0].port}"))
        self.sentinels = [self._sentinel(folder, i, down_after_ms) for i in range(3)]

    def _sentinel(self, folder: Path, index: int, down_after_ms: int) -> Node:
        text = SENTINEL_CONF.read_text().replace("primary 6379 2", f"{HOST} {self.data[0].port} 2")
        text = text.replace(
            "down-after-milliseconds openchat 5000", f"down-after-milliseconds openchat {down_after_ms}"
        )
        port = free_ports()
        changed = folder / f"sentinel-{index}.conf"
        changed.write_text(text.replace("port 26379", f"port {port}"))
        return Node(folder, f"sentinel-{index}", changed, "--sentinel", port=port)

    def start(self) -> None:
        """Returns when a failover could happen."""
        for node in (*self.data, *self.sentinels):
            node.start()
        wait_for(self._is_complete, "the Sentinels to know each other and the replica")

    def _is_complete(self) -> bool:
        return self.data[1].info("replication")["master_link_status"] == "up" and all(
            (state := node.client.sentinel_master(SERVICE))["num-other-sentinels"] == 2 and state["num-slaves"] == 1
            for node in self.sentinels
        )

    @property
    def primary(self) -> Node:
        return next(node for node in self.data if node.info("replication")["role"] == "master")

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.sentinels)
        return f"redis+sentinel://{hosts}/0?service={SERVICE}"

    def clear(self) -> None:
        self.primary.client.flushall()

    def stop(self) -> None:
        for node in (*self.sentinels, *self.data):
            node.stop()


class Cluster:
    """Three primaries that share the slots."""

    def __init__(self, folder: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        self._bus_ports = [free_ports() for _ in range(3)]
        self.data = [
            Node(folder, f"node-{i}", CONF, *options, "--cluster-port", str(self._bus_ports[i])) for i in range(3)
        ]

    def start(self) -> None:
        """Returns when every node serves its slots."""
        for node in self.data:
            node.start()
        for node in self.data[1:]:
            node.client.execute_command("CLUSTER MEET", HOST, self.data[0].port, self._bus_ports[0])
        for index, node in enumerate(self.data):
            low, high = index * 16384 // 3, (index + 1) * 16384 // 3 - 1
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", low, high)
        wait_for(lambda: all(self._serves(node) for node in self.data), "the Cluster to serve every slot")

    def _serves(self, node: Node) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3")

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.data)

    def clear(self) -> None:
        for node in self.data:
            node.client.flushall()

    def stop(self) -> None:
        for node in self.data:
            node.stop()
