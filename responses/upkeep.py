"""What each gateway does for the accounts, beside answering.

Once a second it looks whether the broker still holds the keys, and whether keys are required by now. Every few
seconds it compares them with SQL, for a change whose process died before it could tell, and writes when keys
were used last, all of them in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time

from responses.accounts import Accounts
from responses.authenticate import Authenticator
from schemas.errors import ArchiveError, OpenChatError
from streams.projection import KeyProjection

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_COMPARE_S = 10.0
_LAST_WORDS_S = 2.0


class AccountUpkeep:
    """Of one gateway."""

    def __init__(self, accounts: Accounts, projection: KeyProjection, authenticator: Authenticator) -> None:
        self._accounts = accounts
        self._projection = projection
        self._authenticator = authenticator

    async def run(self, *, look_s: float = _LOOK_S, compare_s: float = _COMPARE_S) -> None:
        """Until cancelled; then the last uses are written. What does not go now is tried again."""
        try:
            await self._run(look_s, compare_s)
        finally:
            with contextlib.suppress(OpenChatError, TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self.write_used()

    async def _run(self, look_s: float, compare_s: float) -> None:
        compare_at = 0.0
        while True:
            is_due = time.monotonic() >= compare_at
            if is_due:
                compare_at = time.monotonic() + compare_s * random.uniform(0.7, 1.3)
            try:
                await (self.compare() if is_due else self.look())
            except ArchiveError as exc:
                log.warning("keys_not_compared error=%s", exc)
            except OpenChatError as exc:
                log.warning("keys_not_looked_up error=%s", exc)
                compare_at = 0.0  # what the broker missed is shown as soon as it is back
            await asyncio.sleep(look_s)

    async def look(self) -> None:
        """Raises BrokerError; ArchiveError where the keys are lost and SQL is away."""
        seen = await self._projection.look()
        if seen.version:
            self._authenticator.note_required(seen.is_required)
        else:
            await self._accounts.restore()

    async def compare(self) -> None:
        """Raises BrokerError, ArchiveError."""
        picture = await self._accounts.project()
        self._authenticator.note_required(picture.is_required)
        await self.write_used()

    async def write_used(self) -> None:
        """When keys were used last, for people. Raises ArchiveError."""
        used, is_written = self._authenticator.take_used(), False
        if not used:
            return
        try:
            await self._accounts.keys.note_used(used)
            is_written = True
        finally:
            if not is_written:
                self._authenticator.put_back_used(used)
