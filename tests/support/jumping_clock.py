"""An event loop whose clock jumps ahead on demand, as after a suspend; real sockets and processes go on as ever."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, cast

P = ParamSpec("P")


class JumpingLoop(asyncio.SelectorEventLoop):
    """`ahead`: seconds that its clock is ahead of the real monotonic one."""

    ahead = 0.0

    def time(self) -> float:
        """Return the seconds of its clock."""
        return super().time() + self.ahead


def jumping(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test in such a loop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def jump(seconds: float) -> None:
    """Let the clock of the running loop jump."""
    cast("JumpingLoop", asyncio.get_running_loop()).ahead += seconds
