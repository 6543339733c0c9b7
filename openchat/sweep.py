"""`openchat sweep`: one sweep by hand; every gateway does the same on a timer."""

from __future__ import annotations

import secrets

import msgspec

from archive.connect import open_archive
from archive.retention import ArchiveRetention
from responses.end import Ender
from responses.retention import Retention
from responses.sweep import Sweeper
from schemas.settings import Settings
from streams.bus import Bus
from streams.connect import connect_broker
from streams.control import ControlStream
from streams.dead import DeadLetters
from streams.finished import FinishedStream
from streams.logs import ResponseLogs
from streams.queue import RequestQueue


async def sweep(settings: Settings) -> None:
    """Print what was found, a line each. Raises BrokerError, ArchiveError."""
    async with connect_broker(settings) as broker, open_archive(settings.database_url) as archive:
        client = broker.commands
        finished = FinishedStream(client)
        logs = ResponseLogs(client, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions)
        ender = Ender(logs, finished, name="sweep", boot=secrets.token_hex(4), control=ControlStream(client))
        sweeper = Sweeper(
            logs,
            archive,
            finished,
            ender,
            lambda model: RequestQueue(client, model),
            buses=[Bus(client, partition) for partition in range(broker.partitions)],
            bus_max_age_s=settings.bus_max_age_s,
        )
        days = settings.retention_days
        retention = Retention(
            ArchiveRetention(archive.engine), logs, DeadLetters(client), default_days=days, actor="openchat sweep"
        )
        for found in (await sweeper.sweep(), await retention.sweep()):
            for name, count in msgspec.structs.asdict(found).items():
                print(f"{name.replace('_', ' ')}: {count}")
