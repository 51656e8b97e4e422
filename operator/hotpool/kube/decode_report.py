"""Decoding of an agent's report to core values (requirements B3, B11). No other module knows its wire shape.

Pure. The time is bounded by the size of the report, whatever its content.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from hotpool.api import capability
from hotpool.api.languages import normalise_language, normalise_languages
from hotpool.api.names import LABEL_PATTERN
from hotpool.common.ip_addresses import canonical_ip
from hotpool.core.declared_words import service_words
from hotpool.core.hardware import Gpu, Hardware, words_of
from hotpool.core.model import NodeAddress, PodReference, Report, Rule, ServiceEndpoint, ServiceOffer, TypeState
from hotpool.core.service_troubles import ServiceTrouble

MAX_PAIR_PARTS: Final = 4
"""Parts of a language pair: two codes of two parts each (zh-cn-en-us). No code in use has more."""
MAX_VALUES: Final = capability.REPORT_BYTES // len('"",')
"""Limit of languages, pairs, attributes, values and service ids; a report of the agent's maximum size has fewer.

The schema bounds each list but not their product, which determines the time of every decision about a node.
"""
MAX_ERROR_LENGTH: Final = 1024
_WORD: Final = re.compile(LABEL_PATTERN)


def error_text(error: Exception) -> str:
    """Return the first problem as text for people, at most MAX_ERROR_LENGTH characters."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        text = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return text if len(text) <= MAX_ERROR_LENGTH else f"{text[:MAX_ERROR_LENGTH]}…"


_MAX_SERVICE_ERROR: Final = 256
"""Characters of a service's error that are kept. Ten thousand nodes may have one each."""
_IN_PROGRESS: Final = frozenset({"Running", "Stopping"})
"""States of a service that may have requests in progress."""


def usable_report(raw: Mapping[str, Any] | None) -> tuple[Report | None, str | None]:
    """Return the report or its problem; both None without a report."""
    if raw is None:
        return None, None
    try:
        report = capability.Report.model_validate(raw)
    except ValidationError as error:
        return None, f"status.report.{error_text(error)}"
    count = sum(map(_count_values, report.services)) + sum(len(capable.services) for capable in report.capabilities)
    if count > MAX_VALUES:
        return None, f"status.report: {count} languages, pairs, attributes, values and ids, {MAX_VALUES} at most"
    return _report(report), None


def _count_values(service: capability.Service) -> int:
    rules = sum(1 + len(rule.languages) + len(rule.pairs) + len(rule.blocked) for rule in service.rules)
    return len(service.languages) + rules + sum(1 + len(attribute.values) for attribute in service.attributes)


def _report(raw: capability.Report) -> Report:
    types = {c.type: TypeState(c.ready, c.reason, c.services) for c in raw.capabilities}
    ready = {type_: frozenset(state.services) for type_, state in types.items() if state.ready}
    offers: dict[str, list[ServiceOffer]] = {}
    for service in raw.services:
        ours = service.id in ready.get(service.type, ())
        if service.state == "Running" and ours and _is_word(service.id) and _is_word(service.type):
            offers.setdefault(service.type, []).append(_offer(service))
    return Report(
        instance=raw.instance,
        session=raw.session,
        epoch=raw.epoch,
        sequence=raw.sequence,
        time=raw.time,
        interval=float(raw.interval_seconds),
        leaving=raw.leaving,
        draining=raw.draining,
        addresses=tuple(NodeAddress(ip, item.source) for item in raw.addresses if (ip := canonical_ip(item.ip))),
        types=types,
        offers={type_: tuple(found) for type_, found in offers.items()},
        numbers={service.id: service.in_flight for service in raw.services if service.in_flight is not None},
        declared=frozenset(map(service_words, raw.services)),
        troubles=tuple(map(_trouble, filter(_is_troubled, raw.services))),
        uncounted=any(service.state in _IN_PROGRESS and service.in_flight is None for service in raw.services),
        hardware=_hardware(raw.hardware) if raw.hardware else None,
    )


@lru_cache(maxsize=256)
def _hardware(raw: capability.Hardware) -> Hardware:
    """Return the hardware. Cached: a fleet has few different machines."""
    gpus = tuple(Gpu(gpu.model, gpu.memory_mib, words_of(gpu.model)) for gpu in raw.gpus)
    return Hardware(raw.cpus, raw.memory_mib, gpus)


def _is_troubled(service: capability.Service) -> bool:
    return service.state == "Failed" or service.restarts > 0


def _trouble(service: capability.Service) -> ServiceTrouble:
    error = (service.last_error or "no error reported")[:_MAX_SERVICE_ERROR]
    return ServiceTrouble(service.id, service.type, service.state, service.since, service.restarts, error)


def _is_word(text: str) -> bool:
    """Return False for an id or a type that no catalogue can have. In Redis it could pass for another service."""
    return _WORD.fullmatch(text) is not None


def _offer(service: capability.Service) -> ServiceOffer:
    languages = _languages(service.languages)
    attributes = {item.key: frozenset(item.values) for item in service.attributes}
    for key, value in (("model", service.model), ("version", service.version), ("device", service.device)):
        if value is not None:
            attributes.setdefault(key, frozenset({value}))
    attributes.setdefault("languages", languages)
    return ServiceOffer(
        service.id,
        service.type,
        languages,
        tuple(_rule(rule) for rule in service.rules),
        attributes,
        _endpoint(service),
        service.endpoint_reason,
        PodReference(service.pod.namespace, service.pod.name, service.pod.uid) if service.pod else None,
        service.max_concurrent,
    )


@lru_cache(maxsize=256)
def _languages(codes: tuple[str, ...]) -> frozenset[str]:
    """Return the normal forms. Cached: the services of a fleet have few different lists."""
    return frozenset(normalise_languages(codes))


def _endpoint(service: capability.Service) -> ServiceEndpoint | None:
    """Return the endpoint, or None if it has addresses of its own and one is not an IP address.

    Without an address of the node it is the port alone: people may have written an address into the node's spec.
    """
    raw = service.endpoint
    if raw is None:
        lacks_address = service.endpoint_reason == "NoAddress" and service.pod is None
        return ServiceEndpoint(service.port) if lacks_address and service.port else None
    addresses = tuple(ip for item in raw.addresses if (ip := canonical_ip(item)))
    return ServiceEndpoint(raw.port, addresses, raw.app_protocol) if len(addresses) == len(raw.addresses) else None


def _rule(rule: capability.TranslationRule) -> Rule:
    return Rule(
        kind=rule.kind,
        languages=_languages(rule.languages),
        pairs=frozenset(_pairs(rule.pairs)),
        blocked=frozenset(_pairs(rule.blocked)),
    )


def _pairs(raw: Iterable[str]) -> Iterable[str]:
    """Yield `src-tgt` with normalised codes. A code may itself contain a `-` (zh-cn-en), so all splits are tried."""
    for pair in raw:
        parts = pair.lower().split("-")
        if len(parts) > MAX_PAIR_PARTS:
            continue
        splits = [("-".join(parts[:cut]), "-".join(parts[cut:])) for cut in range(1, len(parts))]
        known = [(normalise_language(source), normalise_language(target)) for source, target in splits]
        yield from (f"{s}-{t}" for s, t in known if s and t and "-" not in s + t)
