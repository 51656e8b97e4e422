"""Run scripts against the oracle: `python -m tests.model.run SEED|FILE`. A failing script is shortened and printed."""

import ast
import asyncio
import pprint
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import structlog
from tests.model.checks import MismatchError
from tests.model.random_scripts import Step, random_script
from tests.model.scenario import Scenario
from tests.support.simulated_fleet import SimulatedLoop

_SHORTEN_SECONDS = 60.0


def first_mismatch(script: Sequence[Step]) -> MismatchError | None:
    """Run a script; return the first difference from the oracle, if any."""

    async def follow() -> None:
        scenario = Scenario()
        await scenario.begin()
        for step in script:
            await scenario.run_step(step)
        await scenario.end()

    with structlog.testing.capture_logs(), asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        try:
            runner.run(follow())
        except MismatchError as mismatch:
            return mismatch
    return None


def shrink(script: Sequence[Step], item: str, seconds: float = _SHORTEN_SECONDS) -> list[Step]:
    """Return a shorter script that breaks the same requirement, as short as the time in seconds allows."""
    until = monotonic() + seconds
    best, size = list(script), len(script) // 2
    while size and monotonic() < until:
        at = 0
        while at < len(best) and monotonic() < until:
            fewer = [*best[:at], *best[at + size :]]
            found = first_mismatch(fewer)
            if found and found.item == item:
                best = fewer
            else:
                at += size
        size //= 2
    return best


def check(seed: int, length: int = 60) -> str | None:
    """Run the script of a seed. Return the text to print if it fails."""
    script = random_script(seed, length)
    mismatch = first_mismatch(script)
    if mismatch is None:
        return None
    short = shrink(script, mismatch.item)
    steps = pprint.pformat(short, width=140, sort_dicts=False)
    return f"seed {seed}: {mismatch}\nshortest script: {first_mismatch(short)}\n{steps}"


def main() -> int:
    """Run one seed or one file. Return the exit code."""
    source = sys.argv[1]
    if source.isdecimal():
        text = check(int(source), *map(int, sys.argv[2:]))
    else:
        mismatch = first_mismatch(ast.literal_eval(Path(source).read_text(encoding="utf-8")))
        text = str(mismatch) if mismatch else None
    sys.stdout.write(f"{text or 'no difference'}\n")
    return 1 if text else 0


if __name__ == "__main__":
    sys.exit(main())
