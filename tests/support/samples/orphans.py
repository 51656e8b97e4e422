"""A service that leaves orphans: many that end at once, and one that goes on.

    python orphans.py COUNT FILE

FILE gets the pid of the one that goes on, once all others were created.
"""

import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Create the orphans, then sleep."""
    count, file = int(sys.argv[1]), Path(sys.argv[2])
    for number in range(count + 1):
        if os.fork() == 0:
            if os.fork() == 0:
                if number < count:
                    os._exit(0)
                file.with_suffix(".new").write_text(str(os.getpid()), encoding="ascii")
                file.with_suffix(".new").rename(file)
                time.sleep(600)
            os._exit(0)
        os.wait()
    time.sleep(600)


if __name__ == "__main__":
    main()
