"""Each part of OpenChat as a process: wired from the settings, run until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import FrameType
from typing import Any

from schemas.errors import EngineDead, SettingsError
from schemas.models import ModelEntry, load_models
from schemas.settings import Settings

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EXIT_LIMIT_S = 15.0


def run_until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a part on uvloop; SIGINT and SIGTERM set the event that it is given."""
    import uvloop

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def watch_parent(grace_s: float) -> None:
    """Leave when standard input ends: the supervisor holds the other side, so that
    even after its SIGKILL no part stays behind."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        _exit_after(grace_s + _EXIT_LIMIT_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _exit_after(limit_s: float) -> None:
    """However much the clean-up hangs, this process is gone after `limit_s`."""
    timer = threading.Timer(limit_s, os._exit, (1,))
    timer.daemon = True
    timer.start()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises SettingsError where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise SettingsError(
            f"can not listen on {host}:{port}: {exc.strerror}; choose another with --port, or stop what runs there"
        ) from exc
    sock.listen(2048)
    sock.setblocking(False)
    return sock


def is_exposed(host: str) -> bool:
    """Others than this machine may connect: then keys are required, also where there is none."""
    return host not in LOOPBACK


async def check_exposure(settings: Settings, host: str) -> None:
    """Without a key only this machine may connect; the archive knows the managed ones, if there is an archive.

    Raises SettingsError, ArchiveError.
    """
    from archive.api_keys import KeyStore
    from archive.connect import open_archive

    if not is_exposed(host) or settings.api_keys or settings.admin_keys:
        return
    if settings.database_url:
        async with open_archive(settings.database_url) as archive:
            if await KeyStore(archive.engine).has_any():
                return
    raise SettingsError(
        f"--host {host} opens OpenChat to others, but there is no key: OPENCHAT_API_KEYS and OPENCHAT_ADMIN_KEYS are "
        "empty; make one with `openchat key TENANT` or `openchat keys create TENANT`, or listen on 127.0.0.1"
    )


def _is_no_broken_off_stream(record: logging.LogRecord) -> bool:
    """What uvicorn calls an error is how a gateway breaks a stream off, and says in its own words."""
    return record.getMessage() != "ASGI callable returned without completing response."


async def run_ingress(settings: Settings, *, host: str, port: int, name: str, early_signals: Sequence[int]) -> None:
    """One gateway; uvicorn handles the signals. `early_signals`: those that came before it."""
    import uvicorn

    from archive.api_keys import KeyStore
    from archive.audit import AuditLog
    from archive.chat_completions import ChatCompletions
    from archive.connect import open_archive
    from archive.response_metadata import ResponseMetadata
    from archive.retention import ArchiveRetention
    from archive.tenants import TenantStore
    from archive.usage_reports import UsageReports
    from ingress.app import create_app
    from ingress.gateway import Gateway
    from ingress.protocol import GatewayProtocol, Limits
    from ingress.tails import Tails
    from ingress.viewers import Viewers
    from responses.accept import Intake
    from responses.accounts import Accounts
    from responses.authenticate import AdminKeys, Authenticator
    from responses.conversation_edits import ConversationEditor
    from responses.conversations import ConversationReader
    from responses.delete import Deleter
    from responses.directory import ModelDirectory
    from responses.end import Ender
    from responses.history import Histories
    from responses.images import RemoteImages
    from responses.keys import ApiKeys, admin_digests
    from responses.outbound import Outbound
    from responses.public_addresses import parse_rules
    from responses.read import ResponseReader
    from responses.references import References
    from responses.restore import Restorer
    from responses.retention import Retention
    from responses.stored import StoredResponses
    from responses.sweep import Sweeper
    from responses.upkeep import AccountUpkeep
    from streams.bus import Bus
    from streams.chats import Chats
    from streams.connect import connect_broker
    from streams.control import ControlStream
    from streams.dead import DeadLetters
    from streams.finished import FinishedStream
    from streams.leases import Leases, WorkerRegistry
    from streams.logs import ResponseLogs
    from streams.projection import KeyProjection
    from streams.queue import RequestQueue
    from streams.replication import Replication
    from streams.turns import ConversationTurns
    from streams.viewed import Viewed

    class _Server(uvicorn.Server):
        """Says that it drains before the first connection is closed."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(viewers.drain)
            super().handle_exit(sig, frame)

    models = load_models(settings)
    keys, admins = ApiKeys(settings.api_keys), AdminKeys(admin_digests(settings.admin_keys))
    must_have_key = is_exposed(host) or bool(settings.admin_keys)
    rules = parse_rules(ports=settings.outbound_ports, allowed=settings.outbound_allow)
    sock = listen(host, port)
    async with (
        connect_broker(settings) as broker,
        open_archive(settings.database_url) as archive,
        Outbound(rules) as outbound,
    ):
        loop = asyncio.get_running_loop()
        client = broker.commands
        replication = Replication(broker.wait_replicas)
        finished = FinishedStream(client, replication)

        def queue_of(model: str) -> RequestQueue:
            return RequestQueue(client, model, replication)

        logs = ResponseLogs(client, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions)
        registry = WorkerRegistry(client, Leases(client, settings.lease_ms))
        letters = DeadLetters(client)
        buses = [Bus(client, partition) for partition in range(broker.partitions)]
        boot = secrets.token_hex(4)
        ender = Ender(logs, finished, name=name, boot=boot, control=ControlStream(client))
        reader = ResponseReader(logs, archive)
        turns = ConversationTurns(client)
        conversations = ConversationReader(logs, archive, archive.conversations, turns)
        histories = Histories(reader, conversations, turns)
        restorer = Restorer(logs, archive, finished, queue_of, histories)
        tails = Tails(broker, logs, reader, ender, restorer)
        viewed = Viewed(client, gateway=f"{name}-{boot}", partitions=broker.partitions)
        viewers = Viewers(tails, viewed, ender, grace_s=settings.disconnect_grace_s)
        projection = KeyProjection(client)
        accounts = Accounts(TenantStore(archive.engine), KeyStore(archive.engine), projection)
        authenticator = Authenticator(keys, projection, accounts.restore, is_required=must_have_key)
        gateway = Gateway(
            settings=settings,
            models=models,
            authenticator=authenticator,
            admin_keys=admins,
            accounts=accounts,
            upkeep=AccountUpkeep(accounts, projection, authenticator),
            usage=UsageReports(archive.engine),
            audit=AuditLog(archive.engine),
            broker=broker,
            archive=archive,
            registry=registry,
            directory=ModelDirectory(models, registry, grace_s=settings.model_grace_s),
            intake=Intake(settings, models, logs, queue_of),
            images=RemoteImages(settings, outbound),
            histories=histories,
            references=References(reader),
            stored=StoredResponses(logs, archive, ResponseMetadata(archive.engine), ChatCompletions(archive.engine)),
            conversations=conversations,
            editor=ConversationEditor(conversations, archive.conversations, turns),
            chats=Chats(client, ttl_s=settings.request_timeout_s + settings.log_ttl_s),
            tails=tails,
            viewers=viewers,
            ender=ender,
            deleter=Deleter(logs, archive, ender, queue_of, letters, models),
            sweeper=Sweeper(
                logs, archive, finished, ender, queue_of, buses=buses, bus_max_age_s=settings.bus_max_age_s
            ),
            retention=Retention(
                ArchiveRetention(archive.engine), logs, letters, default_days=settings.retention_days, actor=name
            ),
        )
        limits = Limits(
            max_head_bytes=settings.max_head_bytes,
            head_timeout_s=settings.head_timeout_s,
            send_timeout_s=settings.send_timeout_s,
            max_connections=settings.max_connections,
        )
        config = uvicorn.Config(
            create_app(gateway),
            http=partial(GatewayProtocol, limits=limits),  # type: ignore[arg-type]
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_no_broken_off_stream)
        log.info("gateway_listens name=%s address=%s:%d", name, host, port)
        server = _Server(config)
        server.should_exit = bool(early_signals)
        await server.serve(sockets=[sock])


def serve_ingress(settings: Settings, *, host: str, port: int, name: str) -> None:
    """Run a gateway to its end."""
    import uvloop

    # before uvicorn is there a signal is kept for it; it raises it again when it is done, which must not cut
    # the clean-up short
    early_signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: early_signals.append(number))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_ingress(settings, host=host, port=port, name=name, early_signals=early_signals))


def serve_inference(settings: Settings, *, name: str, model: str) -> None:
    """Run an inference worker to its end. It imports no more than an engine's own environment has: no fastapi."""

    async def main(stop: asyncio.Event) -> None:
        from consumers.inference import InferenceWorker
        from engine.registry import create_engine
        from streams.connect import connect_broker

        entry = _model_entry(settings, model)
        engine = create_engine(entry, settings, os.environ)
        _serve_metrics(settings)
        async with connect_broker(settings) as broker:
            try:
                await InferenceWorker(settings, entry, engine, broker, name=name, pid=os.getpid()).run(stop)
            except EngineDead:
                _exit_after(_EXIT_LIMIT_S)  # what is stuck may not be stoppable
                raise
            finally:
                await engine.close()

    run_until_signal(main)


def _serve_metrics(settings: Settings) -> None:
    """Of this process, where a port is set. Raises SettingsError where the port is taken."""
    if not settings.metrics_port:
        return
    from prometheus_client import start_http_server

    try:
        start_http_server(settings.metrics_port, settings.metrics_host)
    except OSError as exc:
        raise SettingsError(
            f"can not serve metrics on {settings.metrics_host}:{settings.metrics_port} (OPENCHAT_METRICS_PORT): "
            f"{exc.strerror}"
        ) from exc


def _model_entry(settings: Settings, model: str) -> ModelEntry:
    models = load_models(settings)
    if not model and len(models.entries) > 1:
        raise SettingsError("the models file has several models: say with --serve which one this worker serves")
    return models.find(model) if model else models.entries[0]


def serve_archiver(settings: Settings, *, name: str) -> None:
    """Run an archiver to its end."""

    async def main(stop: asyncio.Event) -> None:
        from archive.connect import open_archive
        from consumers.archiver import Archiver
        from streams.connect import connect_broker

        models = load_models(settings)
        _serve_metrics(settings)
        async with connect_broker(settings) as broker, open_archive(settings.database_url) as archive:
            log.info("archiver_ready name=%s", name)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(archive.writers):
                    tasks.create_task(Archiver(settings, broker, archive, name=name, models=models).run(stop))

    run_until_signal(main)
