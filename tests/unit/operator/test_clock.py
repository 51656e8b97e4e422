"""Pace of the event loop: work in small steps shares its turns."""

import asyncio
from dataclasses import dataclass, field

from hotpool.clock import TURN_SECONDS, Clock

STEP_SECONDS = 0.003


@dataclass
class Work:
    """Tasks that take steps of the same duration, and the number of steps that each turn of the loop had."""

    time: float = 0.0
    turns: list[int] = field(default_factory=lambda: [0])

    async def steps(self, clock: Clock, count: int) -> None:
        for _ in range(count):
            await clock.pace()
            self.time += STEP_SECONDS
            self.turns[-1] += 1

    async def count_turns(self) -> None:
        while True:
            self.turns.append(0)
            await asyncio.sleep(0)


async def test_all_work_in_small_steps_shares_the_time_of_a_turn() -> None:
    work = Work()
    clock = Clock(monotonic=lambda: work.time)
    counting = asyncio.create_task(work.count_turns())
    await asyncio.gather(work.steps(clock, 30), *(work.steps(clock, 1) for _ in range(20)))
    counting.cancel()
    assert sum(work.turns) == 50
    assert max(work.turns) * STEP_SECONDS <= TURN_SECONDS + STEP_SECONDS


async def test_short_work_does_not_wait() -> None:
    work = Work()
    clock = Clock(monotonic=lambda: work.time)
    counting = asyncio.create_task(work.count_turns())
    await work.steps(clock, 3)
    assert work.turns == [3]
    counting.cancel()


async def test_other_work_of_a_turn_leaves_less_time_for_steps() -> None:
    work = Work()
    clock = Clock(monotonic=lambda: work.time)

    async def respond() -> None:
        for _ in range(5):
            work.turns.append(0)
            work.time += TURN_SECONDS - STEP_SECONDS / 2
            await asyncio.sleep(0)

    await clock.pace()
    responding = asyncio.create_task(respond())
    await work.steps(clock, 8)
    await responding
    assert work.turns[1:5] == [1, 1, 1, 1]
