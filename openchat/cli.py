"""The command line: `openchat COMMAND …`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from openchat.account_arguments import add_key_actions, add_tenant_actions
from schemas.errors import OpenChatError, SettingsError
from schemas.settings import Settings, settings_from_env
from telemetry.logs import setup_logging

_ENGINES = "local, vllm, transformers, openai, synthetic, or one that a package adds"

Command = Callable[[argparse.Namespace, Settings], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0, 1 for an error, 2 for wrong settings or arguments."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        settings = settings_from_env(
            os.environ,
            data_dir=getattr(arguments, "data_dir", None),
            engine=getattr(arguments, "engine", None),
            model=getattr(arguments, "model", None),
        )
        setup_logging(settings.log_level)
        command(arguments, settings)
    except SettingsError as exc:
        print(f"openchat: {exc.message}", file=sys.stderr)
        return 2
    except OpenChatError as exc:
        print(f"openchat: {exc.message}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    return 0


def _up(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.stack import Stack

    async def run() -> None:
        await Stack(
            settings,
            host=arguments.host,
            port=arguments.port,
            workers=arguments.workers,
            gateways=arguments.gateways,
        ).run()

    asyncio.run(run())


def _ingress(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.parts import serve_ingress

    _watch(arguments, settings)
    serve_ingress(_connected(settings), host=arguments.host, port=arguments.port, name=arguments.name)


def _inference(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.parts import serve_inference

    _watch(arguments, settings)
    serve_inference(_connected(settings), name=arguments.name, model=arguments.serve)


def _archiver(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.parts import serve_archiver

    _watch(arguments, settings)
    serve_archiver(_connected(settings), name=arguments.name)


def _watch(arguments: argparse.Namespace, settings: Settings) -> None:
    if arguments.supervised:
        from openchat.parts import watch_parent

        watch_parent(settings.drain_grace_s)


def _migrate(arguments: argparse.Namespace, settings: Settings) -> None:
    from archive.create import create
    from archive.migrate import migrate

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    url, wait_s = _connected(settings).database_url, settings.database_wait_s
    if arguments.create:
        asyncio.run(create(url, settings.database_admin_url, say, wait_s=wait_s))
    else:
        asyncio.run(migrate(url, say, wait_s=wait_s))


def _chat(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.terminal import chat

    chat(arguments.url, settings, message=arguments.message)


def _tail(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.terminal import tail

    tail(arguments.url, settings, arguments.id)


def _replay(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.replay import replay

    asyncio.run(replay(_connected(settings), arguments.id, speed=arguments.speed))


def _doctor(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.doctor import examine

    asyncio.run(examine(_connected(settings)))


def _status(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.status import watch

    work = watch(_connected(settings), interval_s=arguments.interval, once=arguments.once, as_json=arguments.json)
    asyncio.run(work)


def _sweep(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.sweep import sweep

    asyncio.run(sweep(_connected(settings)))


def _dead(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat import dead

    settings = _connected(settings)
    match arguments.action:
        case "list":
            asyncio.run(dead.list_letters(settings, count=arguments.count, as_json=arguments.json))
        case "show":
            asyncio.run(dead.show(settings, arguments.id))
        case "requeue":
            asyncio.run(dead.requeue(settings, arguments.id, of_all=arguments.all))
        case "drop":
            asyncio.run(dead.drop(settings, arguments.id, of_all=arguments.all))


def _key(arguments: argparse.Namespace, settings: Settings) -> None:
    from responses.keys import key_digest, new_key, random_key

    if arguments.admin == bool(arguments.tenant):
        raise SettingsError("say for which tenant the key is, or --admin")
    if arguments.admin:
        key, name = random_key(), "OPENCHAT_ADMIN_KEYS"
        entry = key_digest(key)
    else:
        (key, entry), name = new_key(arguments.tenant), "OPENCHAT_API_KEYS"
    print(f"{'key, shown once:':<23} {key}\n{f'for {name}:':<23} {entry}")


def _keys(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.accounts import run_keys

    asyncio.run(run_keys(_connected(settings), arguments))


def _tenants(arguments: argparse.Namespace, settings: Settings) -> None:
    from openchat.accounts import run_tenants

    asyncio.run(run_tenants(_connected(settings), arguments))


def _settings(arguments: argparse.Namespace, settings: Settings) -> None:
    from schemas.settings import settings_markdown

    print(settings_markdown())


def _connected(settings: Settings) -> Settings:
    """Settings with broker and archive: those of the data folder's stack where none are set."""
    import msgspec

    from openchat.stack import default_database_url
    from streams.embedded import broker_url

    data_dir = Path(settings.data_dir).absolute()
    return msgspec.structs.replace(
        settings,
        redis_url=settings.redis_url or broker_url(data_dir),
        database_url=settings.database_url or default_database_url(data_dir),
    )


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError("must be 1 to 1000")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65_535:
        raise argparse.ArgumentTypeError("must be 1 to 65535")
    return value


def _speed(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError("must be 0 (at once) to 1000 times as fast")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be 0.1 to 3600")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openchat",
        description="Durable LLM chat and inference on Redis Streams.",
        epilog="Settings: docs/operations.md",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command)
        sub.add_argument("--data-dir", help="data folder (default: .openchat)")
        return sub

    up = add("up", _up, "run everything on this machine")
    up.add_argument("--host", default="127.0.0.1")
    up.add_argument("--port", type=_port, default=8000, help="first gateway; the others take the ports after it")
    up.add_argument("--engine", metavar="NAME", help=_ENGINES)
    up.add_argument("--model", help="model name, or path of a GGUF file or model folder")
    up.add_argument("--workers", type=_positive, default=1, metavar="N")
    up.add_argument("--gateways", type=_positive, default=1, metavar="N")

    ingress = add("ingress", _ingress, "run one gateway")
    ingress.add_argument("--host", default="127.0.0.1")
    ingress.add_argument("--port", type=_port, default=8000)
    inference = add("inference", _inference, "run one inference worker")
    inference.add_argument("--serve", default="", metavar="MODEL", help="which model of the models file")
    inference.add_argument("--engine", metavar="NAME", help=_ENGINES)
    inference.add_argument("--model", help="model name, or path of a GGUF file or model folder")
    archiver = add("archiver", _archiver, "run one archiver")
    for part, name in ((ingress, "ingress-1"), (inference, "inference-1"), (archiver, "archiver-1")):
        part.add_argument("--name", default=name, help="shown in logs and in the registry")
        part.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)

    migrate = add("migrate", _migrate, "bring the archive to the newest schema")
    migrate.add_argument("--create", action="store_true", help="make the database and its user first")
    for sub in (chat := add("chat", _chat, "talk in the terminal"), tail := add("tail", _tail, "follow a response")):
        sub.add_argument("--url", default="http://127.0.0.1:8000", help="a gateway; several with commas")
    chat.add_argument("message", nargs="?", help="say this and leave")
    tail.add_argument("id")
    replay = add("replay", _replay, "print a stored response again, with its timing")
    replay.add_argument("id")
    replay.add_argument("--speed", type=_speed, default=1.0, help="1: as it was; 0: at once")
    status = add("status", _status, "the live pipeline: workers, queues, rates, archive lag")
    status.add_argument("--once", action="store_true", help="look once and leave")
    status.add_argument("--json", action="store_true", help="one JSON object a line")
    status.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between two looks")
    _add_dead_actions(add("dead", _dead, "the dead letters: requests that nobody could serve, rows not archived"))
    add("doctor", _doctor, "say what works and what does not")
    add("sweep", _sweep, "end what nobody looks after any more")
    add("settings", _settings, "print the table of all settings")
    key = add("key", _key, "make an API key for the settings, as a line to put there")
    key.add_argument("tenant", nargs="?")
    key.add_argument("--admin", action="store_true", help="one that opens /admin, for OPENCHAT_ADMIN_KEYS")
    add_key_actions(add("keys", _keys, "the managed API keys: create, list, revoke, rotate"))
    add_tenant_actions(add("tenants", _tenants, "the tenants that have managed keys"))
    return parser


def _add_dead_actions(dead: argparse.ArgumentParser) -> None:
    actions = dead.add_subparsers(required=True, metavar="ACTION", dest="action")

    def add(name: str, help: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=help, description=help)
        sub.add_argument("--data-dir", default=argparse.SUPPRESS, help="data folder (default: .openchat)")
        return sub

    shown = add("list", "the newest dead letters")
    shown.add_argument("--count", type=_positive, default=50, metavar="N", help="how many (default: 50)")
    shown.add_argument("--json", action="store_true", help="one JSON object a line")
    add("show", "everything in one, as JSON").add_argument("id")
    for sub in (add("requeue", "send again, as a new response; then delete"), add("drop", "delete for good")):
        sub.add_argument("id", nargs="*", help="as `openchat dead list` shows it")
        sub.add_argument("--all", action="store_true", help="all that are there")
