"""Entry point of `hotpool` and `python -m hotpool`.

Must stay quick to import: signals to the operator count from the first instruction.
"""

import gc
import signal
import sys
from typing import Final

from hotpool.common import early_signals, exit_codes

GC_THRESHOLD: Final = 50_000
"""New objects between collections. Imports create many objects and no garbage: this saves a tenth of the start. A fleet
is millions of objects without cycles."""


def main() -> None:
    """Run the console script `hotpool`."""
    if "operator" in sys.argv[1:2]:
        # Its event loop has no signal handlers there.
        if sys.platform == "win32" and "--help" not in sys.argv:
            sys.stderr.write("hotpool operator does not run on Windows; the other commands work here.\n")
            sys.exit(exit_codes.USAGE)
        early_signals.hold(signal.SIGTERM, signal.SIGINT)
    gc.set_threshold(GC_THRESHOLD)
    from hotpool.cli.program import app  # noqa: PLC0415
    from hotpool.common.bare_kubernetes import import_bare_kubernetes  # noqa: PLC0415
    from hotpool.common.home import provide_home  # noqa: PLC0415
    from hotpool.common.standard_output import tolerant_output  # noqa: PLC0415

    import_bare_kubernetes()
    provide_home()
    with tolerant_output():
        app()


if __name__ == "__main__":
    main()
