"""Generated pools on a real API server: created, filled, repaired after edits by hand, deleted (requirement D5)."""

from typing import Any

import pytest
import yaml
from tests.support.fleet_objects import BOTH, published

from hotpool.common.hashing import slot
from hotpool.core.generators.admission import pool_name
from localfleet.catalogue import translator
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY
from localfleet.process import wait_for

GRACE_SECONDS = 3
ZH_EN, EN_ZH, ANY_EN, ANY_ZH = (pool_name("speech", key) for key in ("zh-en", "en-zh", "*-en", "*-zh"))


def pool_names(fleet: Fleet) -> set[str]:
    return {item["metadata"]["name"] for item in fleet.list("nodepools")}


def status(fleet: Fleet) -> dict[str, Any]:
    found = fleet.get("nodepoolgenerators", "speech")
    return dict(found.get("status") or {}) if found else {}


@pytest.fixture
def translating(fleet: Fleet) -> Fleet:
    """Two nodes that translate zh and en, and the generator of the samples with a short grace time."""
    generator = yaml.safe_load((REPOSITORY / "crds" / "samples" / "generator.yaml").read_text())
    generator["spec"]["graceSeconds"] = GRACE_SECONDS
    fleet.apply(generator)
    fleet.start_operator()
    for node in BOTH:
        fleet.start_agent(node, translator(["zh", "en"]), debounce=0.2)
    fleet.wait_leading()
    for name in (ZH_EN, EN_ZH, ANY_EN, ANY_ZH):
        wait_for(f"both nodes are in {name}", lambda name=name: published(fleet, name, BOTH), 60)  # type: ignore[misc]
    return fleet


def test_there_is_one_pool_for_each_pair_and_each_target(translating: Fleet) -> None:
    assert pool_names(translating) == {ZH_EN, EN_ZH, ANY_EN, ANY_ZH}
    wait_for("its status", lambda: (status(translating).get("pools"), status(translating).get("ready")) == (4, "True"))


def test_a_generated_pool_edited_or_deleted_by_hand_is_restored(translating: Fleet) -> None:
    wanted = translating.get("nodepools", ZH_EN)
    assert wanted
    translating.kubectl("patch", "nodepool", ZH_EN, "--type=merge", "-p", '{"spec":{"minMembers":9,"generated":null}}')
    wait_for("its spec again", lambda: (translating.get("nodepools", ZH_EN) or {})["spec"] == wanted["spec"])
    translating.kubectl("delete", "nodepool", ZH_EN)
    wait_for("filled again", lambda: published(translating, ZH_EN, BOTH))
    recreated = translating.get("nodepools", ZH_EN)
    assert recreated
    assert recreated["metadata"]["uid"] != wanted["metadata"]["uid"]
    assert recreated["spec"] == wanted["spec"]
    assert pool_names(translating) == {ZH_EN, EN_ZH, ANY_EN, ANY_ZH}


def test_an_empty_pool_is_deleted_after_the_grace_time_and_the_rest_with_the_generator(translating: Fleet) -> None:
    translating.agent("edge-1", "stop", "piper")
    wait_for("one node left", lambda: published(translating, ZH_EN, {"edge-2": "Ready"}))
    assert pool_names(translating) == {ZH_EN, EN_ZH, ANY_EN, ANY_ZH}
    translating.agent("edge-2", "stop", "piper")
    wait_for("empty", lambda: published(translating, ZH_EN, {}))
    wait_for("removed", lambda: pool_names(translating) == set(), GRACE_SECONDS + 20)
    wait_for("not in Redis either", lambda: translating.members_in_redis(ZH_EN) == {})
    translating.agent("edge-2", "start", "piper")
    wait_for("created again", lambda: published(translating, ZH_EN, {"edge-2": "Ready"}))
    translating.kubectl("delete", "nodepoolgenerator", "speech")
    wait_for("deleted with its owner", lambda: pool_names(translating) == set())
    wait_for("slices too", lambda: translating.list("nodepoolslices") == [])
    wait_for("deleted from Redis", lambda: translating.members_in_redis(ZH_EN) == {})


def generator(name: str, rule: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = {"rule": rule, "graceSeconds": GRACE_SECONDS, **more}
    return {
        "apiVersion": "hotpool.dev/v1alpha1",
        "kind": "NodePoolGenerator",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_generators_of_language_sets_attribute_values_and_hash_slots_fill_their_pools(translating: Fleet) -> None:
    translating.apply(generator("sets", {"languageSets": {}}))
    translating.apply(generator("spoken", {"attributeValues": {"type": "asr", "key": "languages"}}))
    translating.apply(generator("part", {"hash": {"count": 2, "seed": "s"}}))
    everyone = [pool_name("sets", "en+zh"), pool_name("spoken", "zh"), pool_name("spoken", "en")]
    for name in everyone:
        wait_for(f"both nodes are in {name}", lambda name=name: published(translating, name, BOTH), 60)  # type: ignore[misc]
    inside = {node: pool_name("part", str(slot(node, "s", 2))) for node in BOTH}
    wait_for(
        "each node is in its hash pool",
        lambda: all(node in (translating.members_in_redis(name) or {}) for node, name in inside.items()),
        60,
    )
    wait_for(
        "no other pools", lambda: pool_names(translating) == {ZH_EN, EN_ZH, ANY_EN, ANY_ZH, *everyone, *inside.values()}
    )


def test_a_changed_rule_keeps_the_former_pools_for_the_grace_time(translating: Fleet) -> None:
    translating.apply(generator("speech", {"languageSets": {}}))
    name = pool_name("speech", "en+zh")
    wait_for("the new pool is filled", lambda: published(translating, name, BOTH), 60)
    wait_for("the former ones are deleted", lambda: pool_names(translating) == {name}, GRACE_SECONDS + 60)


def test_a_hand_made_pool_with_a_generated_name_is_not_changed(translating: Fleet) -> None:
    name = pool_name("spoken", "zh")
    foreign = {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": name}}
    translating.apply({**foreign, "spec": {"minMembers": 7, "requires": {"types": [{"type": "llm"}]}}})
    translating.apply(generator("spoken", {"attributeValues": {"type": "asr", "key": "languages"}}))
    translating.kubectl("wait", "--for=condition=NameTaken", "nodepoolgenerator/spoken", "--timeout=60s")
    found = translating.get("nodepools", name)
    assert found
    assert found["spec"]["minMembers"] == 7
    assert "ownerReferences" not in found["metadata"]


@pytest.mark.parametrize(
    "rule",
    [
        {"languageSets": {"minLanguages": 4, "maxLanguages": 3}},
        {"languageSets": {"maxLanguages": 9}},
        {"languageSets": {}, "hash": {"count": 2}},
        {"hash": {"count": 1025}},
        {"attributeValues": {"type": "UPPER", "key": "x"}},
        {},
    ],
)
def test_the_api_server_refuses_an_invalid_rule(fleet: Fleet, rule: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError):
        fleet.apply(generator("bad", rule))


def test_the_api_server_refuses_a_hash_index_beyond_the_count(fleet: Fleet) -> None:
    pool = {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": "bad"}}
    with pytest.raises(RuntimeError):
        fleet.apply({**pool, "spec": {"requires": {"hash": {"count": 2, "index": 2}}}})
    fleet.apply({**pool, "spec": {"requires": {"hash": {"count": 2, "index": 1}}}})
