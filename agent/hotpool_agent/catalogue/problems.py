"""Errors and warnings about fields of a catalogue that are valid alone (requirement A1): pure.

Must not know how a catalogue is read.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from hotpool.api.languages import normalise_language
from hotpool.common.similar_names import similar_hint
from hotpool_agent.catalogue.model import (
    COMMON_PROBE_KINDS,
    PROBE_KINDS,
    Catalogue,
    Observe,
    Probe,
    Rule,
    ServiceSpec,
)
from hotpool_agent.catalogue.pair_syntax import normalise_pair

Path = tuple[str | int, ...]

_PAIRS: Final = "specific_pairs"
_NMT: Final = "nmt"
_MEANINGS: Final = ("languages", "rules")
"""Attributes with a meaning of their own."""
_ALIKE: Final = 0.85
"""Similarity of a misspelt attribute, which rule and language have, and roles has not."""


class Problem(NamedTuple):
    """Problem at a path. `reads`: paths of the fields that it follows from, for which an invalid one says nothing."""

    path: Path
    message: str
    reads: tuple[Path, ...] = ()

    def below(self, *parent: str | int) -> "Problem":
        """Return the same problem of a part of the catalogue, with paths from its root."""
        return Problem((*parent, *self.path), self.message, tuple((*parent, *path) for path in self.reads))


def inconsistencies(catalogue: Catalogue) -> list[Problem]:
    """Return each error between fields that are valid alone, in the catalogue's order."""
    errors: list[Problem] = []
    first: dict[str, int] = {}
    if catalogue.drain_timeout_seconds and catalogue.on_agent_exit == "keep":
        text = "has no effect with onAgentExit: keep; remove one of them"
        errors.append(Problem(("drainTimeoutSeconds",), text, (("onAgentExit",),)))
    for index, service in enumerate(catalogue.services):
        where: Path = ("services", index)
        if first.setdefault(service.id, index) != index:
            text = f"{service.id!r} is used twice: services[{first[service.id]}] has it too"
            errors.append(Problem((*where, "id"), text))
        rule = catalogue.types.get(service.type)
        if rule and rule.devices and service.device is None:
            devices = ", ".join(rule.devices)
            text = f"device is required: type {service.type} counts only on {devices}"
            errors.append(Problem(where, text, ((*where, "device"), (*where, "type"))))
        errors.extend(item.below(*where) for item in (*_run_errors(service), *_in_flight_errors(service)))
    return errors


def _in_flight_errors(service: ServiceSpec) -> Iterator[Problem]:
    source = service.in_flight
    if source is None:
        return
    if (source.metric is None) == (source.json_path is None):
        reads = (("inFlight", "metric"), ("inFlight", "jsonPath"))
        yield Problem(("inFlight",), "exactly one of metric and jsonPath is required", reads)
    yield from _probe_errors(service, Probe(http=source.http), "inFlight")


def _run_errors(service: ServiceSpec) -> Iterator[Problem]:
    if (service.run is None) == (service.observe is None):
        text = "exactly one of 'run' (supervised) and 'observe' (observed) is required"
        yield Problem((), text, (("run",), ("observe",)))
    elif service.observe is not None:
        yield from _observe_errors(service, service.observe)
    else:
        yield from _probe_errors(service, service.ready, "ready")
        yield from _probe_errors(service, service.live, "live")


def _observe_errors(service: ServiceSpec, observe: Observe) -> Iterator[Problem]:
    if sum(getattr(observe, kind) is not None for kind in PROBE_KINDS) != 1:
        reads = tuple(("observe", kind) for kind in PROBE_KINDS)
        yield Problem(("observe",), f"exactly one of {', '.join(PROBE_KINDS)} is required", reads)
    else:
        yield from _probe_errors(service, observe, "observe")
    if observe.process and (observe.process.name is None) == (observe.process.pid_file is None):
        where = ("observe", "process")
        yield Problem(where, "exactly one of name and pidFile is required", ((*where, "name"), (*where, "pidFile")))
    if service.auto_start:
        yield Problem(("autoStart",), "an observed service is started by another program; remove autoStart")
    if service.drain_timeout_seconds:
        text = "an observed service is stopped by another program; remove drainTimeoutSeconds"
        yield Problem(("drainTimeoutSeconds",), text)


def _probe_errors(service: ServiceSpec, probe: Probe, name: str) -> Iterator[Problem]:
    if sum(getattr(probe, kind) is not None for kind in COMMON_PROBE_KINDS) > 1:
        yield Problem((name,), f"at most one of {', '.join(COMMON_PROBE_KINDS)} is allowed")
    for kind, check in (("http", probe.http), ("tcp", probe.tcp), ("grpc", probe.grpc)):
        if check and not (check.port or service.port):
            text = "needs a port: give the service or the probe one"
            yield Problem((name, kind), text, ((name, kind, "port"), ("port",)))
    where = (name, "http")
    if probe.http and probe.http.scheme == "HTTP" and (probe.http.ca_file or probe.http.insecure_skip_verify):
        yield Problem(where, "caFile and insecureSkipVerify need scheme: HTTPS", ((*where, "scheme"),))
    elif probe.http and probe.http.ca_file and probe.http.insecure_skip_verify:
        yield Problem(where, "at most one of caFile and insecureSkipVerify is allowed")


def warnings(catalogue: Catalogue) -> list[Problem]:
    """Return what has no effect, cannot work or is probably misspelt, though the agent can use the catalogue."""
    found = [*_unused_types(catalogue), *_shared_ports(catalogue.services)]
    for index, service in enumerate(catalogue.services):
        parts = (_without_effect(service), _probes_without_effect(service), _attribute_warnings(service))
        found += (item.below("services", index) for part in parts for item in part)
    return found


def _unused_types(catalogue: Catalogue) -> Iterator[Problem]:
    used = {service.type for service in catalogue.services}
    for type_ in catalogue.types:
        if type_ not in used and (hint := similar_hint(type_, used, 0.6)):
            yield Problem(("types", type_), f"no service has this type{hint}", (("services",),))


def _shared_ports(services: Iterable[ServiceSpec]) -> Iterator[Problem]:
    """Yield the ports of several services that cannot be those of one program that offers several types."""
    before: dict[int, list[tuple[int, ServiceSpec]]] = {}
    for index, service in enumerate(services):
        if service.port is None:
            continue
        others = before.setdefault(service.port, [])
        where: Path = ("services", index, "port")
        for other, former in others:
            text = f"{service.port} is the port of services[{other}] ({former.id}), too"
            if service.run and former.run:
                yield Problem(where, f"{text}: only one of them can run at a time")
                break
            if service.type == former.type:
                yield Problem(where, f"{text}: one server is counted as two of type {service.type}", (where,))
                break
        others.append((index, service))


def _without_effect(service: ServiceSpec) -> Iterator[Problem]:
    given = service.model_fields_set
    if service.observe is not None and service.run is None:
        fields = {"ready": "ready", "live": "live", "preStopSeconds": "pre_stop_seconds"}
        for name, field in fields.items():
            if field in given:
                yield Problem((name,), "has no effect: another program runs this observed service")
        if service.heavy:
            yield Problem(("heavy",), "has no effect: another program loads this observed service")
    if service.app_protocol is not None:
        if service.port is None:
            yield Problem(("appProtocol",), "has no effect without port", (("port",),))
        elif service.scope == "local":
            yield Problem(("appProtocol",), "has no effect with scope: local", (("scope",),))


def _probes_without_effect(service: ServiceSpec) -> Iterator[Problem]:
    """Yield `ready` and `live` of a supervised service that has nothing to probe."""
    if service.run is None or service.port is not None or _probes(service.ready):
        return
    reads = (("port",), *(("ready", kind) for kind in COMMON_PROBE_KINDS))
    text = "has no effect without a port or a probe: a process that lives is ready"
    if service.ready.model_fields_set:
        yield Problem(("ready",), text, reads)
    if service.live.model_fields_set and not _probes(service.live):
        yield Problem(("live",), text, (*reads, *(("live", kind) for kind in COMMON_PROBE_KINDS)))


def _probes(probe: Probe) -> bool:
    return any(getattr(probe, kind) is not None for kind in COMMON_PROBE_KINDS)


def _attribute_warnings(service: ServiceSpec) -> Iterator[Problem]:
    for key in service.attributes.others():
        if hint := similar_hint(key, _MEANINGS, _ALIKE):
            yield Problem(("attributes", key), f"is a list of words like any other{hint}")
    if service.attributes.rules and service.type != _NMT:
        text = f"has no effect: a service of type {service.type} offers no pairs, only one of type {_NMT} does"
        yield Problem(("attributes", "rules"), text, (("type",),))
    for index, rule in enumerate(service.attributes.rules):
        yield from (item.below("attributes", "rules", index) for item in _rule_warnings(rule))


def _rule_warnings(rule: Rule) -> Iterator[Problem]:
    used, unused = ("pairs", "languages") if rule.kind == _PAIRS else ("languages", "pairs")
    if getattr(rule, unused):
        yield Problem((unused,), f"has no effect with kind: {rule.kind}, which reads {used}")
    if not getattr(rule, used):
        yield Problem((), f"offers nothing: kind {rule.kind} needs {used}")
        return
    for index, pair in enumerate(rule.blocked):
        if not _offers(rule, normalise_pair(pair) or ""):
            yield Problem(("blocked", index), f"has no effect: this rule does not offer {pair}")


def _offers(rule: Rule, pair: str) -> bool:
    if rule.kind == _PAIRS:
        return pair in map(normalise_pair, rule.pairs)
    languages = {normalise_language(item) for item in rule.languages}
    source, _, target = pair.partition("-")
    sources = {"en"} if rule.kind == "en_to_any" else languages
    return source in sources and target in ({"en"} if rule.kind == "any_to_en" else languages)
