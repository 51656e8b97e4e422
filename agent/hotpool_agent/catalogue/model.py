"""Models of a node's catalogue (requirement A1): services, their commands and their probes.

Models and their own consistency only: no file is read here. An unknown field is an error, so that no typo is ignored.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from hotpool.api.capability import RuleKind
from hotpool.api.meta import Label63
from hotpool.api.names import SUBDOMAIN_PATTERN
from hotpool_agent.catalogue.pair_syntax import normalise_pair
from hotpool_agent.ip_addresses import MAX_ADDRESSES, checked_advertised

COMMON_PROBE_KINDS: Final = ("http", "tcp", "exec", "grpc")
"""Kinds of probe of every service; fields of `Probe`."""
PROBE_KINDS: Final = (*COMMON_PROBE_KINDS, "process", "systemd", "file")
"""Kinds of probe of an observed service; fields of `Observe`."""
_UNIT: Final = re.compile(
    r"[-\w:.\\@]{1,240}\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)", re.ASCII
)

_HOST: Final = re.compile(r"[A-Za-z0-9_]([-\w]*\w)?(\.[A-Za-z0-9_]([-\w]*\w)?)*\.?", re.ASCII)
_HOST_MAX: Final = 253
_PROTOCOL: Final = re.compile(r"[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", re.ASCII)
_PREFIX: Final = re.compile(SUBDOMAIN_PATTERN)
_PROTOCOL_MAX: Final = 253
MAX_CONCURRENT: Final = 1_000_000
"""Largest limit of requests or streams at a time."""


def _within(low: float, high: float) -> Callable[[float], float]:
    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"must be {low:.15g}..{high:.15g}")
        return value

    return check


Port = Annotated[int, AfterValidator(_within(1, 65535))]
Status = Annotated[int, AfterValidator(_within(100, 599))]
Limit = Annotated[int, AfterValidator(_within(1, MAX_CONCURRENT))]
Seconds = Annotated[float, AfterValidator(_within(0.01, 86400))]
Pause = Annotated[float, AfterValidator(_within(0, 3600))]
DrainTimeout = Annotated[float, AfterValidator(_within(0, 86400))]
Failures = Annotated[int, AfterValidator(_within(1, 100))]
UrlPath = Annotated[str, StringConstraints(pattern=r"^/")]
FilePath = Annotated[str, StringConstraints(min_length=1)]
ProgramName = Annotated[str, StringConstraints(pattern=r"^[^/]+$")]
MetricName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
JsonPath = Annotated[str, StringConstraints(pattern=r"^(\.[^.\[\]]+)+$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\t\x20-\x7e]*$")]


def _pair(text: str) -> str:
    if normalise_pair(text) is None:
        raise ValueError("must be a directed pair of languages, for example zh-en")
    return text


def _unit(text: str) -> str:
    if not _UNIT.fullmatch(text):
        raise ValueError("must be the whole name of a unit, for example whisper.service")
    return text


def _host(text: str) -> str:
    try:
        # A zone, as in fe80::1%eth0, has no place in a URL.
        return str(ip_address(text.replace("%", "/")))
    except ValueError:
        if len(text) > _HOST_MAX or not _HOST.fullmatch(text):
            raise ValueError("must be a host name or an IP address, without a port") from None
        return text


def app_protocol(text: str) -> str:
    """Return an application protocol, in the form of a Service port. Raises ValueError."""
    prefix, slash, name = text.rpartition("/")
    if len(text) > _PROTOCOL_MAX or not _PROTOCOL.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
        raise ValueError("must be a protocol as in a Service port, for example http, grpc or kubernetes.io/ws")
    return text


Host = Annotated[str, AfterValidator(_host)]
Pair = Annotated[str, AfterValidator(_pair)]
AppProtocol = Annotated[str, AfterValidator(app_protocol)]
AdvertisedAddress = Annotated[str, AfterValidator(checked_advertised)]
UnitName = Annotated[str, AfterValidator(_unit)]
# Strict mode only for scalars: YAML has lists, the models have tuples.
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Pairs = Annotated[tuple[Pair, ...], Field(strict=False)]
Device = Literal["cpu", "gpu"]


class Model(BaseModel):
    """Base of all catalogue models: camelCase, immutable, no implicit conversion, no unknown field."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        strict=True,
    )


class HttpHeader(Model):
    """Header of a request; `Host` replaces the default one."""

    name: HeaderName
    value: HeaderValue = ""


class HttpCheck(Model):
    """GET, a success only with this status and, if given, exactly this body (stripped).

    Without `host`: to 127.0.0.1 and ::1, of which one must succeed. With HTTPS the certificate must be valid for the
    `Host` header, else for `host`, else for the address or for localhost.
    """

    host: Host | None = None
    path: UrlPath = "/"
    port: Port | None = None
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: Annotated[tuple[HttpHeader, ...], Field(strict=False)] = ()
    ca_file: FilePath | None = None
    insecure_skip_verify: bool = False
    expect_status: Status = 200
    expect_body: str | None = None


class TcpCheck(Model):
    """Connection to a port, by default to the service's; without `host` on 127.0.0.1 or ::1."""

    host: Host | None = None
    port: Port | None = None


class ExecCheck(Model):
    """Command that exits with code 0; no shell. It runs in the folder of the service, or of the catalogue."""

    command: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class GrpcCheck(Model):
    """Request of the gRPC health checking protocol on 127.0.0.1 or ::1; `service` is the name that it asks for."""

    port: Port | None = None
    service: str = ""


class Probe(Model):
    """Probe by at most one of the kinds that every service has, and its time-out."""

    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    exec: ExecCheck | None = None
    grpc: GrpcCheck | None = None
    timeout_seconds: Seconds = 2.0


class Ready(Probe):
    """Readiness probe of a supervised service (requirement A5). Without a kind: its port accepts TCP."""

    period_seconds: Seconds = 1.0
    start_seconds: Seconds = 300.0


class Live(Probe):
    """Liveness probe of a supervised service, to detect a hang (requirement A6). Without a kind: that of `ready`."""

    period_seconds: Seconds = 5.0
    failures: Failures = 3


class ProcessCheck(Model):
    """Process of this machine, by exactly one of name and pid file; `argument` must be one of its arguments.

    The name is that of /proc/PID/comm or the last part of argv[0]; a pid file is relative to the catalogue's folder.
    """

    name: ProgramName | None = None
    pid_file: FilePath | None = None
    argument: str | None = None


class SystemdCheck(Model):
    """Unit of the system's systemd, or with `user` of the systemd of the agent's own user."""

    unit: UnitName
    user: bool = False


class FileCheck(Model):
    """File that exists and, if an age is given, was modified within it; relative to the catalogue's folder."""

    path: FilePath
    max_age_seconds: Seconds | None = None


class Observe(Probe):
    """Probe of an observed service: exactly one of the seven kinds, and its period.

    A probe that finds nothing at all takes the service out at once. Other failures count after `failures` in a row
    (requirement A6).
    """

    process: ProcessCheck | None = None
    systemd: SystemdCheck | None = None
    file: FileCheck | None = None
    period_seconds: Seconds = 1.0
    failures: Failures = 3


class InFlight(Model):
    """Number of requests in progress, by exactly one of a Prometheus metric and a path in a JSON document.

    A metric with several samples is their sum. It is read only while the service or the node drains (requirement B5).
    """

    http: HttpCheck
    metric: MetricName | None = None
    json_path: JsonPath | None = None
    timeout_seconds: Seconds = 2.0


class Run(Model):
    """Command of a supervised service; `workingDir` is relative to the catalogue's folder."""

    command: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    env: dict[str, str] = {}
    working_dir: str = "."


class Rule(Model):
    """Directed pairs that a translation service offers; `blocked` excludes pairs from this rule only."""

    kind: RuleKind
    languages: Strings = ()
    pairs: Pairs = ()
    blocked: Pairs = ()


class Attributes(Model):
    """Attributes of a service. `languages` and `rules` have a meaning of their own; other keys hold lists of words."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Strings]

    languages: Strings = ()
    rules: Annotated[tuple[Rule, ...], Field(strict=False)] = ()

    def others(self) -> dict[str, tuple[str, ...]]:
        """Return all attributes but `languages` and `rules`."""
        return dict(self.__pydantic_extra__)


class ServiceSpec(Model):
    """One service, either supervised (`run`) or observed (`observe`)."""

    id: Label63
    type: Label63
    device: Device | None = None
    model: str | None = None
    version: str | None = None
    port: Port | None = None
    app_protocol: AppProtocol | None = None
    max_concurrent: Limit | None = None
    scope: Literal["node", "local"] = "node"
    heavy: bool = False
    auto_start: bool = False
    pre_stop_seconds: Pause = 1.0
    drain_timeout_seconds: DrainTimeout = 0.0
    in_flight: InFlight | None = None
    attributes: Attributes = Attributes()
    run: Run | None = None
    ready: Ready = Ready()
    live: Live = Live()
    observe: Observe | None = None


class TypeRule(Model):
    """Devices that count for a type; empty: any."""

    devices: Annotated[tuple[Device, ...], Field(strict=False)] = ()


class Advertise(Model):
    """IP addresses at which clients reach the node, in place of those that the agent finds."""

    addresses: Annotated[tuple[AdvertisedAddress, ...], Field(strict=False, min_length=1, max_length=MAX_ADDRESSES)]


class Catalogue(Model):
    """All services of one node, in the order in which they start."""

    version: Literal[1]
    on_agent_exit: Literal["stop", "keep"] = "stop"
    drain_timeout_seconds: DrainTimeout = 0.0
    advertise: Advertise | None = None
    types: dict[Label63, TypeRule] = {}
    services: Annotated[tuple[ServiceSpec, ...], Field(strict=False)] = ()


def device_accepted(catalogue: Catalogue, service: ServiceSpec) -> bool:
    """Return True if the service's device counts for its type (requirement B2)."""
    rule = catalogue.types.get(service.type)
    return rule is None or not rule.devices or service.device in rule.devices
