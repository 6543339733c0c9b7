"""How much of what, in which order: all from the seed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from enum import StrEnum

_DEFAULT_MINUTES = 4.5
_DEFAULT_KILLS = 21
_KILLS_PER_BROKER_PHASE = 6


class Step(StrEnum):
    """One thing after the other; a step begins when everything is at work again."""

    WORKERS = "two workers killed, and gateways while others take over"
    ZOMBIE = "a worker stopped for longer than its lease, another told to drain"
    PAUSES = "a gateway and an archiver stopped for a moment"
    BROKER = "the broker killed"
    BROKER_PAUSE = "the broker stopped for a moment"
    CALM = "a lease time without a fault of the broker: only after it do workers claim"


@dataclass(frozen=True)
class Plan:
    """Counted faults to reach."""

    kills: int
    """Of each: worker, gateway, archiver, broker."""
    zombies: int
    """And as many drains."""
    pauses: int
    """Of each: gateway, archiver, broker."""
    spares_storage: bool = False
    """Neither broker nor archiver is struck."""

    @classmethod
    def of(cls, minutes: float) -> Plan:
        kills = max(1, round(_DEFAULT_KILLS * minutes / _DEFAULT_MINUTES))
        return cls(kills=kills, zombies=max(1, kills // 4), pauses=max(1, kills // 5))

    @classmethod
    def for_real_model(cls, minutes: float) -> Plan:
        """A model takes seconds to load, so fewer kills."""
        return cls(kills=max(2, round(4 * minutes)), zombies=0, pauses=0, spares_storage=True)

    @classmethod
    def against(cls, safeguard: str) -> Plan:
        """The one step that finds this safeguard switched off."""
        is_takeover = safeguard == "takeover"
        return cls(kills=2 * is_takeover, zombies=int(not is_takeover), pauses=0, spares_storage=True)

    def steps(self, rng: random.Random) -> list[Step]:
        """Phases with workers, shuffled, and phases with the broker between them."""
        others = [Step.WORKERS] * math.ceil(self.kills / 2) + [Step.ZOMBIE] * self.zombies
        others += [Step.PAUSES] * self.pauses
        rng.shuffle(others)
        if self.spares_storage:
            return others
        phases = max(1, math.ceil(self.kills / _KILLS_PER_BROKER_PHASE))
        steps: list[Step] = []
        for i in range(phases):
            steps += others[len(others) * i // phases : len(others) * (i + 1) // phases]
            steps += [*self._broker_phase(rng, i, phases), Step.CALM]
        return steps

    def _broker_phase(self, rng: random.Random, index: int, phases: int) -> list[Step]:
        def share(total: int) -> int:
            return total * (index + 1) // phases - total * index // phases

        phase = [Step.BROKER] * share(self.kills) + [Step.BROKER_PAUSE] * share(self.pauses)
        rng.shuffle(phase)
        return phase
