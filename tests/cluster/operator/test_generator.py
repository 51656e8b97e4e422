"""Pools made by rule, on the real API server: made, filled, put right after edits by hand, removed (requirement D5)."""

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


def made(fleet: Fleet) -> set[str]:
    return {item["metadata"]["name"] for item in fleet.list("nodepools")}


def said(fleet: Fleet) -> dict[str, Any]:
    found = fleet.get("nodepoolgenerators", "speech")
    return dict(found.get("status") or {}) if found else {}


@pytest.fixture
def speaking(fleet: Fleet) -> Fleet:
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


def test_a_pool_for_each_pair_and_target_and_nothing_more(speaking: Fleet) -> None:
    assert made(speaking) == {ZH_EN, EN_ZH, ANY_EN, ANY_ZH}
    wait_for("its own account of it", lambda: (said(speaking).get("pools"), said(speaking).get("ready")) == (4, "True"))


def test_a_generated_pool_that_was_edited_or_deleted_by_hand_comes_back(speaking: Fleet) -> None:
    wanted = speaking.get("nodepools", ZH_EN)
    assert wanted
    speaking.kubectl("patch", "nodepool", ZH_EN, "--type=merge", "-p", '{"spec":{"minMembers":9,"generated":null}}')
    wait_for("its spec again", lambda: (speaking.get("nodepools", ZH_EN) or {})["spec"] == wanted["spec"])
    speaking.kubectl("delete", "nodepool", ZH_EN)
    wait_for("filled again", lambda: published(speaking, ZH_EN, BOTH))
    again = speaking.get("nodepools", ZH_EN)
    assert again
    assert again["metadata"]["uid"] != wanted["metadata"]["uid"]
    assert again["spec"] == wanted["spec"]
    assert made(speaking) == {ZH_EN, EN_ZH, ANY_EN, ANY_ZH}


def test_a_pool_that_nobody_fills_goes_after_the_grace_time_and_the_rest_with_the_generator(speaking: Fleet) -> None:
    speaking.agent("edge-1", "stop", "piper")
    wait_for("one node left", lambda: published(speaking, ZH_EN, {"edge-2": "Ready"}))
    assert made(speaking) == {ZH_EN, EN_ZH, ANY_EN, ANY_ZH}
    speaking.agent("edge-2", "stop", "piper")
    wait_for("empty", lambda: published(speaking, ZH_EN, {}))
    wait_for("removed", lambda: made(speaking) == set(), GRACE_SECONDS + 20)
    wait_for("not in Redis either", lambda: speaking.members_in_redis(ZH_EN) == {})
    speaking.agent("edge-2", "start", "piper")
    wait_for("made again", lambda: published(speaking, ZH_EN, {"edge-2": "Ready"}))
    speaking.kubectl("delete", "nodepoolgenerator", "speech")
    wait_for("gone with its owner", lambda: made(speaking) == set())
    wait_for("slices too", lambda: speaking.list("nodepoolslices") == [])
    wait_for("gone from Redis", lambda: speaking.members_in_redis(ZH_EN) == {})


def generator(name: str, rule: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = {"rule": rule, "graceSeconds": GRACE_SECONDS, **more}
    return {
        "apiVersion": "hotpool.dev/v1alpha1",
        "kind": "NodePoolGenerator",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_sets_values_and_parts_beside_the_pairs(speaking: Fleet) -> None:
    speaking.apply(generator("sets", {"languageSets": {}}))
    speaking.apply(generator("spoken", {"attributeValues": {"type": "asr", "key": "languages"}}))
    speaking.apply(generator("part", {"hash": {"count": 2, "seed": "s"}}))
    everyone = [pool_name("sets", "en+zh"), pool_name("spoken", "zh"), pool_name("spoken", "en")]
    for name in everyone:
        wait_for(f"both nodes are in {name}", lambda name=name: published(speaking, name, BOTH), 60)  # type: ignore[misc]
    inside = {node: pool_name("part", str(slot(node, "s", 2))) for node in BOTH}
    wait_for(
        "each node is in its part",
        lambda: all(node in (speaking.members_in_redis(name) or {}) for node, name in inside.items()),
        60,
    )
    wait_for("nothing more", lambda: made(speaking) == {ZH_EN, EN_ZH, ANY_EN, ANY_ZH, *everyone, *inside.values()})


def test_a_changed_rule_leaves_the_former_pools_for_the_grace_time(speaking: Fleet) -> None:
    speaking.apply(generator("speech", {"languageSets": {}}))
    name = pool_name("speech", "en+zh")
    wait_for("the new pool is filled", lambda: published(speaking, name, BOTH), 60)
    wait_for("the former ones are gone", lambda: made(speaking) == {name}, GRACE_SECONDS + 60)


def test_a_hand_made_pool_with_the_very_name_is_not_taken_over(speaking: Fleet) -> None:
    name = pool_name("spoken", "zh")
    strange = {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": name}}
    speaking.apply({**strange, "spec": {"minMembers": 7, "requires": {"types": [{"type": "llm"}]}}})
    speaking.apply(generator("spoken", {"attributeValues": {"type": "asr", "key": "languages"}}))
    speaking.kubectl("wait", "--for=condition=NameTaken", "nodepoolgenerator/spoken", "--timeout=60s")
    found = speaking.get("nodepools", name)
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
def test_the_api_server_refuses_what_no_generator_can_mean(fleet: Fleet, rule: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError):
        fleet.apply(generator("bad", rule))


def test_the_api_server_refuses_a_part_that_is_not_there(fleet: Fleet) -> None:
    pool = {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": "bad"}}
    with pytest.raises(RuntimeError):
        fleet.apply({**pool, "spec": {"requires": {"hash": {"count": 2, "index": 2}}}})
    fleet.apply({**pool, "spec": {"requires": {"hash": {"count": 2, "index": 1}}}})
