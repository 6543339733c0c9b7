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
from pathlib import Path

import uvloop

from benchmarks.chaos import report
from benchmarks.chaos.asks import synthetic_ask
from benchmarks.chaos.run import Options, Result, run
from benchmarks.chaos.sabotaged import SABOTAGES
from benchmarks.chaos.schedule import Plan
from benchmarks.chaos.stack import Layout
from schemas.settings import Settings, settings_from_env

_WORKERS, _GATEWAYS = 4, 4


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
    results = [("One broker", False, await _synthetic(folder, arguments, options, settings))]
    for title, is_failover, result in results:
        print(report.markdown(title, result, is_failover=is_failover), end="\n\n", flush=True)
    if arguments.json:
        found = {title: report.as_dict(result, is_failover=failover) for title, failover, result in results}
        await asyncio.to_thread(Path(arguments.json).write_text, json.dumps(found, indent=2), encoding="utf-8")
    return not any(report.failures(result, is_failover=failover) for _, failover, result in results)


async def _synthetic(folder: Path, arguments: argparse.Namespace, options: Options, settings: Settings) -> Result:
    layout = Layout("synthetic", workers=_WORKERS, gateways=_GATEWAYS, sabotage=arguments.sabotage)
    plan = Plan.against(arguments.sabotage) if arguments.sabotage else Plan.of(options.minutes)
    return await run(folder / "one", layout, plan, synthetic_ask, options, settings)


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
