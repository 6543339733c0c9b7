"""Server-sent events as a client keeps them, across every cut."""

from __future__ import annotations

import time
import zlib
from array import array

_DONE = b"data: [DONE]"
_ID = b"\nid: "
_SEPARATOR = b"\n\n"
_TEXT_MARKS = (b'"type":"response.output_text.delta"', b'"delta":{"content":"')


class Frames:
    """The events of one response. What was cut off within an entry is dropped, and so asked for again."""

    def __init__(self) -> None:
        self.times = array("d")
        """When each event came, monotonic seconds."""
        self.is_done = False
        self.last_text_at = 0.0
        self._frames: list[bytes] = []
        self._carry = b""
        self._packed = b""

    def __len__(self) -> int:
        return len(self.times)

    def feed(self, data: bytes) -> None:
        """Bytes of the body as they came."""
        now = time.monotonic()
        *whole, self._carry = (self._carry + data).split(_SEPARATOR)
        for frame in whole:
            while frame.startswith(b":"):  # a heartbeat is a line of its own
                frame = frame.partition(b"\n")[2]
            if frame == _DONE:
                self.is_done = True
            elif frame:
                self._frames.append(frame)
                self.times.append(now)
                if is_text(frame):
                    self.last_text_at = now

    def cut(self) -> None:
        """The connection ended: go back to the end of the last whole log entry."""
        self._carry = b""
        while self._frames and _ID not in self._frames[-1]:
            self._frames.pop()
            self.times.pop()

    @property
    def last_id(self) -> str:
        """The log's entry id behind which to go on; empty at the start."""
        return entry_id(self._frames[-1]) if self._frames else ""

    def pack(self) -> None:
        """Nothing more will come: thousands of responses must fit into memory."""
        self._packed = zlib.compress(_SEPARATOR.join(self._frames), 1)
        self._frames = []

    def all(self) -> list[bytes]:
        """Each event, without the empty line at its end."""
        if self._frames or not self._packed:
            return self._frames
        joined = zlib.decompress(self._packed)
        return joined.split(_SEPARATOR) if joined else []


def is_text(frame: bytes) -> bool:
    """It carries new text."""
    return any(mark in frame for mark in _TEXT_MARKS) and b'"content":""' not in frame


def entry_id(frame: bytes) -> str:
    """`<attempt>-<number>`, or empty where another event of the same entry follows."""
    return frame.rpartition(_ID)[2].decode() if _ID in frame else ""


def attempt_of(frame: bytes) -> int:
    """The attempt that wrote it; 0 where it does not say."""
    return int(entry_id(frame).partition("-")[0] or 0)


def data_of(frame: bytes) -> bytes:
    """The JSON of an event."""
    line = next((line for line in frame.split(b"\n") if line.startswith(b"data: ")), b"data: ")
    return line.removeprefix(b"data: ")


def split_frames(raw: bytes) -> list[bytes]:
    """Events that stand one behind the other, as `Frames.all` gives them."""
    return [frame for frame in raw.split(_SEPARATOR) if frame]
