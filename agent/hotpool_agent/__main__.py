"""Entry point of `hotpool-agent` and `python -m hotpool_agent`.

Must stay quick to import: signals count from the first instruction (requirement A13), and other systems than Linux get
one clear line instead of an import error.
"""

import signal
import sys
from typing import Final

from hotpool.common import early_signals, exit_codes

_ANYWHERE: Final = {"--help", "--version"}
"""Options that need no Linux."""


def main() -> None:
    """Run the command line."""
    is_linux, command = sys.platform == "linux", sys.argv[1:2]
    if not is_linux and command != ["check"] and _ANYWHERE.isdisjoint(sys.argv):
        sys.stderr.write(f"hotpool-agent needs Linux; this is {sys.platform}. Only `check` and --help work here.\n")
        sys.exit(exit_codes.USAGE)
    if is_linux and command == ["run"]:
        early_signals.hold(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    from hotpool.common.home import provide_home  # noqa: PLC0415
    from hotpool.common.standard_output import tolerant_output  # noqa: PLC0415
    from hotpool_agent.cli.program import app  # noqa: PLC0415

    provide_home()
    with tolerant_output():
        app()


if __name__ == "__main__":
    main()
