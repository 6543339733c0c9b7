"""What was done to whom, and when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Target(StrEnum):
    WORKER = "worker"
    GATEWAY = "gateway"
    ARCHIVER = "archiver"
    BROKER = "broker"
    PRIMARY = "primary"


class Action(StrEnum):
    KILL = "SIGKILL"
    PAUSE = "SIGSTOP, SIGCONT"
    ZOMBIE = "SIGSTOP over the lease, SIGCONT"
    DRAIN = "SIGTERM"


@dataclass
class Fault:
    """One blow. It is counted only if it struck something that was at work."""

    target: Target
    action: Action
    name: str
    at: float
    """Monotonic seconds."""
    struck: int
    """Responses that its target was busy with, as far as can be known at that moment."""
    consumer: str = ""
    """Of a worker: the name under which it held them."""
    port: int = 0
    """Of a gateway."""
    over_at: float = 0.0
    """When the target was back or went on; 0: not yet."""

    @property
    def is_counted(self) -> bool:
        return self.struck > 0


def count(faults: list[Fault], target: Target, action: Action, *, counted: bool = True) -> int:
    return sum(f.target is target and f.action is action and f.is_counted is counted for f in faults)
