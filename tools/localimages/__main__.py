"""``python -m localimages``: build what is missing; print each image's name and the path of its archive."""

import sys

from localimages import images
from localimages.errors import ImageError
from localkube.console import Console


def main() -> int:
    """Build the images and return the exit code."""
    console = Console()
    try:
        for image in (images.hotpool(), images.valkey()):
            print(image.name, images.ensure(image, console))
    except ImageError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
