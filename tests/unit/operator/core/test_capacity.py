"""Limits of a node (E9)."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support.builders import node, open_cache, report, service

from hotpool.core.capacity import NodeLimits, ReadyService, limits_of


def limits(*services: dict[str, Any], types: dict[str, int] | None = None, **more: Any) -> NodeLimits | None:
    cache = open_cache()
    cache.upsert(replace(node("n", report(*services, **more)), limits=types or {}), 0)
    return limits_of(cache.nodes["n"].view)


FW = service("fw", "asr", maxConcurrent=8)
M = service("m", "nmt")


def test_a_node_with_one_limit_names_all_its_ready_services() -> None:
    stopped = service("old", "nmt", maxConcurrent=1) | {"state": "Stopped"}
    assert limits(FW, M, stopped) == NodeLimits({ReadyService("asr", "fw"): 8, ReadyService("nmt", "m"): None}, {})
    assert limits(M, types={"llm": 2}) == NodeLimits({ReadyService("nmt", "m"): None}, {"llm": 2})


@pytest.mark.parametrize("more", [{}, {"leaving": True}])
def test_a_node_without_any_limit_or_one_that_leaves_has_none(more: dict[str, Any]) -> None:
    assert limits(*([FW] if more else []), M, **more) is None
