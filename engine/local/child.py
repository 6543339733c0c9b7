"""The child of the local engine: llama.cpp's server in a process of its own.

Run as `python -m engine.local.child`, with one JSON line on standard input; answers with
one line on standard output, then serves HTTP on a loopback port behind a key, and ends
when standard input does: so it does not outlive its parent, however that one died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import xllamacpp  # type: ignore[import-untyped]

_CACHE_MIB = 256
"""Prompt cache; llama.cpp's default is 8 GiB."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native code prints must not look like an answer
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    try:
        server = xllamacpp.Server(_params(settings))
        reply = {"address": server.listening_address}
    except (RuntimeError, ValueError, AttributeError, TypeError) as exc:
        reply = {"error": str(exc)}
    answer.write(json.dumps(reply) + "\n")
    answer.flush()
    while "address" in reply and sys.stdin.read(4096):
        pass
    os._exit(0)  # at once, also in the middle of a generation


def _params(settings: dict[str, Any]) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.api_keys = [settings["key"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.n_gpu_layers = 0
    params.port = 0
    params.ui = False
    params.warmup = False
    params.verbosity = -1
    params.cache_ram_mib = _CACHE_MIB
    if settings["embeds"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # an input is worked on as a whole, so it must fit into one batch
        params.n_batch = params.n_ubatch = settings["context"]
    for name, value in settings["args"].items():
        if not hasattr(params, name):
            raise ValueError(f"llama.cpp has no argument {name!r}")
        setattr(params, name, value)
    return params


if __name__ == "__main__":
    main()
