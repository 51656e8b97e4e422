"""Malformed objects: extreme values that the schema allows, and values that it refuses.

Everything follows from a `random.Random`, so that a seed gives the same objects on every run. `valid_*` are within the
bounds of the schema (crds/); `broken` has values of any type.
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from math import inf, nan
from random import Random
from typing import Any

from tests.support.builders import (
    Json,
    condition,
    generator_object,
    node_object,
    pool_object,
    report,
    service,
    slice_object,
)
from tests.support.json_mutation import changed, paths

from hotpool.api.meta import MAX_CONDITIONS
from hotpool.core.model import CUSTOM_KINDS, Kind

LARGEST = 2**53 - 1
FAR = "9999-12-31T23:59:59Z"
LONG_AGO = "0001-01-01T00:00:00Z"
TEXTS = (
    "",
    " ",
    "*",
    ".facts",
    "a\u0000b",
    "\u202eabc\u202c",
    "\u200b",
    "e\u0301\u0301\u0301",
    "\U0001d538\U0001d539",
    "👩‍👩‍👧‍👦",
    "\ud7ff\ue000\uffff",
    "ﷺ" * 20,
    "İ",
    "'; DROP TABLE nodes; --",
    "{{hotpool}}",
    "%s%n",
    "\r\n\t",
    "NaN",
    "null",
)
"""Strings that a schema without patterns accepts."""

LONE_SURROGATE = json.loads('"\\ud800"')
JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**53,
    2**63,
    -(2**63),
    10**300,
    1.5,
    -0.0,
    1e308,
    inf,
    -inf,
    nan,
    "",
    "x" * 70_000,
    LONE_SURROGATE,
    "\x00",
    "-1",
    "1e3",
    "\uff19",
    [],
    [None],
    [[]],
    [{}],
    ["x"] * 3,
    {},
    {"": None},
    {"x" * 9000: {}},
    {LONE_SURROGATE: LONE_SURROGATE},
    {"name": {"name": {}}},
)
"""Values of wrong types and ranges, as a JSON parser may return them."""


def _complete_service() -> Json:
    return service(
        "s",
        "nmt",
        device="gpu",
        since=LONG_AGO,
        port=1,
        pid=1,
        version="1",
        model="m",
        restarts=1,
        lastError="e",
        desired="Running",
        desiredBy="local",
        requestID="1",
        languages=["zh", "en"],
        rules=[{"kind": "specific_pairs", "languages": ["zh"], "pairs": ["zh-en"], "blocked": ["en-zh"]}],
        attributes=[{"key": "tier", "values": ["gold"]}],
    )


def _complete_metadata(body: Json) -> Json:
    owner = {"apiVersion": "v1", "kind": "NodePoolGenerator", "name": "g", "uid": "u", "controller": True}
    body["metadata"] |= {
        "annotations": {"hotpool.dev/paused": "false"},
        "finalizers": ["example.org/never"],
        "creationTimestamp": LONG_AGO,
    }
    body["metadata"].setdefault("ownerReferences", [owner])
    body["metadata"].setdefault("labels", {"site": "x"})
    return body


def complete_object(kind: Kind) -> Json:
    """Return an object of a kind in which every field is set, so that each can be replaced."""
    conditions = [condition(lastTransitionTime=LONG_AGO, message="m")]
    match kind:
        case Kind.NODE:
            content = report(
                _complete_service(),
                service("a", "asr", languages=["zh"]),
                service("t", "tts", languages=["en"]),
                leaving=False,
                draining=False,
                intervalSeconds=15,
                summary="3/3",
                platform={"os": "linux", "arch": "amd64", "hostname": "h"},
                hardware={"cpus": 1, "memoryMiB": 1, "gpus": [{"model": "m", "memoryMiB": 1}]},
                dropped=0,
                truncated=0,
            )
            body = node_object("n", content, labels={"site": "x"}, conditions=conditions, drain=True)
            body["spec"]["services"] = [{"id": "s", "desired": "Running", "requestID": "1"}]
            body["status"]["ready"] = "True"
        case Kind.POOL:
            body = pool_object("p", **_complete_spec(), generated={"by": "g", "kind": "LanguagePair", "key": "zh-en"})
            body["status"] = {
                "observedGeneration": 1,
                "members": 1,
                "readyMembers": 1,
                "suspectMembers": 0,
                "drainingMembers": 0,
                "slices": 1,
                "excluded": [{"reason": "Offline", "count": 1}],
                "lastChange": LONG_AGO,
                "conditions": conditions,
                "ready": "True",
            }
        case Kind.SLICE:
            body = slice_object("p", 0, "n", "m")
        case Kind.GENERATOR:
            body = generator_object(
                "g",
                rule={"languagePairs": {"manyToOne": True, "semantic": False}},
                template={"spec": _complete_spec()},
                minNodes=1,
                maxPools=2,
                graceSeconds=0,
            )
            body["status"] = {
                "observedGeneration": 1,
                "pools": 1,
                "notAdmitted": [{"key": "zh-en", "nodes": 1, "reason": "MaxPools"}],
                "notAdmittedCount": 1,
                "conditions": conditions,
                "ready": "True",
            }
    return _complete_metadata(body)


def _complete_spec() -> Json:
    return {
        "mode": "Active",
        "requires": {
            "types": [{"type": "nmt", "attributes": [{"key": "tier", "anyOf": ["gold"], "allOf": ["gold"]}]}],
            "languagePairs": {"allOf": ["zh-en", "*-en"], "semantic": False},
            "nodeSelector": {
                "matchLabels": {"site": "x"},
                "matchExpressions": [{"key": "site", "operator": "In", "values": ["x"]}],
            },
            "matchAll": False,
        },
        "excludeNodes": ["m"],
        "minMembers": 1,
        "sliceSize": 100,
        "brake": {"maxSilentPercent": 30},
    }


_FREE = ("spec", "status", "term", "members")
COMPLETE_OBJECTS = {kind: complete_object(kind) for kind in CUSTOM_KINDS}
_PATHS = {kind: [path for path in paths(COMPLETE_OBJECTS[kind]) if path and path[0] in _FREE] for kind in CUSTOM_KINDS}


def broken(rng: Random, kind: Kind, name: str) -> Json:
    """Return an object with junk at one to three paths, but not in its metadata, which every API server checks."""
    body: Any = copy.deepcopy(COMPLETE_OBJECTS[kind])
    for _ in range(rng.randint(1, 3)):
        body = changed(body, rng.choice(_PATHS[kind]), rng.choice(JUNK))
    owner = {"name": f"p-{name}", "uid": f"uid-p-{name}"}
    references = [{**reference, **owner} for reference in body["metadata"]["ownerReferences"]]
    body["metadata"] |= {"name": name, "uid": f"uid-{name}", "labels": {}, "ownerReferences": references}
    return dict(body)


# Objects within the schema. Some kinds are rare, because they are as large as the API server accepts.


def random_words(rng: Random, count: int, size: int = 12) -> list[str]:
    """Return random words of letters."""
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=size)) for _ in range(count)]


def language_codes(count: int) -> list[str]:
    """Return so many different language codes that pools can name."""
    return ["".join(letters) for letters in itertools.islice(itertools.product("abcdefgh", repeat=3), count)]


def _many_attributes(rng: Random, services: int = 6, values: int = 6) -> Json:
    def attributes() -> list[Json]:
        return [{"key": f"k{number}", "values": random_words(rng, values, 6)} for number in range(32)]

    return report(*(service(f"s{number}", "llm", attributes=attributes()) for number in range(services)))


def _many_languages(rng: Random, languages: int = 24, rules: int = 8, blocked: int = 20) -> Json:
    known = language_codes(languages)
    kinds = ("any_to_any", "any_to_en", "en_to_any", "specific_pairs", "of_the_future")

    def pairs(count: int) -> list[str]:
        return [f"{rng.choice(known)}-{rng.choice(known)}" for _ in range(count)]

    made = [
        {"kind": kinds[n % len(kinds)], "languages": known, "pairs": pairs(blocked), "blocked": pairs(blocked)}
        for n in range(rules)
    ]
    services = [service(type_, type_, languages=known) for type_ in ("asr", "tts", "semantic")]
    return report(*services, service("m", "nmt", rules=made))


def _deep_pairs(rng: Random, pairs: int = 16) -> Json:
    word = "-".join(rng.choices("abcdef", k=31))
    rule = {"kind": "specific_pairs", "pairs": [word] * pairs, "blocked": [word] * pairs}
    return report(service("m", "nmt", rules=[rule] * 8))


def _odd_words(rng: Random) -> Json:
    odd = [service(rng.choice(TEXTS)[:63], rng.choice(TEXTS)[:63], model=rng.choice(TEXTS)) for _ in range(8)]
    values = [{"key": text[:63], "values": list(TEXTS)} for text in TEXTS]
    return report(*odd, service("q", "llm", attributes=values, languages=[text[:63] for text in TEXTS]))


def _contradiction(rng: Random) -> Json:
    content = report(service("q", "llm"), service("q", "llm", state="Failed"), service("x", "asr"))
    capabilities = [
        {"type": "llm", "ready": True, "services": ["q"]},
        {"type": "llm", "ready": False, "reason": rng.choice(TEXTS)[:63], "services": ["absent"] * 50},
        {"type": "asr", "ready": True, "services": []},
        *({"type": f"t{number}", "ready": True, "services": []} for number in range(200)),
    ]
    rng.shuffle(capabilities)
    return {**content, "capabilities": capabilities}


def _odd_numbers(rng: Random) -> Json:
    return report(
        service("q", "llm", pid=2**31 - 1, restarts=2**31 - 1, since=rng.choice(("", "yesterday", LONG_AGO, FAR))),
        epoch=rng.choice((0, 1, LARGEST)),
        sequence=rng.choice((0, LARGEST)),
        intervalSeconds=rng.choice((1, 120)),
        time=rng.choice(("", "yesterday", LONG_AGO, FAR, "2026-02-30T99:99:99Z")),
        instance=rng.choice(TEXTS)[:63],
        session=rng.choice(TEXTS)[:63],
        leaving=rng.random() < 0.5,
        draining=rng.random() < 0.5,
        schemaVersion=2**31 - 1,
    )


_REPORTS: tuple[Callable[[Random], Json], ...] = (
    _many_attributes,
    _many_languages,
    _deep_pairs,
    _odd_words,
    _contradiction,
    _odd_numbers,
    _odd_numbers,
    _odd_numbers,
)


def foreign_conditions(rng: Random, count: int) -> list[Json]:
    """Return conditions of another writer, with the operator's types among them."""
    ours = [condition(type_, "Unknown", "Offline", lastTransitionTime=FAR) for type_ in ("Ready", "Draining")]
    times = (LONG_AGO, FAR, "2026-11-23T20:00:00+14:00")
    others = [
        condition(
            f"example.org/Type{number}", "False", "Because", lastTransitionTime=rng.choice(times), message="ﷺ" * 99
        )
        for number in range(count)
    ]
    return [*others, *ours][:count]


def valid_node(rng: Random, name: str) -> Json:
    """Return a NodeCapability that the schema accepts."""
    make = rng.choice(_REPORTS)
    content = make(rng) if rng.random() < 0.9 else None
    conditions = foreign_conditions(rng, rng.choice((0, 2, MAX_CONDITIONS - 2)))
    labels = {"x" * 63: "", "example.org/" + "y" * 63: "z" * 63} if rng.random() < 0.3 else {}
    body = node_object(name, content, conditions=conditions, labels=labels, drain=rng.random() < 0.1)
    body["spec"]["services"] = [{"id": f"s{n}", "desired": "Stopped"} for n in range(rng.choice((0, 50)))]
    _owned(rng, body)
    return body


def _owned(rng: Random, body: Json) -> None:
    """Set owners that do not exist, the object itself, or many; or an invalid pause annotation."""
    kinds = ("NodePool", "NodePoolGenerator", "Deployment")
    owners = [
        {"apiVersion": "example.org/v1", "kind": rng.choice(kinds), "name": f"o{number}", "uid": f"uid-o{number}"}
        for number in range(rng.choice((0, 0, 1, 5)))
    ]
    if rng.random() < 0.1:
        owners.append({"apiVersion": "v1", "kind": body["kind"], "name": body["metadata"]["name"], "uid": "uid-self"})
    body["metadata"]["ownerReferences"] = owners
    body["metadata"]["annotations"] = {"hotpool.dev/paused": rng.choice(("True", "yes", "1", "", "false"))}


def _contradicting_selector(rng: Random) -> Json:
    values = random_words(rng, 64)
    expressions = [
        {"key": "site", "operator": "In", "values": values},
        {"key": "site", "operator": "NotIn", "values": values},
        {"key": "zone", "operator": "Exists"},
        {"key": "zone", "operator": "DoesNotExist"},
        *({"key": f"k{number}", "operator": "NotIn", "values": values} for number in range(28)),
    ]
    rng.shuffle(expressions)
    return {"nodeSelector": {"matchExpressions": expressions, "matchLabels": {"site": "nowhere"}}, "matchAll": True}


def _contradicting_types(rng: Random) -> Json:
    wanted = [
        {"key": f"k{number}", "anyOf": random_words(rng, 8), "allOf": random_words(rng, 8)} for number in range(16)
    ]
    return {"types": [{"type": "llm", "attributes": wanted}, *({"type": word} for word in random_words(rng, 31))]}


def _long_keys(rng: Random) -> Json:
    """A schema cannot bound the keys of a map."""
    return {"nodeSelector": {"matchLabels": {"k" * rng.choice((318, 5000)): "v"}}}


def _many_pairs(rng: Random) -> Json:
    known = language_codes(512)
    pairs = {f"{rng.choice((*known, '*'))}-{rng.choice(known)}" for _ in range(63)} | {"zh-zh"}
    return {"languagePairs": {"allOf": sorted(pairs), "semantic": rng.random() < 0.5}}


_REQUIRED: tuple[Callable[[Random], Json], ...] = (
    _contradicting_selector,
    _contradicting_types,
    _long_keys,
    _many_pairs,
    lambda _: {},
    lambda _: {"matchAll": True},
    lambda _: {"types": [{"type": "xn--80ak6aa92e"}]},
)


def valid_pool(rng: Random, name: str) -> Json:
    """Return a NodePool that the schema accepts."""
    body = pool_object(
        name,
        requires=rng.choice(_REQUIRED)(rng),
        mode=rng.choice(("Active", "DryRun")),
        minMembers=rng.choice((0, 1, 1_000_000)),
        sliceSize=rng.choice((7, 100)),
        brake={"maxSilentPercent": rng.choice((0, 100))},
        excludeNodes=[f"{word}.example" for word in random_words(rng, rng.choice((0, 100)))],
    )
    if rng.random() < 0.2:
        key = rng.choice(("zh-en", "*", "", "ﷺ"))
        body["spec"]["generated"] = {"by": rng.choice(("absent", "g")), "kind": "LanguagePair", "key": key}
    if rng.random() < 0.3:
        body["status"] = {"conditions": foreign_conditions(rng, MAX_CONDITIONS), "members": 2**31 - 1, "ready": "True"}
    _owned(rng, body)
    return body


_RULES: tuple[Json, ...] = (
    {"languagePairs": {"manyToOne": True}},
    {"languagePairs": {"semantic": True}},
    {"languageSets": {"minLanguages": 2, "maxLanguages": 8}},
    {"languageSets": {"minLanguages": 8, "maxLanguages": 8}},
    {"attributeValues": {"type": "llm", "key": "k1"}},
    {"attributeValues": {"type": "llm", "key": "NaN"}},
    {"hash": {"count": 1024, "seed": "\u202eabc"}},
    {"hash": {"count": 1}},
)


def valid_generator(rng: Random, name: str) -> Json:
    """Return a NodePoolGenerator that the schema accepts; its pools would be many, or never have members."""
    body = generator_object(
        name,
        rule=rng.choice(_RULES),
        template={"spec": {"requires": rng.choice(_REQUIRED)(rng), "sliceSize": 1}},
        minNodes=rng.choice((1, 2, 1_000_000)),
        maxPools=rng.choice((1, 3)),
        graceSeconds=rng.choice((0, 7 * 24 * 3600)),
    )
    if rng.random() < 0.3:
        body["status"] = {"conditions": foreign_conditions(rng, MAX_CONDITIONS), "pools": 2**31 - 1, "ready": "Unknown"}
    _owned(rng, body)
    return body


def report_with_many_language_sets(count: int) -> Json:
    """Return a report in which each language pairs with all but two others: 3^(count / 3) maximal sets."""
    known = language_codes(count)
    blocked = [f"{a}-{b}" for n, a in enumerate(known) for m, b in enumerate(known) if a != b and n // 3 == m // 3]
    services = [service(type_, type_, languages=known) for type_ in ("asr", "tts")]
    return report(
        *services, service("m", "nmt", rules=[{"kind": "any_to_any", "languages": known, "blocked": blocked}])
    )


def valid_slice(rng: Random, name: str, pool: str) -> Json:
    """Return a NodePoolSlice that refers to a pool by label or owner, full of unknown nodes."""
    members = [
        {"node": word, "state": "Ready", "since": rng.choice((LONG_AGO, FAR, ""))} for word in random_words(rng, 100)
    ]
    body = slice_object(pool, 0, name=name, members=members, term=rng.choice((0, 1, 2**31, LARGEST)))
    if rng.random() < 0.5:
        body["metadata"]["ownerReferences"] = []
    elif rng.random() < 0.5:
        body["metadata"]["labels"] = {}
    return body


def largest_objects() -> Iterator[tuple[str, Kind, Json]]:
    """Yield objects as large as the API server stores, or as the schema allows: name, kind and object."""
    rng = Random(0)  # noqa: S311 - examples, no secret.
    yield "attributes", Kind.NODE, node_object("huge-0", _many_attributes(rng, services=120, values=24))
    yield "services", Kind.NODE, node_object("huge-1", report(*(service(f"s{n}", "llm") for n in range(1000))))
    yield "languages", Kind.NODE, node_object("huge-2", _many_languages(rng, languages=512, rules=32, blocked=1000))
    yield "pairs of many parts", Kind.NODE, node_object("huge-3", _deep_pairs(rng, pairs=1400))
    wrong = [service(f"s{n}", "llm", attributes=[{"key": n, "values": [n] * 200}]) for n in range(1000)]
    yield "numbers for words", Kind.NODE, node_object("huge-4", report(*wrong))
    yield "types", Kind.NODE, node_object("huge-5", _types(256, 40))
    body = node_object("huge-6")
    body["metadata"]["annotations"] = {"a": "x" * 262_000}
    yield "annotation", Kind.NODE, body
    attributes = [{"key": f"k{n}", "anyOf": random_words(rng, 64), "allOf": random_words(rng, 64)} for n in range(16)]
    types = [{"type": f"t{n}", "attributes": attributes} for n in range(32)]
    yield "requirements", Kind.POOL, pool_object("huge-7", requires={"types": types})
    wrong_pool = pool_object("huge-8", requires={"types": [{"type": n} for n in range(20_000)]})
    yield "numbers for types", Kind.POOL, wrong_pool
    members = [{"node": f"n{n}", "state": "Ready", "since": "t"} for n in range(20_000)]
    yield "members", Kind.SLICE, slice_object("huge", 0, members=members)


def _types(types: int, services: int) -> Json:
    content = report(*(service(f"s{n}", f"t{n % types}") for n in range(1000)))
    names = [f"s{n}" for n in range(services)]
    capabilities = [{"type": f"t{n}", "ready": True, "services": names} for n in range(types)]
    return {**content, "capabilities": capabilities}
