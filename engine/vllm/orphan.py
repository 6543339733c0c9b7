"""Loaded by vLLM into the process that holds the model (`worker_extension_cls`): it must not outlive ours.

vLLM's engine core goes on when the process that started it is killed, and keeps the memory of the
GPU, so that no other worker could start there. Here a thread waits for that process to end.
"""

from __future__ import annotations

import os
import select
import signal
import threading

VARIABLE = "_OPENCHAT_VLLM_OWNER"
"""Has the id of the process that owns the engine; set before vLLM starts its processes, which inherit it."""


class WorkerExtension:
    """Adds nothing to vLLM's worker: what counts is that this module is imported there."""


def _die_with(owner: int) -> None:
    """SIGKILL: a core that computes on a GPU does not come to anything gentler."""
    try:
        poll = select.poll()
        poll.register(os.pidfd_open(owner), select.POLLIN)
        poll.poll()
    except ProcessLookupError:
        pass  # it is gone already
    os.kill(os.getpid(), signal.SIGKILL)


_owner = int(os.environ.get(VARIABLE, "0"))
if _owner and _owner != os.getpid() and hasattr(os, "pidfd_open"):
    threading.Thread(target=_die_with, args=(_owner,), name="die-with-owner", daemon=True).start()
