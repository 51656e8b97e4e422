"""An API server in this process, below the real client: only its HTTP session is replaced.

Stored objects are in files, one JSON text per line, so that a fleet of 10,000 nodes adds nothing to the measured
memory. Objects written later are in memory. It counts the operator's writes, and its own CPU, which is no part of
the operator's.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.support.simulated_fleet import PLURAL, applied, merged, replaced

from hotpool.core.model import CUSTOM_KINDS, Kind

Json = dict[str, Any]

LEASES: Final = "leases"


@dataclass
class Response:
    """The part of an aiohttp response that the client reads."""

    body: bytes
    status: int = 200
    reason: str = "OK"
    chunks: "asyncio.Queue[bytes] | None" = None
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    connection: None = None

    @property
    def content(self) -> "Response":
        """The response itself, as the stream of a watch."""
        return self

    async def read(self) -> bytes:
        """Return the whole body."""
        return self.body

    def close(self) -> None:
        """Do nothing: there is no connection."""

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """Yield the chunks of a watch, without end."""
        while self.chunks:
            yield await self.chunks.get()


class MemoryApi:
    """The objects of one fleet. `request` and `close` are those of an aiohttp session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watcher: Callable[[Kind, str, bytes], None] | None = None
        """Callback with kind, event type and JSON text of each changed object."""
        self.lease_lines: asyncio.Queue[bytes] = asyncio.Queue()
        """The next chunks of the Lease watch."""
        self.writes: Counter[str] = Counter()
        self.requests = 0
        self.lists = 0
        self.cpu_seconds = 0.0
        self._changed: dict[str, dict[str, bytes | None]] = {kind.value: {} for kind in CUSTOM_KINDS}
        self._places: dict[str, dict[str, int]] = {}
        self._version = time.time_ns() // 1000  # larger than any version of an earlier server

    # For the benchmark.

    def lines(self, plural: str) -> Iterator[bytes]:
        """Return every stored object of a kind."""
        return (line for _, line in self._lines(plural, 0))

    def read(self, plural: str, name: str) -> Json:
        """Return one object. Raises LookupError."""
        found = self._find(plural, name)
        if found is None:
            raise LookupError(f"{plural}/{name}")
        return dict(json.loads(found))

    def put(self, plural: str, body: Json) -> bytes:
        """Store an object as another client would, without a watch event; return its JSON text."""
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        text = _text(body)
        self._changed[plural][body["metadata"]["name"]] = text
        return text

    def save(self) -> None:
        """Write all objects into the files, for servers that start later."""
        for kind in CUSTOM_KINDS:
            texts = list(self.lines(kind.value))
            write_lines(self.folder, kind.value, texts)

    # For the client.

    async def request(self, *, method: str, url: str, data: str | None = None, **more: Any) -> Response:
        """Handle one request."""
        await asyncio.sleep(0)
        began = time.thread_time()
        try:
            self.requests += 1
            parts = urlsplit(url)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            words = parts.path.split("/")
            if LEASES in words:
                return self._leases(query)
            if parts.path == "/version":
                return Response(b"{}")
            where = words[words.index("namespaces") + 2 :]
            return self._respond(method, where, query, data, more["headers"]["Content-Type"])
        finally:
            self.cpu_seconds += time.thread_time() - began

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def _respond(self, method: str, where: list[str], query: Json, data: str | None, content: str) -> Response:
        plural = where[0]
        if method == "GET" and len(where) == 1:
            self.lists += 1
            return Response(self._list(plural, query))
        if method == "GET":
            found = self._find(plural, where[1])
            return Response(found) if found else _refusal(404)
        self.writes[f"{method} {'/'.join([plural, *where[2:]])}"] += 1
        sent = json.loads(data or "null")
        name = where[1] if len(where) > 1 else sent["metadata"]["name"]
        known = self._find(plural, name)
        if method == "POST":
            sent["metadata"] |= {"uid": f"uid-{name}", "generation": 1}
            return _refusal(409) if known else self._store("ADDED", sent, status=201)
        if known is None:
            return _refusal(404)
        before = json.loads(known)
        if method == "DELETE":
            self._changed[plural][name] = None
            self._tell(Kind(plural), "DELETED", known)
            return Response(known)
        after = _patched(before, sent, status=len(where) > 2, content=content)
        if after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
            return _refusal(409)
        after["metadata"]["generation"] += before.get("spec") != after.get("spec")
        return self._store("MODIFIED", after)

    def _store(self, event: str, body: Json, status: int = 200) -> Response:
        kind = PLURAL[body["kind"]]
        if kind is Kind.SLICE:
            body["metadata"]["managedFields"] = _managed_fields(body)
        text = self.put(kind.value, body)
        self._tell(kind, event, text)
        return Response(text, status)

    def _tell(self, kind: Kind, event: str, text: bytes) -> None:
        if self.watcher:
            asyncio.get_running_loop().call_soon(self.watcher, kind, event, text)

    def _leases(self, query: Json) -> Response:
        return Response(b"", chunks=self.lease_lines) if "watch" in query else Response(self._list(LEASES, query))

    def _list(self, plural: str, query: Json) -> bytes:
        """Return a page; the continue token is the offset in the file."""
        limit, start, more = int(query["limit"]), int(query.get("continue", 0)), ""
        found: list[bytes] = []
        for place, line in self._lines(plural, start):
            if len(found) == limit and place >= 0:
                more = str(place)
                break
            found.append(line)
        head = {"resourceVersion": str(self._version), "continue": more}
        return b'{"metadata":%b,"items":[%b]}' % (_text(head), b",".join(found))

    def _lines(self, plural: str, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield offset in the file (-1: not in the file) and JSON text, from an offset on."""
        changed = dict(self._changed.get(plural, {}))
        path = self.folder / plural
        if path.exists():
            with path.open("rb") as file:
                file.seek(start)
                place = start
                for line in file:
                    name, _, text = line.rstrip(b"\n").partition(b"\t")
                    now = changed.pop(name.decode(), text)
                    if now is not None:
                        yield place, now
                    place += len(line)
        new = changed.keys() - self._known_places(plural).keys() if changed else set()
        yield from ((-1, text) for name, text in changed.items() if name in new and text is not None)

    def _find(self, plural: str, name: str) -> bytes | None:
        if name in self._changed[plural]:
            return self._changed[plural][name]
        place = self._known_places(plural).get(name)
        if place is None:
            return None
        with (self.folder / plural).open("rb") as file:
            file.seek(place)
            return file.readline().rstrip(b"\n").partition(b"\t")[2]

    def _known_places(self, plural: str) -> dict[str, int]:
        if plural not in self._places:
            self._places[plural] = _places(self.folder / plural)
        return self._places[plural]


def write_lines(folder: Path, plural: str, texts: Iterable[bytes]) -> None:
    """Write objects into the file of their kind, each line with its name first."""
    fresh = folder / f"{plural}.new"
    with fresh.open("wb") as file:
        for text in texts:
            file.write(b"%b\t%b\n" % (json.loads(text)["metadata"]["name"].encode(), text))
    fresh.replace(folder / plural)


def _places(path: Path) -> dict[str, int]:
    places: dict[str, int] = {}
    if path.exists():
        with path.open("rb") as file:
            place = 0
            for line in file:
                places[line.partition(b"\t")[0].decode()] = place
                place += len(line)
    return places


def _patched(before: Json, sent: Any, *, status: bool, content: str) -> Json:
    if "apply" in content:
        return dict(merged(before, {"status": applied(before.get("status") or {}, sent["status"])}))
    if isinstance(sent, list):
        return replaced(before, sent)
    return dict(merged(before, {key: sent[key] for key in ("metadata", "status") if key in sent} if status else sent))


def _managed_fields(body: Json) -> list[Json]:
    """Return field ownership as the API server stores it. Members are an atomic list: their number is irrelevant."""
    fields: Json = {"f:members": {}, "f:metadata": {"f:labels": {}, "f:ownerReferences": {}}, "f:term": {}}
    head = {"manager": "hotpool-operator", "operation": "Update", "apiVersion": body["apiVersion"]}
    return [{**head, "time": "2026-11-24T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields}]


def _refusal(status: int) -> Response:
    return Response(b'{"kind":"Status"}', status, "refused")


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
