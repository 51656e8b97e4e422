"""An event loop whose clock jumps ahead on demand, as after a suspend, with real sockets and processes."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, cast

P = ParamSpec("P")


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is `ahead` seconds ahead of the monotonic clock."""

    ahead = 0.0

    def time(self) -> float:
        """Return the seconds of its clock."""
        return super().time() + self.ahead


def jumping(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test in a loop whose clock can jump."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def jump(seconds: float) -> None:
    """Let the clock of the running loop jump."""
    cast("JumpingLoop", asyncio.get_running_loop()).ahead += seconds
