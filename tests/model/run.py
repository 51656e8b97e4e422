"""Runs scripts against the oracle, makes a failing one as short as it gets, and prints it."""

import ast
import asyncio
import pprint
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import structlog
from tests.model.checks import Wrong
from tests.model.random_scripts import Step, course
from tests.model.scenario import World
from tests.support.simulated_fleet import SimulatedLoop

_SHORTEN_SECONDS = 60.0


def verdict(script: Sequence[Step]) -> Wrong | None:
    """What is wrong in the course of a script, if anything."""

    async def follow() -> None:
        world = World()
        await world.begin()
        for step in script:
            await world.obey(step)
        await world.end()

    with structlog.testing.capture_logs(), asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        try:
            runner.run(follow())
        except Wrong as wrong:
            return wrong
    return None


def shortest(script: Sequence[Step], item: str, seconds: float = _SHORTEN_SECONDS) -> list[Step]:
    """A script that breaks the same rule and from which nothing can be left out, as far as the time allows."""
    until = monotonic() + seconds
    best, size = list(script), len(script) // 2
    while size and monotonic() < until:
        at = 0
        while at < len(best) and monotonic() < until:
            fewer = [*best[:at], *best[at + size :]]
            found = verdict(fewer)
            if found and found.item == item:
                best = fewer
            else:
                at += size
        size //= 2
    return best


def check(seed: int, length: int = 60) -> str | None:
    """Run the course of a seed; what to print where it fails."""
    script = course(seed, length)
    wrong = verdict(script)
    if wrong is None:
        return None
    short = shortest(script, wrong.item)
    return (
        f"seed {seed}: {wrong}\nshortest script: {verdict(short)}\n{pprint.pformat(short, width=140, sort_dicts=False)}"
    )


def main() -> int:
    """One seed or one file."""
    what = sys.argv[1]
    if what.isdecimal():
        told = check(int(what), *map(int, sys.argv[2:]))
    else:
        wrong = verdict(ast.literal_eval(Path(what).read_text(encoding="utf-8")))
        told = str(wrong) if wrong else None
    sys.stdout.write(f"{told or 'nothing is wrong'}\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
