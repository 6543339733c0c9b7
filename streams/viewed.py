"""Which gateways show which responses: so that a response is ended only when nobody views it."""

from __future__ import annotations

from collections import defaultdict

from schemas.ids import ResponseId
from streams.clients import Client
from streams.connect import Script
from streams.keys import partition_of, viewed_key

VIEWED_S = 4.0
"""Life of an entry; a gateway that died counts as a viewer for so long."""
_KEYS_PER_CALL = 500


class Viewed:
    """The viewed sets as one gateway writes them."""

    def __init__(self, client: Client, *, gateway: str, partitions: int = 1) -> None:
        self._client = client
        self._gateway = gateway
        self._partitions = partitions
        self._view = Script("view")
        self._leave = Script("leave")

    async def refresh(self, response_ids: list[ResponseId]) -> None:
        """This gateway shows these, for VIEWED_S from now; one script call per partition. Raises BrokerError."""
        keys: dict[int, list[str]] = defaultdict(list)
        for response_id in response_ids:
            partition = partition_of(response_id, self._partitions)
            keys[partition].append(viewed_key(response_id, self._partitions))
        for of_partition in keys.values():
            for start in range(0, len(of_partition), _KEYS_PER_CALL):
                part = of_partition[start : start + _KEYS_PER_CALL]
                await self._view.run(self._client, part, [self._gateway, int(VIEWED_S * 1000)])

    async def leave(self, response_id: ResponseId) -> int:
        """This gateway shows it no longer; how many others do. May be repeated. Raises BrokerError."""
        key = viewed_key(response_id, self._partitions)
        return int(await self._leave.run(self._client, [key], [self._gateway]))
