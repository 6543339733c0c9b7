"""OpenChat with one safeguard switched off: the test of the chaos suite, which must then fail.

`python -m benchmarks.chaos.sabotaged fences up …` is `openchat up …`, and every part that it starts is
sabotaged in the same way. The product itself has no such switch.
"""

from __future__ import annotations

import sys
from typing import Any

import openchat.processes
from openchat.cli import main
from streams.connect import Script
from streams.queue import RequestQueue

SABOTAGES = ("fences", "takeover")
_REFUSED = b"status = refused_status(log, attempt)"
_TAKEN_AS_WRITTEN = b"status = 0"


def switch_off(safeguard: str) -> None:
    """In this process. Raises RuntimeError where the code to be changed is no longer there."""
    if safeguard == "takeover":
        _never_claim()
    else:
        _believe_refused_writes()


def _never_claim() -> None:
    """What a dead worker held stays with it."""

    async def claim(*_: Any, **__: Any) -> list[Any]:
        return []

    if not callable(getattr(RequestQueue, "claim", None)):
        raise RuntimeError("RequestQueue.claim is gone: sabotage what claims now")
    RequestQueue.claim = claim  # type: ignore[method-assign]


def _believe_refused_writes() -> None:
    """A write that the log refused counts as written, and goes onto the bus: late writes of a
    worker that was taken over reach the clients."""
    load = Script.__init__

    def load_changed(script: Script, name: str) -> None:
        load(script, name)
        if name != "append":
            return
        source = vars(script)["_source"]
        if source.count(_REFUSED) != 1:
            raise RuntimeError("append.lua judges refused writes in another way: sabotage that")
        vars(script)["_source"] = source.replace(_REFUSED, _TAKEN_AS_WRITTEN)
        # so that the server asks for the source
        vars(script)["_sha"] = "0" * 40

    Script.__init__ = load_changed  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    switch_off(sys.argv[1])
    openchat.processes.PROGRAM = (sys.executable, "-m", "benchmarks.chaos.sabotaged", sys.argv[1])
    raise SystemExit(main(sys.argv[2:]))
