"""Home directory of a user that the system does not know, as in a container with an arbitrary user id."""

import os


def provide_home() -> None:
    """Set HOME to /, as container runtimes do, if there is no home directory.

    Default paths are in it.
    """
    # Path.home would raise an error. HOME is tested first: the user database may be remote.
    if not os.environ.get("HOME") and os.path.expanduser("~") == "~":  # noqa: PTH111
        os.environ["HOME"] = "/"
