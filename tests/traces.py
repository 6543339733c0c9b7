"""Everything that Redis and SQL hold, as text: whether something is left of a response is a search."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.codec import unpack
from archive.tables import metadata
from streams.connect import Broker


async def everything_in_redis(broker: Broker) -> str:
    """Every key with all that is in it, whatever its type."""
    client: Any = broker.commands
    found = []
    async for key in client.scan_iter(count=1000):
        kind = (await client.type(key)).decode()
        if kind != "none":  # expired since
            found.append(f"{key!r} {kind}: {await _READ[kind](client, key)!r}")
    return "\n".join(found)


async def _read_stream(client: Any, key: bytes) -> Any:
    entries = await client.xrange(key)
    try:
        return entries, await client.xinfo_groups(key)
    except ResponseError as error:  # unlike a read, it minds that the key is gone
        if "no such key" not in str(error).lower():
            raise
        return entries, []


_READ: dict[str, Any] = {
    "string": lambda client, key: client.get(key),
    "hash": lambda client, key: client.hgetall(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: client.smembers(key),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    "stream": _read_stream,
}


async def everything_in_sql(connection: AsyncConnection) -> str:
    """Every row of every table; the logs unpacked."""
    found = []
    for table in metadata.sorted_tables:
        for row in (await connection.execute(select(table))).mappings():
            found.append(f"{table.name}: {dict(row)!r}")
            if "codec" in row:
                found += [repr(entry) for entry in unpack(row["codec"], row["entries"])]
    return "\n".join(found)
