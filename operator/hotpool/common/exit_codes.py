"""Exit codes of `hotpool` and `hotpool-agent`; --help of each command explains its own."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""The reader of standard output ended before the program, as for kubectl."""

# hotpool
DIFFERENT: Final = 1
NO_MEMBER: Final = 1
NOT_YET: Final = 1
UNHEALTHY: Final = 1
REFUSED: Final = 1
UNAVAILABLE: Final = 3
FORBIDDEN: Final = 4
NOT_FOUND: Final = 5
NOT_INSTALLED: Final = 6

# hotpool-agent
NOT_RUNNING: Final = 3
NOT_CONNECTED: Final = 4
NOT_OFFERED: Final = 5
