"""The oracle: a second, naive implementation of membership over wire objects.

Written from the requirements alone (B3, B4, C3, C5, D2, D5, D8). It shares no code with `hotpool.core` and keeps no
index and no state. Slow on purpose: each result is computed from the whole objects.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations, permutations
from typing import Any

Json = Mapping[str, Any]

_SAME = {"zh-cn": "zh", "zh-tw": "zh", "zh-hans": "zh", "zh-hant": "zh", "pt-br": "pt", "pt-pt": "pt"}
_SAME |= {"en-us": "en", "en-gb": "en", "in": "id", "iw": "he"}
WINDOW = 600.0
"""Seconds for which the brake counts a silent node, and after which silence expires it."""


# Services and languages of a node (B3, B4).


def counted_services(report: Json) -> list[Json]:
    """Return the services that count: Running, named by their type, and the type is ready."""
    ready = {item["type"]: item["services"] for item in report["capabilities"] if item["ready"]}
    return [s for s in report["services"] if s["state"] == "Running" and s["id"] in ready.get(s["type"], ())]


def languages_of(services: Iterable[Json], type_: str) -> set[str]:
    """Return the languages of a type, in normal form."""
    codes = {code.lower() for s in services if s["type"] == type_ for code in s.get("languages") or ()}
    return {_SAME.get(code, code) for code in codes if code != "auto"}


def allows(rule: Json, source: str, target: str) -> bool:
    """Return True if one translation rule allows this pair."""
    known = languages_of([{"type": "", "languages": rule.get("languages")}], "")
    allowed = {
        "any_to_any": source in known and target in known,
        "any_to_en": source in known and target == "en",
        "en_to_any": source == "en" and target in known,
        "specific_pairs": f"{source}-{target}" in (rule.get("pairs") or ()),
    }
    return allowed[rule["kind"]] and f"{source}-{target}" not in (rule.get("blocked") or ())


def pairs(report: Json, *, semantic: bool) -> set[str]:
    """Return the directed pairs that a report offers."""
    services = counted_services(report)
    rules = [rule for s in services if s["type"] == "nmt" for rule in s.get("rules") or ()]
    repaired = languages_of(services, "semantic")
    return {
        f"{source}-{target}"
        for source in languages_of(services, "asr")
        for target in languages_of(services, "tts")
        if source != target
        and any(allows(rule, source, target) for rule in rules)
        and (not semantic or {source, target} <= repaired)
    }


def values(service: Json, key: str) -> set[str]:
    """Return the values of a service's attribute."""
    declared = {item["key"]: set(item["values"]) for item in service.get("attributes") or ()}
    if key in declared:
        return declared[key]
    if key == "languages":
        return languages_of([service], service["type"])
    return {service[key]} if key in {"model", "version", "device"} and service.get(key) else set()


# Drain (C5).


def is_drained(node: Json) -> bool:
    """Return True if people or the node's agent drain the node."""
    report = (node.get("status") or {}).get("report") or {}
    return (node.get("spec") or {}).get("drain") is True or report.get("draining") is True


# Requirements of pools (D2).


def needs_endpoints(pool: Json) -> bool:
    """Return True if the pool requires an endpoint for each type."""
    return ((pool.get("spec") or {}).get("requires") or {}).get("endpoint") == "Required"


def matches(pool: Json, node: Json, usable: Collection[str]) -> bool:
    """Return True if the node meets the requirements; liveness and drain are not considered.

    `usable`: its services with an endpoint, for a pool that requires them.
    """
    spec = pool.get("spec") or {}
    report = (node.get("status") or {}).get("report")
    if not report or report.get("leaving") or node["metadata"]["name"] in (spec.get("excludeNodes") or ()):
        return False
    needs = spec.get("requires") or {}
    if not any(needs.get(key) for key in ("types", "languagePairs", "nodeSelector", "hash", "hardware")):
        return bool(needs.get("matchAll"))
    part = needs.get("hash")
    return (
        all(_offers(report, item, usable if needs_endpoints(pool) else None) for item in needs.get("types") or ())
        and _translates(report, needs.get("languagePairs"))
        and _labelled(node["metadata"].get("labels") or {}, needs.get("nodeSelector") or {})
        and _is_large_enough(report.get("hardware") or {}, needs.get("hardware") or {})
        and (not part or hash_slot(node["metadata"]["name"], part) == part["index"])
    )


def _is_large_enough(hardware: Json, need: Json) -> bool:
    gpu = need.get("gpu")
    enough = all((hardware.get(key) or 0) >= (need.get(key) or 0) for key in ("cpus", "memoryMiB"))
    return enough and (gpu is None or _count_gpus(hardware.get("gpus") or (), gpu) >= (gpu.get("count") or 1))


def _count_gpus(gpus: Iterable[Json], need: Json) -> int:
    large = [gpu for gpu in gpus if (gpu.get("memoryMiB") or 0) >= (need.get("memoryMiB") or 0)]
    models = [_words(model) for model in need.get("models") or ()]
    return sum(not models or any(_contains(_words(gpu.get("model") or ""), model) for model in models) for gpu in large)


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def _contains(words: list[str], part: list[str]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words)))


def _offers(report: Json, need: Json, usable: Collection[str] | None) -> bool:
    return any(
        meets(service, need) and (usable is None or service["id"] in usable) for service in counted_services(report)
    )


def meets(service: Json, need: Json) -> bool:
    """Return True if a service is of the required type and has its attributes."""
    attributes = need.get("attributes") or ()
    return service["type"] == need["type"] and all(_has(values(service, a["key"]), a) for a in attributes)


def _has(found: set[str], need: Json) -> bool:
    some, every = need.get("anyOf"), need.get("allOf")
    return (some is None or bool(found & set(some))) and (every is None or set(every) <= found)


def _translates(report: Json, need: Json | None) -> bool:
    if not need:
        return True
    found = pairs(report, semantic=bool(need.get("semantic")))
    ends = {f"*-{pair.split('-')[1]}" for pair in found}
    return set(need["allOf"]) <= found | ends


def _labelled(labels: Json, selector: Json) -> bool:
    def holds(need: Json) -> bool:
        value = labels.get(need["key"])
        return {
            "In": value is not None and value in need.get("values", ()),
            "NotIn": value is None or value not in need.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[need["operator"]]

    wanted = (selector.get("matchLabels") or {}).items()
    return all(labels.get(k) == v for k, v in wanted) and all(map(holds, selector.get("matchExpressions") or ()))


def hash_slot(node: str, rule: Json) -> int:
    """Return the hash slot of a node: FNV-1a-64 of name and seed, modulo the count."""
    value = 14695981039346656037
    for byte in f"{node}\0{rule.get('seed') or ''}".encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    return int(value % rule["count"])


# The brake (D8).


def brake_holds(silent: int, live: int, percent: int) -> bool:
    """Return True if so many nodes are silent that silence may remove none."""
    return silent > max(1, percent * (silent + live) / 100)


# Pools of generators (D5).


def pool_keys(rule: Json, report: Json, node: str) -> set[tuple[str, str]]:
    """Return (kind, key) of all pools of a rule that match the node; a language set's key is its sorted languages."""
    if "languagePairs" in rule:
        found = pairs(report, semantic=bool(rule["languagePairs"].get("semantic")))
        ends = {f"*-{p.split('-')[1]}" for p in found} if rule["languagePairs"].get("manyToOne") else set()
        return {("LanguagePair", key) for key in found} | {("ManyToOne", key) for key in ends}
    if "attributeValues" in rule:
        want = rule["attributeValues"]
        offering = [s for s in counted_services(report) if s["type"] == want["type"]]
        return {("AttributeValue", value) for s in offering for value in values(s, want["key"])}
    if "hash" in rule:
        return {("Hash", str(hash_slot(node, rule["hash"])))}
    sets = [found for found in complete_language_sets(report) if _sized(found, rule["languageSets"])]
    return {("LanguageSet", " ".join(found)) for found in sets}


def candidate_keys(rule: Json, report: Json, node: str) -> set[tuple[str, str]]:
    """Return the `pool_keys` for which this node makes a pool: of sets only the largest."""
    found = pool_keys(rule, report, node)
    if "languageSets" not in rule:
        return found
    every = [set(one) for one in complete_language_sets(report)]
    return {(kind, key) for kind, key in found if not any(set(key.split()) < one for one in every)}


def complete_language_sets(report: Json) -> list[tuple[str, ...]]:
    """Return all sets of languages in which every ordered pair is offered."""
    found = pairs(report, semantic=False)
    codes = sorted({code for pair in found for code in pair.split("-")})
    return [
        chosen
        for size in range(2, len(codes) + 1)
        for chosen in combinations(codes, size)
        if all(f"{a}-{b}" in found for a, b in permutations(chosen, 2))
    ]


def _sized(found: tuple[str, ...], rule: Json) -> bool:
    return bool(rule.get("minLanguages", 2) <= len(found) <= rule.get("maxLanguages", 4))
