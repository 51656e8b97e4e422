"""Leader election by a Lease, and the term that fences late writes.

Runs in its own thread with its own connection, so that a busy event loop cannot lose the Lease. All times are
monotonic seconds. Must not know what is written.
"""

import asyncio
import copy
import os
import re
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from math import ceil
from time import monotonic
from types import MappingProxyType
from typing import Final

import structlog
from kubernetes.aio.client.exceptions import ApiException

from hotpool import __version__
from hotpool.api.meta import (
    ELECTION_LEASE,
    KUBE_NODES_ANNOTATION,
    LONGEST_RESERVATION_ANNOTATION,
    SCHEMA_REVISION,
    SCHEMA_REVISION_ANNOTATION,
    VERSION_ANNOTATION,
    timestamp,
)
from hotpool.errors import RetryableError
from hotpool.kube.election_lease import REQUEST_SECONDS, ElectionLease, Json
from hotpool.kube.live_login import LiveLogin
from hotpool.kube.rest import CONNECTION_ERRORS
from hotpool.observability.metrics import LEADER, TERM

LEASE_SECONDS: Final = 6
RENEW_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.25
"""Pause of a leader after a failed renewal, before its time expires; also the pause of a standby between reads."""
WRITE_RESERVE: Final = 2.5
"""Time between the end of leadership and the expiry of the Lease: more than the time-out of any write."""
_SHORTEST_PAUSE: Final = 0.1
_UNAUTHORIZED: Final = 401
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404
_SECONDS: Final = re.compile(r"[0-9]{1,9}")

log = structlog.get_logger(__name__)


def leader_annotations(*, kube_nodes: bool) -> dict[str, str]:
    """Return what a leader states of itself on its Lease, for the command line. `kube_nodes`: it watches v1 Nodes."""
    return {
        KUBE_NODES_ANNOTATION: str(kube_nodes).lower(),
        VERSION_ANNOTATION: __version__,
        SCHEMA_REVISION_ANNOTATION: str(SCHEMA_REVISION),
    }


class LeaderElector(threading.Thread):
    """Candidate for the Lease: acquires it, renews it, releases it on `stop()`, and stays a candidate when it is lost.

    `won` and `lost` are called from the thread, in turn. `annotations` are set on the Lease while we hold it.
    """

    def __init__(
        self,
        namespace: str,
        login: LiveLogin,
        *,
        won: Callable[[], object],
        lost: Callable[[], object],
        annotations: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(name="elector", daemon=True)
        self.identity = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.term = 0
        self.lease_uid = ""
        self._namespace = namespace
        self._login = login
        self._largest_term: Callable[[], int] = int
        self._won = won
        self._lost = lost
        self._annotations = dict(annotations)
        self._longest_seen, self._longest_stored = 0.0, 0
        """Longest reservation in seconds: seen by this process; on the Lease as last read or written."""
        self._leading_until = 0.0
        self._other_until = 0.0
        """Expiry of another holder's Lease, as observed (monotonic)."""
        self._last_written: Json | None = None
        """The Lease in the response to our last write. None: not held, or changed by another client."""
        self._stop_event, self._step_down = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._observed: tuple[str, float] = ("", 0.0)
        """Last version of another holder's Lease, and the time at which it was first read (monotonic)."""

    def start_campaign(self, largest_term: Callable[[], int]) -> None:
        """Start the thread. The term will be larger than the result of `largest_term` at the time of acquisition."""
        self._largest_term = largest_term
        self.start()

    def may_write(self) -> bool:
        """Return True if a write may begin now."""
        return monotonic() < self._leading_until and not self._step_down.is_set()

    @property
    def longest_reservation(self) -> float:
        """Longest reservation that this or a former leader has seen, in seconds."""
        return max(self._longest_seen, self._longest_stored)

    def note_reservation(self, seconds: float) -> None:
        """Store the duration of a reservation with the next renewal, if it is the longest."""
        self._longest_seen = max(self._longest_seen, seconds)

    def sees_leader(self) -> bool:
        """Return True if another replica was seen to renew the Lease in time."""
        return not self.may_write() and monotonic() < self._other_until

    def run(self) -> None:
        """Run for election until stopped. Errors of the API server are retried."""
        while not self._stop_event.is_set():
            try:
                with closing(ElectionLease(self._login, self._namespace)) as lease:
                    self._elect(lease)
            except Exception:  # an unnoticed end of the thread would leave a process that never leads, or never yields.
                log.exception("leader election failed")
                self._end_term()
                self._stop_event.wait(RENEW_SECONDS)

    def _elect(self, api: ElectionLease) -> None:
        while not self._stop_event.is_set():
            started = monotonic()
            try:
                with self._lock:
                    if self._step_down.is_set():
                        self._release(api)
                    else:
                        self._renew_or_acquire(api)
            except (ApiException, *CONNECTION_ERRORS) as error:
                status = getattr(error, "status", None)
                log.warning("Lease not renewed or acquired", error=type(error).__name__, status=status)
                if status == _UNAUTHORIZED:
                    self._login.reject(api.login)
                pause = RETRY_SECONDS if self.may_write() else RENEW_SECONDS
            else:
                pause = RENEW_SECONDS if self.may_write() else RETRY_SECONDS
            LEADER.set(self.may_write())
            if not self.may_write():
                self._end_term()
            self._stop_event.wait(max(_SHORTEST_PAUSE, started + pause - monotonic()))
        self._release(api)

    def _end_term(self) -> None:
        """Become a candidate again, if this process led."""
        self._leading_until, self._last_written = 0.0, None
        self._step_down.clear()
        if self.term:
            self.term = 0
            self._lost()

    def step_down(self) -> None:
        """Stop leading at once, and release the Lease soon: another writer has a larger term."""
        self._step_down.set()

    def stop(self) -> None:
        """Stop leading and try to release the Lease (blocking)."""
        self._stop_event.set()
        if self.is_alive():
            self.join(timeout=3 * REQUEST_SECONDS)

    async def raise_term(self, term: int) -> None:
        """Raise the term to at least `term` and store it before the next write.

        Raises RetryableError if the API server returns an error or no response.
        """
        await asyncio.to_thread(self._raise_term, term)

    def _raise_term(self, term: int) -> None:
        try:
            with self._lock, closing(ElectionLease(self._login, self._namespace)) as api:
                self._store_term(api, term)
        except (ApiException, *CONNECTION_ERRORS) as error:
            raise RetryableError(
                f"leader term {term} not stored in the election Lease: {type(error).__name__}"
            ) from None

    def _store_term(self, api: ElectionLease, term: int) -> None:
        lease = copy.deepcopy(self._last_written) or api.read()
        if lease and self._holds(lease) and _spec(lease).get("leaseTransitions", 0) < term:
            _spec(lease)["leaseTransitions"] = term
            self._write(api, lease, monotonic())

    def _holds(self, lease: Json) -> bool:
        return bool(_spec(lease).get("holderIdentity") == self.identity)

    def _renew_or_acquire(self, api: ElectionLease) -> None:
        """Renew by one write, which fails if another client changed the Lease. Else read the Lease first.

        Stop leading at once if it has another holder. If it was deleted, create it again: standbys wait until it
        would have expired.
        """
        started = monotonic()
        if self._last_written and self._renew(api, self._last_written, started):
            return
        lease = api.read()
        if self.term and lease and self._holds(lease):
            self._write(api, lease, started)  # also if the response to our first write was lost
        elif self.term and lease:
            self._leading_until = 0.0
        elif self.may_write():
            self._claim(api, None, self.term, started)
        elif not self.term and self._is_available(lease, started):
            transitions = _spec(lease).get("leaseTransitions", 0) if lease else 0
            self._claim(api, lease, max(transitions, self._largest_term()) + 1, started)

    def _renew(self, api: ElectionLease, lease: Json, started: float) -> bool:
        """Renew our Lease. Return False if another client changed it."""
        try:
            self._write(api, lease, started)
        except ApiException as error:
            if error.status not in {_CONFLICT, _NOT_FOUND}:
                raise
            self._last_written = None
        return self._last_written is not None

    def _is_available(self, lease: Json | None, now: float) -> bool:
        """Return True if the Lease is released, or did not change for its whole duration by our own clock.

        A missing Lease (None) is available when the one that was there before would have expired.
        """
        if lease is None:
            return now > self._other_until
        if _spec(lease).get("holderIdentity") in {None, "", self.identity}:
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._observed[0] != version:
            self._observed = (version, now)
        self._other_until = self._observed[1] + (_spec(lease).get("leaseDurationSeconds") or LEASE_SECONDS)
        return now > self._other_until

    def _claim(self, api: ElectionLease, existing: Json | None, term: int, started: float) -> None:
        new = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": ELECTION_LEASE}}
        lease: Json = existing or new
        _spec(lease).update(
            leaseTransitions=term,
            holderIdentity=self.identity,
            leaseDurationSeconds=LEASE_SECONDS,
            acquireTime=timestamp(),
        )
        metadata = lease["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **self._annotations}
        try:
            self._write(api, lease, started)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise

    def _write(self, api: ElectionLease, lease: Json, started: float) -> None:
        """Write the Lease. The API server returns a conflict if another client changed it meanwhile."""
        _spec(lease)["renewTime"] = timestamp()
        self._set_longest(lease)
        stored = api.write(lease)
        first = not self.term
        self._last_written = stored
        self.lease_uid = stored["metadata"]["uid"]
        self.term = _spec(stored)["leaseTransitions"]
        TERM.set(self.term)
        self._leading_until = started + LEASE_SECONDS - WRITE_RESERVE
        if first:
            self._won()

    def _set_longest(self, lease: Json) -> None:
        annotations = lease["metadata"].get("annotations") or {}
        text = annotations.get(LONGEST_RESERVATION_ANNOTATION, "")
        stored = int(text) if _SECONDS.fullmatch(text) else 0
        self._longest_stored = max(self._longest_stored, stored, ceil(self._longest_seen))
        if self._longest_stored:
            longest = {LONGEST_RESERVATION_ANNOTATION: str(self._longest_stored)}
            lease["metadata"]["annotations"] = {**annotations, **longest}

    def _release(self, api: ElectionLease) -> None:
        self._leading_until = 0.0
        LEADER.set(0)
        try:
            lease = api.read()
            if lease and self._holds(lease):
                del _spec(lease)["holderIdentity"]
                self._set_longest(lease)
                api.write(lease)
        except (ApiException, *CONNECTION_ERRORS) as error:
            log.warning("election Lease not released; it will expire", error=type(error).__name__)


def _spec(lease: Json) -> Json:
    """Return the content of a Lease, which may have none yet."""
    lease["spec"] = lease.get("spec") or {}
    spec: Json = lease["spec"]
    return spec
