"""The oracle: who belongs where, a second time, by brute force over wire objects.

Written from behaviour.md alone (B3, B4, C3, C5, D2, D5, D8); it shares no code with `hotpool.core`, keeps no index and
remembers nothing. Slow on purpose: each question is answered from the whole objects.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations, permutations
from typing import Any

Json = Mapping[str, Any]

_SAME = {"zh-cn": "zh", "zh-tw": "zh", "zh-hans": "zh", "zh-hant": "zh", "pt-br": "pt", "pt-pt": "pt"}
_SAME |= {"en-us": "en", "en-gb": "en", "in": "id", "iw": "he"}
WINDOW = 600.0
"""Seconds that the brake looks back, and after which silence is the end."""


# What a node offers (B3, B4).


def counting(report: Json) -> list[Json]:
    """The services that count: Running, named by their type, and the type is ready."""
    ready = {item["type"]: item["services"] for item in report["capabilities"] if item["ready"]}
    return [s for s in report["services"] if s["state"] == "Running" and s["id"] in ready.get(s["type"], ())]


def spoken(services: Iterable[Json], type_: str) -> set[str]:
    """The languages of a type, in normal form."""
    codes = {code.lower() for s in services if s["type"] == type_ for code in s.get("languages") or ()}
    return {_SAME.get(code, code) for code in codes if code != "auto"}


def allows(rule: Json, source: str, target: str) -> bool:
    """Whether one translation rule makes this pair."""
    known = spoken([{"type": "", "languages": rule.get("languages")}], "")
    made = {
        "any_to_any": source in known and target in known,
        "any_to_en": source in known and target == "en",
        "en_to_any": source == "en" and target in known,
        "specific_pairs": f"{source}-{target}" in (rule.get("pairs") or ()),
    }
    return made[rule["kind"]] and f"{source}-{target}" not in (rule.get("blocked") or ())


def pairs(report: Json, *, semantic: bool) -> set[str]:
    """The directed pairs that a report offers."""
    services = counting(report)
    rules = [rule for s in services if s["type"] == "nmt" for rule in s.get("rules") or ()]
    repaired = spoken(services, "semantic")
    return {
        f"{source}-{target}"
        for source in spoken(services, "asr")
        for target in spoken(services, "tts")
        if source != target
        and any(allows(rule, source, target) for rule in rules)
        and (not semantic or {source, target} <= repaired)
    }


def values(service: Json, key: str) -> set[str]:
    """What a service declares of an attribute."""
    declared = {item["key"]: set(item["values"]) for item in service.get("attributes") or ()}
    if key in declared:
        return declared[key]
    if key == "languages":
        return spoken([service], service["type"])
    return {service[key]} if key in {"model", "version", "device"} and service.get(key) else set()


# Whether a node meets a pool's requirements (D2).


def meets(pool: Json, node: Json) -> bool:
    """Whether the node matches, liveness and drain apart."""
    spec = pool.get("spec") or {}
    report = (node.get("status") or {}).get("report")
    if not report or report.get("leaving") or node["metadata"]["name"] in (spec.get("excludeNodes") or ()):
        return False
    needs = spec.get("requires") or {}
    if not any(needs.get(key) for key in ("types", "languagePairs", "nodeSelector", "hash")):
        return bool(needs.get("matchAll"))
    part = needs.get("hash")
    return (
        all(_offers(report, item) for item in needs.get("types") or ())
        and _translates(report, needs.get("languagePairs"))
        and _labelled(node["metadata"].get("labels") or {}, needs.get("nodeSelector") or {})
        and (not part or place(node["metadata"]["name"], part) == part["index"])
    )


def _offers(report: Json, need: Json) -> bool:
    return any(
        all(_has(values(service, a["key"]), a) for a in need.get("attributes") or ())
        for service in counting(report)
        if service["type"] == need["type"]
    )


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


def place(node: str, rule: Json) -> int:
    """The hash pool of a node: FNV-1a-64 of name and seed, modulo the count."""
    value = 14695981039346656037
    for byte in f"{node}\0{rule.get('seed') or ''}".encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    return int(value % rule["count"])


# The brake (D8).


def brakes(silent: int, live: int, percent: int) -> bool:
    """Whether so many are silent that silence may remove nobody."""
    return silent > max(1, percent * (silent + live) / 100)


# What generators want (D5).


def keys(rule: Json, report: Json, node: str) -> set[tuple[str, str]]:
    """(kind, key) of all pools of a rule that the node would be in; a language set's key is its sorted languages."""
    if "languagePairs" in rule:
        found = pairs(report, semantic=bool(rule["languagePairs"].get("semantic")))
        ends = {f"*-{p.split('-')[1]}" for p in found} if rule["languagePairs"].get("manyToOne") else set()
        return {("LanguagePair", key) for key in found} | {("ManyToOne", key) for key in ends}
    if "attributeValues" in rule:
        want = rule["attributeValues"]
        offering = [s for s in counting(report) if s["type"] == want["type"]]
        return {("AttributeValue", value) for s in offering for value in values(s, want["key"])}
    if "hash" in rule:
        return {("Hash", str(place(node, rule["hash"])))}
    return {("LanguageSet", " ".join(found)) for found in closed(report) if _sized(found, rule["languageSets"])}


def observed(rule: Json, report: Json, node: str) -> set[tuple[str, str]]:
    """Those of `keys` that this node makes candidates: of sets only the largest."""
    found = keys(rule, report, node)
    if "languageSets" not in rule:
        return found
    every = [set(one) for one in closed(report)]
    return {(kind, key) for kind, key in found if not any(set(key.split()) < one for one in every)}


def closed(report: Json) -> list[tuple[str, ...]]:
    """All sets of languages in which every ordered pair is offered."""
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
