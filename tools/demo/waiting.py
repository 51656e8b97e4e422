"""Wait for the members of pools. Missing members and failed services are printed; an ended process ends the wait."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from demo.change_watcher import Observer
from localfleet.process import ManagedProcess, TooLate

_LOOK_SECONDS: Final = 1.0
_SHOW_SECONDS: Final = 10.0

Pools = Mapping[str, Collection[str]]
"""Pool → nodes."""


def wait_for_pools(
    seen: Observer,
    processes: Iterable[ManagedProcess],
    expected: Pools,
    seconds: float,
    show: Callable[[str], None],
) -> None:
    """Return when slices and Redis have the expected members.

    Raises TooLate, or RuntimeError if a required process has ended.
    """
    began = shown_at = time.monotonic()
    shown: set[str] = set()

    def differences() -> list[str]:
        return [text for pool, nodes in expected.items() if (text := _difference(seen, pool, set(nodes)))]

    while True:
        with seen.changed:
            seen.changed.wait_for(lambda: not differences() or seen.failures.keys() - shown, _LOOK_SECONDS)
            left, failures = differences(), dict(seen.failures)
        if not left:
            return
        for process in processes:
            if not process.running:
                raise RuntimeError(f"{process.name} has ended: {process.tail(1)}")
        now = time.monotonic()
        if now - began > seconds:
            raise TooLate("\n".join([f"not within {seconds:g} s: {_summary(left)}", *failures.values()]))
        for failure in failures.keys() - shown:
            show(failures[failure])
        shown.update(failures)
        if now - shown_at > _SHOW_SECONDS:
            show(f"waiting: {_summary(left)}")
            shown_at = now


def _difference(seen: Observer, pool: str, nodes: set[str]) -> str:
    for place, members in (("its slices", set(seen.slices.get(pool, ()))), ("Redis", seen.redis.get(pool, set()))):
        if absent := nodes - members:
            return f"pool {pool} lacks {', '.join(sorted(absent))} in {place}"
        if surplus := members - nodes:
            return f"pool {pool} still has {', '.join(sorted(surplus))} in {place}"
    return ""


def _summary(differences: Collection[str]) -> str:
    first, *more = differences
    return first + (f"; {len(more)} more pools differ" if more else "")
