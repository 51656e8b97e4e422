"""A service that creates one more process, of which nothing is left after a stop only if the agent searches for it.

    python workers.py KIND FILE [PROGRAM...]

Then it executes the program, or sleeps. FILE gets the pid of the process that it creates, whose last word is FILE:

- `session`: a child in a session of its own
- `daemon`: a daemon by double fork, in a session of its own
- `bare`: a child in a session of its own, without the service's environment
- `bare-daemon`: a daemon without the service's environment
"""

import os
import sys
import time

WORKER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
except OSError:
    pass  # The disk may be full.
time.sleep(600)
"""


def main() -> None:
    """Create the process, then execute the program or sleep."""
    kind, file, *then = sys.argv[1:]
    bare = kind.startswith("bare")
    if os.fork() == 0:
        os.setsid()
        if kind.endswith("daemon") and os.fork() > 0:
            os._exit(0)
        program = [sys.executable, "-S", "-c", WORKER, file]
        os.execve(program[0], program, {} if bare else dict(os.environ))  # noqa: S606
    if kind.endswith("daemon"):
        os.wait()
    if then:
        os.execvp(then[0], then)  # noqa: S606
    time.sleep(600)


if __name__ == "__main__":
    main()
