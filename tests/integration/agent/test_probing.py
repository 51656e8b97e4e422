"""Probe loops of supervised services (requirements A5, A6): which probe they use, and the text of their events."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.probing import running_prober

from hotpool_agent.catalogue.model import ServiceSpec
from hotpool_agent.probes.prober import Prober
from hotpool_agent.services import events, probing
from localfleet.ports import free_port


@pytest.fixture
async def prober(tmp_path: Path) -> AsyncIterator[Prober]:
    async with running_prober(tmp_path) as prober:
        yield prober


def spec(**fields: Any) -> ServiceSpec:
    """Return a service whose commands run in the folder `own`, with the variable CODE = 7."""
    run = {"command": ["x"], "workingDir": "own", "env": {"CODE": "7"}}
    return ServiceSpec.model_validate({"id": "s", "type": "asr", "run": run, **fields})


def check(script: str, **fields: Any) -> dict[str, Any]:
    return {"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 0.01, **fields}


async def test_a_command_makes_a_service_ready(prober: Prober, tmp_path: Path) -> None:
    own, failures = tmp_path / "own", []
    own.mkdir()

    def on_failure() -> None:
        failures.append(1)
        (own / "model").touch()

    ready = check('test "$CODE" = 7 -a -e model')
    assert await probing.until_ready(prober, spec(ready=ready), on_failure) == events.Ready()
    assert await probing.probe_adopted(prober, spec(ready=ready), lambda: None) == events.Ready()
    assert len(failures) == 1


async def test_a_start_that_fails_ends_with_the_last_reason_and_output(prober: Prober, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    failing = spec(ready=check("echo no model; exit $CODE", startSeconds=0.3), live={"failures": 1})
    timed_out = events.StartTimedOut("not ready after 0.3 s: sh: exit code 7: no model")
    assert await probing.until_ready(prober, failing, lambda: None) == timed_out
    # Another service: the time-out above killed a probe, which may not have ended yet.
    failing = spec(id="t", ready=check("echo no model; exit $CODE"), live={"failures": 1})
    failed = events.AdoptionFailed("not adopted: sh: exit code 7: no model")
    assert await probing.probe_adopted(prober, failing, lambda: None) == failed


@pytest.mark.parametrize("own", [True, False])
async def test_liveness_uses_its_own_probe_or_that_of_readiness(prober: Prober, tmp_path: Path, *, own: bool) -> None:
    (tmp_path / "own").mkdir()
    pace = {"periodSeconds": 0.01, "failures": 2}
    live = check("exit 3") | pace if own else pace
    hung = await probing.until_hung(prober, spec(ready=check("exit 4"), live=live))
    assert hung == events.Hung(f"2 probes in a row failed: sh: exit code {3 if own else 4}")


async def test_without_a_probe_the_port_counts_and_without_a_port_the_process(prober: Prober) -> None:
    port, pace = free_port(), {"periodSeconds": 0.01, "failures": 1}
    hung = await probing.until_hung(prober, spec(port=port, live=pace))
    tried = f"127.0.0.1:{port}: Connection refused; [::1]:{port}: Connection refused"
    assert hung == events.Hung(f"1 probes in a row failed: {tried}")
    assert await probing.until_ready(prober, spec(), lambda: None) == events.Ready()
