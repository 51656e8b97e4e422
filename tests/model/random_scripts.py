"""Random scripts from a seed: fleets, pools, generators, people, silences, faults, restarts and failovers.

Names come from small fixed lists, so that any part of a script can still run. Each seed has a theme, which sets the
weights of the actions.
"""

import random
from typing import TYPE_CHECKING, Any

from tests.model.endpoint_scripts import with_endpoints
from tests.model.hardware_scripts import with_hardware
from tests.model.kube_nodes import OFF_TAINTS
from tests.model.service_scripts import with_services
from tests.support.builders import generator_object, pool_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json = dict[str, Any]
Step = tuple[Any, ...]

LANGUAGES = ("zh", "en", "ja", "de")
POOLS = tuple(f"p{number}" for number in range(5))
GENERATORS = ("g0", "g1")
SLICE_EDITS = ("empty", "stranger", "twice", "owner", "label", "delete")
GENERATED = ("pairs", "to-one", "semantic", "sets", "values", "models", "hash")
"""Rules of generators in scripts."""
_DRAIN_SHARE = 0.08
"""Drains and undrains by agents, per other step."""
_KUBE_SHARE = 0.2
"""Changes of v1 Nodes, per other step of a script with v1 Nodes."""
THEMES: dict[str, dict[str, int]] = {
    "all": {"agents": 6, "silence": 4, "people": 5, "generators": 3, "faults": 2, "operators": 2},
    "silence": {"agents": 2, "silence": 9, "people": 2, "generators": 0, "faults": 1, "operators": 2},
    "generators": {"agents": 6, "silence": 2, "people": 1, "generators": 7, "faults": 1, "operators": 1},
    "slices": {"agents": 9, "silence": 2, "people": 5, "generators": 0, "faults": 2, "operators": 1},
    "operators": {"agents": 3, "silence": 4, "people": 2, "generators": 2, "faults": 3, "operators": 5},
}


class ScriptBuilder:
    """Builds the script of a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 - a fixed script, no secret
        self.theme = self.rng.choice(list(THEMES))
        many = {"slices": (8, 25), "silence": (3, 14)}.get(self.theme, (3, 9))
        self.nodes = [f"n{number}" for number in range(self.rng.randint(*many))]
        self.interval = self.rng.choice([5, 10, 15, 30, 0])
        self.steps: list[Step] = []

    def build(self, length: int) -> list[Step]:
        """Return a script of at least `length` steps."""
        for name in self.rng.sample(POOLS, self.rng.randint(1, 4)):
            self.steps.append(("put", self._pool(name)))
        for name in self.nodes:
            interval = self.interval or self.rng.choice([5, 10, 15, 30])
            self.steps.append(("node", name, interval, self._services()))
        if self.theme in {"generators", "all"}:
            self.steps.append(("put", self._generator("g0")))
        self.steps.append(("pass", 3))
        verbs: dict[str, Callable[[], None]] = {name: getattr(self, f"_{name}") for name in THEMES["all"]}
        weights = [THEMES[self.theme][name] for name in verbs]
        while len(self.steps) < length:
            for _ in range(self.rng.choice([1, 1, 1, 2, 4])):
                self.rng.choices(list(verbs.values()), weights)[0]()
            self.steps.append(("pass", self.rng.choice([1, 1, 1, 2, 3, 6, 13])))
        steps = with_endpoints(self._with_kube_nodes(list(self._with_drains())), self.seed, self.nodes)
        return list(with_services(with_hardware(steps, self.seed, self.nodes), self.seed))

    def _with_drains(self) -> "Iterator[Step]":
        """Yield the steps, with drains by agents between them. The other steps of a seed do not depend on them."""
        for step in self.steps:
            if self.rng.random() < _DRAIN_SHARE:
                yield ("drain", self.rng.choice(self.nodes), self.rng.random() < 0.6)
            yield step

    def _with_kube_nodes(self, steps: list[Step]) -> "Iterator[Step]":
        """Yield the steps, in two of three scripts with changes of v1 Nodes between them, from a seed of their own."""
        rng = random.Random(f"{self.seed} kube")  # noqa: S311 - a fixed script, no secret
        share = _KUBE_SHARE if rng.random() < 0.67 else 0.0
        for step in steps:
            while rng.random() < share:
                yield from self._kube_change(rng)
            yield step

    def _kube_change(self, rng: random.Random) -> list[Step]:
        """Return changes of v1 Nodes: of one, or of a zone at once; kubelets, controllers and people change all."""
        some = rng.sample(self.nodes, max(1, int(len(self.nodes) * rng.choice([0, 0, 0, 0, 0.6]))))
        match rng.choice(["healthy", "healthy", "ready", "ready", "ready", "off", "taints", "cordon", "gone"]):
            case "healthy":
                state: Json = {"ready": rng.choice(["True", "True", None])}
            case "ready":
                state = {"ready": rng.choice(["False", "Unknown", "Unknown"]), "message": "not ready"}
            case "off":
                off = [("kube", name, {"ready": "False", "message": "[a, node is shutting down]"}) for name in some]
                then = [("kube", name, {"ready": rng.choice(["Unknown", "Unknown", "False"])}) for name in some]
                return [*off, ("pass", rng.choice([1, 2, 6])), *(then if rng.random() < 0.7 else ())]
            case "taints":
                keys = rng.sample([*OFF_TAINTS, "node.kubernetes.io/unreachable"], 1)
                state = {"ready": rng.choice(["True", "Unknown"]), "taints": keys}
            case "cordon":
                state = {"ready": rng.choice(["True", "False"]), "cordoned": True}
            case _:
                return [("delete", "nodes", name) for name in some]
        labels = {"labels": {"site": rng.choice("ab")}} if rng.random() < 0.3 else {}
        return [("kube", name, {**state, **labels}) for name in some]

    def _add(self, *step: Any) -> None:
        self.steps.append(step)

    # Agents.

    def _agents(self) -> None:
        name, rng = self.rng.choice(self.nodes), self.rng
        match rng.choices(["report", "epoch", "leave", "resume", "stray", "repeat"], [12, 1, 1, 2, 1, 1])[0]:
            case "report":
                refused = rng.choices([[], [rng.choice(["asr", "llm", "tts"])]], [12, 1])[0]
                self._add("report", name, self._services(), refused)
            case "stray":
                self._add("stray", name, rng.choice([0, 1, 99]))
            case verb:
                self._add(verb, name)

    def _services(self) -> list[Json]:
        rng = self.rng
        kinds = [k for k in ("asr", "nmt", "tts") if rng.random() < 0.85]
        kinds += [k for k in ("semantic", "llm", "asr") if rng.random() < 0.35]
        return [self._service(f"{kind}{number}", kind) for number, kind in enumerate(kinds)]

    def _service(self, id_: str, kind: str) -> Json:
        rng = self.rng
        body: Json = {"id": id_, "type": kind}
        body["state"] = rng.choices(["Running", "Stopped", "Starting", "Failed"], [14, 1, 1, 1])[0]
        if kind in {"asr", "tts", "semantic"}:
            body["languages"] = rng.sample([*LANGUAGES, "auto", "zh-CN", "en-us"], rng.randint(1, 5))
        if kind == "nmt":
            body["rules"] = [self._rule() for _ in range(rng.randint(1, 2))]
        if kind == "llm":
            body["model"] = rng.choice(["small", "large"])
            models = rng.sample(["m1", "m2", "m3"], rng.randint(1, 2))
            body["attributes"] = [{"key": "models", "values": models}]
        if rng.random() < 0.3:
            tier = {"key": "tier", "values": rng.sample(["gold", "silver", "iron"], rng.randint(1, 2))}
            body["attributes"] = [*body.get("attributes", []), tier]
        return body

    def _rule(self) -> Json:
        rng = self.rng
        kind = rng.choices(["any_to_any", "any_to_en", "en_to_any", "specific_pairs"], [5, 1, 1, 1])[0]
        rule: Json = {"kind": kind, "languages": rng.sample(LANGUAGES, rng.randint(2, 4))}
        if kind == "specific_pairs":
            rule["pairs"] = [self._pair() for _ in range(3)]
        if rng.random() < 0.4:
            rule["blocked"] = [self._pair() for _ in range(3)]
        return rule

    def _pair(self) -> str:
        return "-".join(self.rng.sample(LANGUAGES, 2))

    # Silence.

    def _silence(self) -> None:
        rng = self.rng
        some = rng.sample(self.nodes, max(1, int(len(self.nodes) * rng.choice([0, 0, 0.3, 0.6, 1]))))
        self._add(rng.choices(["silence", "resume"], [3, 2])[0], *some)
        if rng.random() < 0.1:
            self._add("pass", rng.choice([40, 130]))

    # People.

    def _people(self) -> None:
        rng, name = self.rng, self.rng.choice(POOLS)
        match rng.choice(
            ["put", "put", "edit", "edit", "delete", "again", "node", "node", "node", "slice", "slice", "gone"]
        ):
            case "put":
                self._add("put", self._pool(name))
            case "edit":
                self._add("edit", "nodepools", name, self._pool_change())
            case "delete":
                self._add("delete", "nodepools", name)
            case "again":
                self._add("delete", "nodepools", name)
                self._add("put", self._pool(name))
            case "slice":
                self._add("slice", rng.randint(0, 50), rng.choice(SLICE_EDITS))
            case "gone":
                self._add("delete", "nodecapabilities", rng.choice(self.nodes))
            case _:
                self._add("edit", "nodecapabilities", rng.choice(self.nodes), self._node_change())

    def _node_change(self) -> Json:
        rng = self.rng
        return rng.choice(
            [
                {"spec": {"drain": True}},
                {"spec": {"drain": None}},
                {"metadata": {"labels": {"site": rng.choice(["a", "b", None])}}},
                {"metadata": {"annotations": {"agent.hotpool.dev/note": str(rng.random())}}},
            ]
        )

    def _pool_change(self) -> Json:
        rng = self.rng
        return rng.choice(
            [
                {"spec": {"requires": None}},
                {"spec": {"requires": None, "mode": "Active"}},
                {"spec": {"requires": {**dict.fromkeys(("types", "languagePairs", "matchAll")), **self._requires()}}},
                {"spec": {"requires": {**dict.fromkeys(("types", "languagePairs", "matchAll")), **self._requires()}}},
                {"spec": {"excludeNodes": rng.sample(self.nodes, rng.randint(0, 2))}},
                {"spec": {"mode": "DryRun"}},
                {"spec": {"mode": "Active"}},
                {"spec": {"mode": "Active"}},
                {"spec": {"minMembers": rng.randint(0, 4)}},
                {"spec": {"brake": {"maxSilentPercent": rng.choice([0, 30, 50, 100])}}},
                {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}},
                {"metadata": {"annotations": {"hotpool.dev/paused": None}}},
                {"metadata": {"annotations": {"hotpool.dev/paused": None}}},
            ]
        )

    def _pool(self, name: str) -> Json:
        rng = self.rng
        spec: Json = {"requires": self._requires(), "sliceSize": rng.choice([1, 2, 3, 4, 5, 8, 100])}
        if rng.random() < 0.3:
            spec["brake"] = {"maxSilentPercent": rng.choice([0, 10, 50, 100])}
        if rng.random() < 0.1:
            spec["mode"] = "DryRun"
        if rng.random() < 0.2:
            spec["excludeNodes"] = rng.sample(self.nodes, 1)
        return pool_object(name, **spec)

    def _requires(self) -> Json:
        rng = self.rng
        needs: Json = {}
        match rng.choices(["all", "empty", "types", "pairs", "labels", "both"], [4, 1, 5, 4, 1, 2])[0]:
            case "all":
                needs["matchAll"] = True
            case "types":
                needs["types"] = self._types()
            case "pairs":
                needs["languagePairs"] = self._pairs()
            case "labels":
                needs["nodeSelector"] = self._selector()
            case "both":
                needs |= {"types": self._types(), "languagePairs": self._pairs()}
        return needs

    def _types(self) -> list[Json]:
        rng = self.rng
        found: list[Json] = []
        for kind in rng.sample(["asr", "tts", "llm", "semantic", "nmt"], rng.randint(1, 2)):
            need: Json = {"type": kind if rng.random() > 0.04 else "zzz"}
            if rng.random() < 0.35:
                need["attributes"] = [self._attribute(kind)]
                if rng.random() < 0.3:
                    need["attributes"].append({"key": "tier", "anyOf": ["gold", "silver"]})
            found.append(need)
        return found

    def _attribute(self, kind: str) -> Json:
        rng = self.rng
        key = rng.choice(["models", "model"]) if kind == "llm" else "languages"
        known = {"models": ["m1", "m2", "m3"], "model": ["small", "large"], "languages": list(LANGUAGES)}[key]
        need: Json = {"key": key}
        quantifier = rng.choice(["anyOf", "allOf"])
        need[quantifier] = rng.sample(known, rng.randint(1, 2))
        return need

    def _pairs(self) -> Json:
        rng = self.rng
        some = [self._pair() for _ in range(rng.choice([1, 1, 2]))]
        if rng.random() < 0.3:
            some = [f"*-{rng.choice(LANGUAGES)}", *some[1:]]
        return {"allOf": sorted(set(some)), "semantic": rng.random() < 0.25}

    def _selector(self) -> Json:
        rng = self.rng
        operator = rng.choice(["In", "NotIn", "Exists", "DoesNotExist"])
        expression: Json = {"key": "site", "operator": operator}
        if operator in {"In", "NotIn"}:
            expression["values"] = [rng.choice(["a", "b"])]
        return rng.choice([{"matchLabels": {"site": "a"}}, {"matchExpressions": [expression]}])

    # Generators.

    def _generators(self) -> None:
        rng, name = self.rng, self.rng.choice(GENERATORS)
        match rng.choice(["put", "put", "put", "edit", "edit", "delete", "hand", "hand", "pause", "resume", "resume"]):
            case "put":
                self._add("put", self._generator(name))
            case "delete":
                self._add("delete", "nodepoolgenerators", name)
            case "hand":
                self._add("generated", rng.randint(0, 50), rng.choice(["edit", "delete"]))
            case "pause":
                self._add("edit", "nodepoolgenerators", name, _pause("true"))
            case "resume":
                self._add("edit", "nodepoolgenerators", name, _pause(None))
            case _:
                limits = [{"minNodes": rng.randint(1, 3)}, {"maxPools": rng.randint(1, 8)}, {"graceSeconds": 30}]
                self._add("edit", "nodepoolgenerators", name, {"spec": rng.choice(limits)})

    def _generator(self, name: str) -> Json:
        rng = self.rng
        rules: dict[str, Json] = {
            "pairs": {"languagePairs": {}},
            "to-one": {"languagePairs": {"manyToOne": True}},
            "semantic": {"languagePairs": {"semantic": True, "manyToOne": rng.random() < 0.5}},
            "sets": {"languageSets": {"minLanguages": 2, "maxLanguages": rng.choice([2, 3, 4])}},
            "values": {"attributeValues": {"type": "llm", "key": "models"}},
            "models": {"attributeValues": {"type": "llm", "key": "model"}},
            "hash": {"hash": {"count": rng.choice([1, 2, 5]), "seed": rng.choice(["", "speech"])}},
        }
        rule = rules[rng.choice(GENERATED)]
        template: Json = {"sliceSize": rng.choice([2, 100])}
        if rng.random() < 0.4:
            template["requires"] = {"types": [{"type": rng.choice(["asr", "tts"])}]}
        grace, most, least = rng.choice([0, 20, 60, 600]), rng.choice([2, 5, 200]), rng.choice([1, 1, 2, 3])
        limits: Json = {"graceSeconds": grace, "maxPools": most, "minNodes": least}
        return generator_object(name, rule=rule, template={"spec": template}, **limits)

    # Faults.

    def _faults(self) -> None:
        rng = self.rng
        match rng.choice(["writes", "redis", "flush", "drop_events", "freeze", "disconnect", "slow"]):
            case "writes":
                kinds = ["unreachable", "writes", "slices", "conflicts", "nodes", "statuses", "pools"]
                self._between(("fault", rng.choice(kinds)), ("heal",), [1, 3, 10])
            case "redis":
                self._between(("redis", "down"), ("redis", "up"), [1, 3, 10])
            case "flush":
                self._add("flush")
            case "slow":
                self._between(("slow", rng.choice([0.005, 0.05])), ("slow", 0.0), [2, 5])
            case "drop_events":
                self._between(("drop_events",), ("relist",), [1, 2])
            case "freeze":
                self._between(("freeze",), ("open",), [1, 2, 5, 15])
            case _:
                self._between(("disconnect",), ("open",), [1, 3, 10, 30, 130])

    def _between(self, first: Step, last: Step, cells: list[int]) -> None:
        """Add a fault of so many cells, with other actions in them."""
        self.steps.append(first)
        left = self.rng.choice(cells)
        while left > 0:
            for _ in range(self.rng.choice([0, 1, 2])):
                self.rng.choice([self._agents, self._people, self._silence])()
            some = min(left, self.rng.choice([1, 2, 5, 30]))
            self._add("pass", some)
            left -= some
        self.steps.append(last)

    def _operators(self) -> None:
        rng = self.rng
        if rng.random() < 0.5:
            self._add("standby")
            self._add("pass", rng.choice([1, 3, 20]))
        self._between(("stop",), ("start",), rng.choice([[0], [1, 2], [2, 5, 20, 130]]))


def _pause(value: str | None) -> Json:
    return {"metadata": {"annotations": {"hotpool.dev/paused": value}}}


def random_script(seed: int, length: int = 60) -> list[Step]:
    """Return the script of a seed."""
    return ScriptBuilder(seed).build(length)
