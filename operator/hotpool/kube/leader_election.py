"""The elector: who may write, and the term that fences late writes.

Runs in its own thread with its own connection, so that a busy event loop cannot lose the Lease; all times are
monotonic. Others ask `leading()` and `term`. It must not know what is written.
"""

import copy
import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import monotonic
from types import MappingProxyType
from typing import Any, Final

import structlog
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from hotpool.api.meta import ELECTION_LEASE
from hotpool.errors import RetryableError
from hotpool.kube.client import ClusterTarget
from hotpool.observability.metrics import LEADER, TERM

LEASE_SECONDS: Final = 6
RENEW_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.25
"""A leader whose renewal failed tries again after this pause: its time runs out. A standby looks as often."""
WRITE_RESERVE: Final = 2.5
"""We stop to lead this long before the Lease ends: more than a write's time-out in any sink."""
_REQUEST_SECONDS: Final = 1.5
_SHORTEST_PAUSE: Final = 0.1
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404
_AWAY: Final = (urllib3.exceptions.HTTPError, OSError)

log = structlog.get_logger(__name__)


class LeaderElector(threading.Thread):
    """Acquires the Lease, renews it, releases it on `stop()`.

    `won` and `lost` are called from the thread, once each. `says`: annotations of the Lease while we hold it.
    """

    def __init__(
        self,
        access: ClusterTarget,
        *,
        won: Callable[[], None],
        lost: Callable[[], None],
        says: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(name="elector", daemon=True)
        self.identity = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.term = 0
        self.lease_uid = ""
        self._access = access
        self._minimum: Callable[[], int] = int
        self._won = won
        self._lost = lost
        self._annotations = dict(says)
        self._until = 0.0
        self._other_until = 0.0
        """Until when another's Lease holds, as far as was seen (monotonic)."""
        self._held: Any = None
        """The Lease as the API server answered our last write; None: we hold none, or it is not as we left it."""
        self._stop_event = threading.Event()
        self._lock = threading.Lock()
        self._seen: tuple[str, float] = ("", 0.0)
        """The Lease's version last seen of another holder, and when it was first seen (monotonic)."""

    def start_campaign(self, largest_term: Callable[[], int]) -> None:
        """Start to elect; the term will be larger than what `largest_term` says at that time."""
        self._minimum = largest_term
        self.start()

    def leading(self) -> bool:
        """Whether a write may begin now."""
        return monotonic() < self._until

    def sees_leader(self) -> bool:
        """Whether another replica leads, as far as its Lease was seen to be renewed."""
        return not self.leading() and monotonic() < self._other_until

    def run(self) -> None:
        """Elect until stopped, or until leadership was lost; trouble with the API server is waited out."""
        try:
            self._elect(client.CoordinationV1Api(_connect(self._access)))
        except Exception:  # a thread that ends unseen would leave a leader that never leads, or never yields.
            log.exception("the election ended")
            self._until = 0.0
            self._lost()

    def _elect(self, api: Any) -> None:
        while not self._stop_event.is_set():
            began = monotonic()
            try:
                with self._lock:
                    self._round(api)
            except (ApiException, *_AWAY) as error:
                log.warning("election round failed", error=type(error).__name__, status=getattr(error, "status", None))
                pause = RETRY_SECONDS if self.leading() else RENEW_SECONDS
            else:
                pause = RENEW_SECONDS if self.leading() else RETRY_SECONDS
            LEADER.set(self.leading())
            if self.term and not self.leading():
                self._lost()
                break
            self._stop_event.wait(max(_SHORTEST_PAUSE, began + pause - monotonic()))
        self._release(api)

    def stop(self) -> None:
        """Stop to lead and release the Lease; returns when that was tried."""
        self._stop_event.set()
        if self.is_alive():
            self.join(timeout=3 * _REQUEST_SECONDS)

    def raise_term(self, term: int) -> None:
        """Make the term at least `term`, stored before the next write (blocking; call it in a thread).

        Raises Retryable when the API server does not answer, or not as it should.
        """
        try:
            with self._lock:
                self._raise(client.CoordinationV1Api(_connect(self._access)), term)
        except (ApiException, *_AWAY) as error:
            raise RetryableError(f"the term {term} was not stored: {type(error).__name__}") from None

    def _raise(self, api: Any, term: int) -> None:
        lease: Any = copy.deepcopy(self._held) or self._read(api)
        if lease and lease.spec.holder_identity == self.identity and lease.spec.lease_transitions < term:
            lease.spec.lease_transitions = term
            self._put(api, lease, monotonic())

    def _round(self, api: Any) -> None:
        """Renew by one write, of which the version says whether the Lease is still as we left it; else look first."""
        started = monotonic()
        if self._held and self._renewed(api, started):
            return
        lease = self._read(api)
        if lease is not None and lease.spec is None:
            lease.spec = client.V1LeaseSpec()
        if lease is not None and lease.spec.holder_identity == self.identity:
            self._put(api, lease, started)  # also a first write of which the answer was lost
        elif not self.term and (lease is None or self._free(lease, started)):
            self._acquire(api, lease, started)

    def _renewed(self, api: Any, started: float) -> bool:
        """Whether the Lease that we hold was renewed; False: it is not as we left it."""
        try:
            self._put(api, self._held, started)
        except ApiException as error:
            if error.status not in {_CONFLICT, _NOT_FOUND}:
                raise
            self._held = None
        return self._held is not None

    def _read(self, api: Any) -> Any:
        """The Lease, or None where there is none."""
        try:
            return api.read_namespaced_lease(ELECTION_LEASE, self._access.namespace, _request_timeout=_REQUEST_SECONDS)
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise
            return None

    def _free(self, lease: Any, now: float) -> bool:
        """Whether another's Lease was released, or did not change for its whole duration by our own clock."""
        if not lease.spec.holder_identity:
            return True
        version = lease.metadata.resource_version
        if self._seen[0] != version:
            self._seen = (version, now)
        self._other_until = self._seen[1] + (lease.spec.lease_duration_seconds or LEASE_SECONDS)
        return now > self._other_until

    def _acquire(self, api: Any, found: Any, started: float) -> None:
        new = client.V1Lease(metadata=client.V1ObjectMeta(name=ELECTION_LEASE), spec=client.V1LeaseSpec())
        lease: Any = found or new
        lease.spec.lease_transitions = max(lease.spec.lease_transitions or 0, self._minimum()) + 1
        lease.spec.holder_identity = self.identity
        lease.spec.lease_duration_seconds = LEASE_SECONDS
        lease.spec.acquire_time = datetime.now(UTC)
        lease.metadata.annotations = {**(lease.metadata.annotations or {}), **self._annotations}
        try:
            self._put(api, lease, started)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise

    def _put(self, api: Any, lease: Any, started: float) -> None:
        """Write the Lease; the API server refuses a version that somebody else changed meanwhile."""
        lease.spec.renew_time = datetime.now(UTC)
        where = (self._access.namespace, lease)
        if lease.metadata.resource_version is None:
            stored = api.create_namespaced_lease(*where, _request_timeout=_REQUEST_SECONDS)
        else:
            stored = api.replace_namespaced_lease(ELECTION_LEASE, *where, _request_timeout=_REQUEST_SECONDS)
        first = not self.term
        self._held = stored
        self.lease_uid = stored.metadata.uid
        self.term = stored.spec.lease_transitions
        TERM.set(self.term)
        self._until = started + LEASE_SECONDS - WRITE_RESERVE
        if first:
            self._won()

    def _release(self, api: Any) -> None:
        self._until = 0.0
        LEADER.set(0)
        try:
            lease: Any = api.read_namespaced_lease(
                ELECTION_LEASE, self._access.namespace, _request_timeout=_REQUEST_SECONDS
            )
            if lease.spec.holder_identity == self.identity:
                lease.spec.holder_identity = None
                where = (ELECTION_LEASE, self._access.namespace, lease)
                api.replace_namespaced_lease(*where, _request_timeout=_REQUEST_SECONDS)
        except (ApiException, *_AWAY) as error:
            log.warning("the election Lease was not released; it runs out by itself", error=type(error).__name__)


def _connect(access: ClusterTarget) -> Any:
    settings: Any = client.Configuration()
    if access.in_cluster:
        config.load_incluster_config(client_configuration=settings)
    else:
        config.load_kube_config(
            config_file=access.kubeconfig, context=access.context, client_configuration=settings, persist_config=False
        )
    settings.retries = False
    return client.ApiClient(settings)
