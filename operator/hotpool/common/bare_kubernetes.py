"""Import of the Kubernetes client without its synchronous half.

`kubernetes/__init__` imports the synchronous client, requests, oauthlib and websocket: about 0.5 s and 20 MB that the
asyncio client in `kubernetes.aio` does not need. For programs only: a library must leave its user's imports alone.
"""

import sys
from importlib.util import find_spec, module_from_spec
from typing import Final

_PACKAGE: Final = "kubernetes"


def import_bare_kubernetes() -> None:
    """Register an empty parent module, so that importing `kubernetes.aio` executes only that subpackage.

    No effect where the package is imported already. Where it is not installed, a later import raises as usual.
    """
    if _PACKAGE not in sys.modules and (spec := find_spec(_PACKAGE)):
        sys.modules[_PACKAGE] = module_from_spec(spec)
