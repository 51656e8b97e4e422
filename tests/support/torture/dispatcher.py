"""A dispatcher that reserves, renews, releases, reports failures and waits until its input ends.

It appends each event to a file as a line of JSON, so that the events of a killed dispatcher are known. Times are
monotonic seconds, which processes of one machine share. Checks that need all events are left to the parent process.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from hotpool.lookup import Lookup, LookupUnavailableError, NoMember, Picked, Reason, Reservation, SyncLookup

POOL, LATE_POOL = "limited", "late"
NODES = ("cap-0", "cap-1", "cap-2")
"""Ready members of `POOL`, always."""
HOLD_SECONDS = 1.0
"""Duration of each reservation, and so the longest."""
PATIENCE_SECONDS = 600.0
"""Time for which a pick of `LATE_POOL` waits, which appears when all faults are over."""
_TIMEOUT_SECONDS = 5.0
"""Longer than any pause of the server: a command that was given up could still be executed after a newer one."""
_WORKERS, _WAITS = 6, (0.05, 0.5)
_PAUSE_SECONDS = 0.01
_WAYS: tuple[dict[str, Any], ...] = ({}, {"strategy": "least-loaded"}, {"key": "user-1"})


class Dispatcher:
    """Concurrent workers of one client of either kind."""

    def __init__(self, lookup: Lookup | SyncLookup, seed: int, path: Path) -> None:
        self.stopped = False
        self._lookup = lookup
        self._rng = random.Random(seed)  # noqa: S311 - fixed seed, no secret
        self._file = path.open("a", buffering=1)
        self._threads = ThreadPoolExecutor(2 * _WORKERS)

    async def ask(self, name: str, *words: Any, **options: Any) -> Any:
        """Call a method of the client."""
        method = getattr(self._lookup, name)
        if isinstance(self._lookup, Lookup):
            return await method(*words, **options)
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(method, *words, **options))

    async def work(self) -> None:
        """Dispatch requests until stopped."""
        steps = (self._dispatch, self._dispatch, self._dispatch, self._pick, self._look)
        while not self.stopped:
            try:
                await self._rng.choice(steps)()
            except LookupUnavailableError:
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - reported as a violation, because the worker ends here.
                self._record("lie", f"a dispatcher died: {error!r}")
                return

    async def wait_for_late_pool(self, **options: Any) -> None:
        """Wait for the pool that does not exist yet."""
        while True:
            try:
                found = await self.ask("pick", LATE_POOL, wait=PATIENCE_SECONDS, **options)
                break
            except LookupUnavailableError:
                await asyncio.sleep(_PAUSE_SECONDS)
        self._record("patient", found.node if found else str(found.reason))
        if found and found.reservation:
            await self.ask("release", found.reservation)

    async def _dispatch(self) -> None:
        """Reserve, sometimes renew, and release a service. Some reservations are left to expire."""
        rng, options = self._rng, dict(self._rng.choice(_WAYS))
        if rng.random() < 0.5:
            options["wait"] = rng.choice(_WAITS)
        sent = time.monotonic()
        call = self.ask("pick", POOL, reserve=HOLD_SECONDS, types=["asr"], **options)
        try:
            found = await (self._cancelled(call) if isinstance(self._lookup, Lookup) and rng.random() < 0.1 else call)
        except LookupUnavailableError:
            self._record("waited", options.get("wait", 0), sent, time.monotonic(), "unavailable")
            raise
        if found is None:
            return
        self._record("waited", options.get("wait", 0), sent, time.monotonic(), "served" if found else "refused")
        if isinstance(found, NoMember):
            self._check_refusal(found)
        elif found.reservation:
            await self._use(found.reservation, sent)

    async def _cancelled(self, call: Any) -> Picked | NoMember | None:
        """Cancel a pick soon. Return None if it was cancelled in time."""
        pick = asyncio.ensure_future(call)
        await asyncio.wait({pick}, timeout=0.02)
        pick.cancel()
        try:
            found: Picked | NoMember = await pick
        except asyncio.CancelledError:
            return None
        return found

    def _check_refusal(self, found: NoMember) -> None:
        counts = found.counts
        if found.reason is Reason.FULL:
            if not (counts.full and counts.in_use and counts.total and found.retry_after):
                self._record("lie", f"full without numbers: {found}")
        elif found.complete:
            self._record("lie", f"the pool has members with endpoints, but: {found}")

    async def _use(self, reservation: Reservation, sent: float) -> None:
        rng = self._rng
        self._record_hold(reservation, reservation.node, sent)
        await asyncio.sleep(rng.random() * 0.15)
        if rng.random() < 0.4:
            sent = time.monotonic()
            renewed = await self.ask("renew", reservation, HOLD_SECONDS)
            if not renewed:
                self._record("lost", reservation.id, sent, time.monotonic())
                return
            self._record_hold(reservation, renewed.node, sent)
        if rng.random() < 0.9:
            self._record("freed", reservation.id, time.monotonic())
            failed = rng.choice((None, False, False, "error", "unreachable")) if reservation.endpoints else None
            await self.ask("release", reservation, failed=failed)

    def _record_hold(self, held: Reservation, node: str, sent: float) -> None:
        self._record("held", held.id, node, held.services, sent, time.monotonic())

    async def _pick(self) -> None:
        """Pick without a reservation, and report an outcome."""
        found = await self.ask("pick", POOL, types=["asr"])
        if isinstance(found, NoMember):
            if found.complete:
                self._record("lie", f"a pool was emptied: {found}")
            return
        if found.node not in NODES or found.state == "Suspect":
            self._record("lie", f"no such Ready member: {found}")
        if self._rng.random() < 0.5:
            effect = await self.ask("report_success", found)
        else:
            effect = await self.ask("report_failure", found, self._rng.choice(("unreachable", "error")))
        self._record("effect", str(effect))

    async def _look(self) -> None:
        """Check that ejections change no member."""
        found = await self.ask("members", POOL)
        known = found.version is not None
        if found.ready != (NODES if known else ()) or found.suspect or found.draining or found.complete > known:
            self._record("lie", f"wrong members: {found}")
        await asyncio.sleep(_PAUSE_SECONDS)

    def _record(self, *words: Any) -> None:
        self._file.write(json.dumps(words) + "\n")


async def run(url: str, cluster: str, kind: str, seed: str, path: str) -> None:
    """Run a dispatcher until the input ends, and then until its patient picks are served."""
    client: type[Lookup | SyncLookup] = Lookup if kind == "async" else SyncLookup
    while True:
        try:
            lookup = client.from_url(url, namespace="speech", cluster=cluster == "yes", timeout=_TIMEOUT_SECONDS)
            break
        except LookupUnavailableError:
            await asyncio.sleep(_PAUSE_SECONDS)
    dispatcher = Dispatcher(lookup, int(seed), Path(path))
    patient: tuple[dict[str, Any], ...] = ({}, {"reserve": HOLD_SECONDS, "types": ["asr"]})
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_WORKERS):
            tasks.create_task(dispatcher.work())
        for options in patient:
            tasks.create_task(dispatcher.wait_for_late_pool(**options))
        await asyncio.to_thread(sys.stdin.read)
        dispatcher.stopped = True
    await dispatcher.ask("close")


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
