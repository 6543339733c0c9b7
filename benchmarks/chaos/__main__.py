"""`python -m benchmarks.chaos`: exit code 0 only if nothing was lost, nothing came twice and all was checked."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import uvloop

from benchmarks.chaos import report
from benchmarks.chaos.asks import SYNTHETIC
from benchmarks.chaos.run import Options, Result, run, run_failovers
from benchmarks.chaos.sabotaged import SABOTAGES
from benchmarks.chaos.schedule import Plan
from benchmarks.chaos.stack import Layout
from schemas.models import load_models
from schemas.settings import Settings, settings_from_env

_WORKERS, _GATEWAYS = 4, 4
_FAILOVER_STREAMS, _LOCAL_STREAMS = 32, 6


async def main(arguments: argparse.Namespace, folder: Path) -> bool:
    """Print a report for each run; True where all passed."""
    _clean_up_on_sigterm()
    settings = settings_from_env(os.environ)
    options = Options(arguments.minutes, arguments.streams, arguments.seed, arguments.patience)
    print(
        f"# Chaos\n\nseed {options.seed}, {options.minutes:g} minutes, {options.streams} clients, "
        f"lease {settings.lease_ms / 1000:g} s, engine {arguments.engine}\n",
        flush=True,
    )
    found = {}
    passed = True
    async for title, is_failover, result in _runs(folder, arguments, options, settings):
        print(report.markdown(title, result, is_failover=is_failover), end="\n\n", flush=True)
        found[title] = report.as_dict(result, is_failover=is_failover)
        passed = passed and not found[title]["failures"]
    if arguments.json:
        await asyncio.to_thread(Path(arguments.json).write_text, json.dumps(found, indent=2), encoding="utf-8")
    return passed


async def _runs(
    folder: Path, arguments: argparse.Namespace, options: Options, settings: Settings
) -> AsyncIterator[tuple[str, bool, Result]]:
    """Title, whether primaries fail, and what came of it, one after the other."""
    if arguments.engine == "local":
        yield "A real model", False, await _local(folder, options, settings)
        return
    yield "One broker", False, await _synthetic(folder, arguments, options, settings)
    if not (arguments.no_sentinel or arguments.sabotage):
        yield "Sentinel", True, await _failovers(folder, arguments.failovers, options, settings)


async def _synthetic(folder: Path, arguments: argparse.Namespace, options: Options, settings: Settings) -> Result:
    layout = Layout("synthetic", workers=_WORKERS, gateways=_GATEWAYS, sabotage=arguments.sabotage)
    plan = Plan.against(arguments.sabotage) if arguments.sabotage else Plan.of(options.minutes)
    return await run(folder / "one", layout, plan, SYNTHETIC, options, settings)


async def _local(folder: Path, options: Options, settings: Settings) -> Result:
    model = load_models(settings).entries[0].name
    fewer = replace(options, streams=min(options.streams, _LOCAL_STREAMS), minutes=max(options.minutes, 2.0))
    plan = Plan.for_real_model(options.minutes)
    return await run(folder / "local", Layout("local", workers=2, gateways=2), plan, model, fewer, settings)


async def _failovers(folder: Path, failovers: int, options: Options, settings: Settings) -> Result:
    layout = Layout("synthetic", workers=2, gateways=2)
    fewer = replace(options, streams=min(options.streams, _FAILOVER_STREAMS), minutes=max(options.minutes, 2.0))
    return await run_failovers(folder / "sentinel", layout, failovers, fewer, settings)


def _clean_up_on_sigterm() -> None:
    """As on Ctrl-C: the stack must not outlive its run."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.5, help="of faults: how many kills there are")
    parser.add_argument("--streams", type=int, default=64, help="clients at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=["synthetic", "local"], default="synthetic")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds until a response counts as lost")
    parser.add_argument("--no-sentinel", action="store_true", help="leave the failovers out")
    parser.add_argument("--failovers", type=int, default=3, help="primaries killed")
    parser.add_argument("--json", default="", metavar="FILE", help="the report for programs")
    parser.add_argument("--keep", default="", metavar="DIR", help="where data and logs stay; else only of a failure")
    parser.add_argument("--sabotage", choices=SABOTAGES, default="", help="switch a safeguard off: the run must fail")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> int:
    kept = Path(arguments.keep).absolute() if arguments.keep else None
    folder = kept or Path(tempfile.mkdtemp(prefix="openchat-chaos-"))
    passed = uvloop.run(main(arguments, folder))
    if kept is None and passed:
        shutil.rmtree(folder)
    else:
        print(f"data and logs: {folder}", file=sys.stderr)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(_run(_arguments()))
