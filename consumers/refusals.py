"""Whose fault it is that the archive refuses a row: the row's, or the database's.

A trigger, a narrowed column or a constraint can refuse every row; then it must be mended, and nothing may be
put aside meanwhile. So a refused row counts as guilty only where the archive takes others:

- it took another row since this one was first refused, in the same batch or later; or
- this one is the only row that was refused since the archive last took one (or since this process began),
  and it was refused three times.

Two or more refused and none taken is the database's fault: all stay pending until one goes in.
"""

from __future__ import annotations

from collections.abc import Iterable

from schemas.ids import ResponseId

_PASSES_ALONE = 3


class Refusals:
    """What one archiver has seen of its archive. Bounded by what the archiver holds, and one."""

    def __init__(self) -> None:
        self._passes: dict[ResponseId, int] = {}
        """Rows without a verdict, and how often each was refused."""
        self._guilty: set[ResponseId] = set()
        """Rows after which the archive took another."""
        self._suspects: set[ResponseId] = set()
        """Every row that was refused since the archive last took one."""

    def __len__(self) -> int:
        """Rows without a verdict."""
        return len(self._passes)

    def taken(self, response_ids: Iterable[ResponseId]) -> None:
        """The archive took these."""
        self.forget(response_ids)
        self._guilty.update(self._passes)
        self._suspects.clear()

    def forget(self, response_ids: Iterable[ResponseId]) -> None:
        """These are settled, in one way or the other."""
        for response_id in response_ids:
            self._passes.pop(response_id, None)
            self._guilty.discard(response_id)

    def forget_all_but(self, response_ids: set[ResponseId]) -> None:
        """Only these are held; another archiver may have settled the rest."""
        self.forget(self._passes.keys() - response_ids)

    def refused(self, response_ids: Iterable[ResponseId], *, took_others: bool) -> list[ResponseId]:
        """Those of the refused that are guilty; the others stay for another try."""
        ids = list(response_ids)
        for response_id in ids:
            self._passes[response_id] = self._passes.get(response_id, 0) + 1
        if took_others:
            self._guilty.update(ids)
        else:
            self._suspects.update(ids)
        return [response_id for response_id in ids if self._is_guilty(response_id)]

    def _is_guilty(self, response_id: ResponseId) -> bool:
        is_alone = self._suspects == {response_id}
        return response_id in self._guilty or (is_alone and self._passes[response_id] >= _PASSES_ALONE)
