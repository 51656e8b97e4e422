"""``python -m localkube``: the program behind ``tools/kind``."""

import sys

from localkube.cli import main

if __name__ == "__main__":
    sys.exit(main())
