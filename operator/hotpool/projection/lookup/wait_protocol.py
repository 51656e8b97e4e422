"""Sans-I/O protocol of picks that wait (requirement E10; lua/wakeups.lua).

Must not do I/O, but for a log line that names missing rights.
"""

import secrets
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError

from hotpool.projection.connection.config import to_text
from hotpool.projection.functions import CommandArgs, build_call
from hotpool.projection.keys import index_field
from hotpool.projection.lookup.fallback_protocol import FallbackProtocol, check_pools
from hotpool.projection.lookup.pick_options import PickOptions, PickRequest
from hotpool.projection.lookup.results import NoMember, Picked
from hotpool.projection.lookup.steps import Steps
from hotpool.projection.redis_errors import is_denied
from hotpool.projection.waiting import wait_commands

MAX_BLOCK_MS: Final = 1000
MAX_SYNC_BLOCK_MS: Final = 250
"""A thread that reads ends no sooner."""
REFRESH_SECONDS: Final = 5.0
"""Interval at which a client that waits renews the stream, and lets its oldest waiters try again."""
PAUSE_SECONDS: Final = 0.005
"""Pause after lines were read: more of them are then read together, and cause one more pick of each group, not many."""
RETRY_SECONDS: Final = 0.25
"""Pause after a failed call of a client that waits."""
FRESH_SECONDS: Final = 1.0
"""Age up to which the result of another waiter with the same request is the answer after the time."""
_LINES: Final = 100


@dataclass(frozen=True, slots=True)
class PickCall:
    """A pick that can be repeated. `names`: pools, or index fields if `by_field`. `single`: not given as a sequence."""

    names: tuple[str, ...]
    by_field: bool
    single: bool
    request: PickRequest

    @property
    def group(self) -> Hashable:
        """Equal for picks of which one succeeds whenever the other does."""
        request = self.request
        options = bool(request.reservation), request.endpoints, request.max_age_ms, request.exclude
        return self.names, self.by_field, *options


class WaitProtocol(FallbackProtocol):
    """Look-ups in one fleet. A pick may wait."""

    def __init__(self, *, namespace: str, prefix: str, chance: Callable[[], float], source: str | None = None) -> None:
        super().__init__(namespace=namespace, prefix=prefix, chance=chance, source=source)
        self._client_id = secrets.token_hex(8)

    @property
    def wait_denied(self) -> bool:
        """True once a right that waiting needs was found to be missing."""
        return "wait" in self._denied

    def call_pools(self, pool: str | Sequence[str], options: PickOptions) -> PickCall:
        """Return the call of a pick by the names of pools."""
        request = PickRequest.from_options(options, self._chance)
        return PickCall(check_pools(pool), by_field=False, single=isinstance(pool, str), request=request)

    def call_keys(self, generator: str, key: str | Sequence[str], options: PickOptions) -> PickCall:
        """Return the call of a pick by the keys of a generator."""
        request = PickRequest.from_options(options, self._chance)
        fields = tuple(index_field(generator, one) for one in check_pools(key))
        return PickCall(fields, by_field=True, single=isinstance(key, str), request=request)

    def attempt(self, call: PickCall) -> Steps[Picked | NoMember]:
        """Pick once. A repeated call has the same id of a reservation, so a lost reply reserves nothing twice."""
        if not call.single:
            names, fields = (None, call.names) if call.by_field else (call.names, ("",) * len(call.names))
            return self._pick_first(names, fields, call.request)
        if call.by_field:
            return self._pick_by_field(call.names[0], call.request)
        return self._pick(call.names[0], "", call.request)

    def check_wait_rights(self) -> Steps[None]:
        """Switch off waiting if a right is missing."""
        yield from self._check_rights("wait", wait_commands(self._keys))

    def announce(self, position: str, counts: Mapping[str, int]) -> Steps[str]:
        """Keep the stream for 15 s. Return the position from which to read: a new one if lines may be missing."""
        pairs = (word for pair in sorted(counts.items())[:_LINES] for word in pair)
        try:
            reply = yield build_call("wait", self._keys.waiting, (position, self._client_id, *pairs), writes=True)
        except RedisError as error:
            if is_denied(error) and not self.wait_denied:
                missing = yield from self._missing_rights(wait_commands(self._keys))
                self._switch_off({"wait": missing or (str(error),)})
            raise
        return to_text(reply)

    def read_lines(self, position: str, block_ms: int) -> CommandArgs:
        """Return the command that waits for lines after a position."""
        return ("XREAD", "COUNT", _LINES, "BLOCK", block_ms, "STREAMS", self._keys.waiting[0], position)


def parse_lines(reply: Any) -> list[tuple[str, dict[str, str]]]:
    """Parse a reply to XREAD: id and words of each line, from redis-py's reply by either version of the protocol."""
    if not reply:
        return []
    streams = reply.values() if isinstance(reply, dict) else [stream[1] for stream in reply]
    return [line for stream in streams for line in _flatten(stream)]


def _flatten(entries: Iterable[Any]) -> Iterable[tuple[str, dict[str, str]]]:
    for entry in entries:
        if isinstance(entry[0], bytes | str):
            words = entry[1]
            pairs = words.items() if isinstance(words, dict) else zip(words[::2], words[1::2], strict=True)
            yield to_text(entry[0]), {to_text(name): to_text(value) for name, value in pairs}
        else:
            yield from _flatten(entry)


def block_ms(settings: Mapping[str, Any], longest: int = MAX_BLOCK_MS) -> int:
    """Return how long a read may wait: half of the time-out of the connection, at most `longest`."""
    timeout = settings.get("socket_timeout")
    return longest if timeout is None else max(1, min(longest, int(timeout * 500)))
