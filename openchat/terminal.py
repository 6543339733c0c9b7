"""`openchat chat` and `openchat tail`: the terminal as a client that reconnects by itself."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from schemas.errors import OpenChatError, SettingsError
from schemas.settings import Settings

_GIVE_UP_AFTER_S = 60.0
_TIMEOUT = httpx.Timeout(10.0, read=60.0)
_ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


class _Connection:
    """Reads one response to its end, over as many gateways and attempts as it takes."""

    def __init__(self, urls: str, settings: Settings) -> None:
        self._urls = itertools.cycle([url.strip().rstrip("/") for url in urls.split(",") if url.strip()])
        self._client = httpx.Client(timeout=_TIMEOUT, headers=_authorization(settings))

    def create(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Events of a new response."""
        return self._events(lambda url: self._client.stream("POST", f"{url}/v1/responses", json=body), None)

    def follow(self, response_id: str) -> Iterator[dict[str, Any]]:
        """Events of a response that exists."""
        return self._events(lambda url: self._get(url, response_id, None), response_id)

    def _get(self, url: str, response_id: str, after: int | None) -> Any:
        params: dict[str, str] = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
        return self._client.stream("GET", f"{url}/v1/responses/{response_id}", params=params)

    def _events(self, first: Any, response_id: str | None) -> Iterator[dict[str, Any]]:
        call, seen = first, None
        failed_at: float | None = None
        while True:
            try:
                with call(next(self._urls)) as answer:
                    _raise_for_error(answer)
                    for event in _parse(answer.iter_lines()):
                        failed_at = None
                        seen = event.get("sequence_number", seen)
                        response_id = response_id or event.get("response", {}).get("id")
                        yield event
                        if event["type"] in _ENDS:
                            return
            except httpx.TransportError as exc:
                if response_id is None:
                    raise OpenChatError(f"no gateway answers: {exc}") from exc
            failed_at = failed_at or time.monotonic()
            if time.monotonic() - failed_at > _GIVE_UP_AFTER_S:
                raise OpenChatError(f"gave up reconnecting; go on later with: openchat tail {response_id}")
            time.sleep(random.uniform(0.2, 0.6))
            call = lambda url, i=response_id, n=seen: self._get(url, i, n)  # noqa: E731


def _authorization(settings: Settings) -> dict[str, str]:
    return {"authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}


def _raise_for_error(answer: httpx.Response) -> None:
    if answer.status_code < 400:
        return
    raw = answer.read()
    if answer.status_code >= 500:
        raise httpx.ReadError(f"{answer.status_code}")
    try:
        message = msgspec.json.decode(raw)["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        message = f"HTTP {answer.status_code}"
    raise OpenChatError(message)


def _parse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield msgspec.json.decode(line[6:])


def _print(events: Iterator[dict[str, Any]]) -> str:
    text = []
    for event in events:
        match event["type"]:
            case "response.output_text.delta":
                text.append(event["delta"])
                print(event["delta"], end="", flush=True)
            case "response.failed":
                raise OpenChatError(event["response"]["error"]["message"])
            case "error":
                raise OpenChatError(event["message"])
    print()
    return "".join(text)


def chat(urls: str, settings: Settings, *, message: str | None) -> None:
    """One message and its answer, or a conversation until end of input."""
    connection = _Connection(urls, settings)
    model = _first_model(urls, settings)
    turns: list[dict[str, str]] = []
    while True:
        said = message if message is not None else _prompt()
        if said is None:
            return
        turns.append({"role": "user", "content": said})
        answer = _print(connection.create({"model": model, "input": turns, "stream": True}))
        turns.append({"role": "assistant", "content": answer})
        if message is not None:
            return


def _prompt() -> str | None:
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        if said:
            return said


def _first_model(urls: str, settings: Settings) -> str:
    url = urls.split(",")[0].strip().rstrip("/")
    try:
        answer = httpx.get(f"{url}/v1/models", timeout=_TIMEOUT, headers=_authorization(settings))
    except httpx.TransportError as exc:
        raise SettingsError(f"no gateway answers at {url}: {exc}; start one with `openchat up`") from exc
    _raise_for_error(answer)
    for model in answer.json()["data"]:
        if "generates" in (model.get("capabilities") or ["generates"]):  # else it only embeds
            name: str = model["id"]
            return name
    raise SettingsError(f"no model is ready at {url}; `openchat status` shows the workers")


def tail(urls: str, settings: Settings, response_id: str) -> None:
    """Print a response as it comes, from its start."""
    _print(_Connection(urls, settings).follow(response_id))
