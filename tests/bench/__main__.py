"""All benchmarks of one run, one after the other; about eight minutes. `make bench`."""

import sys

from tests.bench import agent, hotplug

from localfleet.figures import json_file, show


def main() -> None:
    """Measure and print."""
    path = json_file(__doc__)
    figures: dict[str, float] = {}
    for part in (hotplug, agent):
        sys.stderr.write(f"{part.__name__} ...\n")
        figures |= part.measure()
    show(figures, path)


if __name__ == "__main__":
    main()
