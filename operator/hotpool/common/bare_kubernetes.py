"""Import of the Kubernetes client without its unused parts.

`kubernetes/__init__` imports the synchronous client, requests, oauthlib and websocket: about 0.5 s and 20 MB that the
asyncio client in `kubernetes.aio` does not need. `kubernetes/aio/__init__` imports its dynamic client, urllib3 and
dateutil: 2 MB more. For programs only: a library must not change the imports of its user.
"""

import sys
from importlib.util import find_spec, module_from_spec
from typing import Final

_PACKAGE: Final = "kubernetes"
_PART: Final = "aio"


def import_bare_kubernetes() -> None:
    """Register empty parent modules, so that importing `kubernetes.aio.client` executes only that subpackage.

    No effect if the package is imported already. If it is not installed, a later import raises as usual.
    """
    if _PACKAGE in sys.modules or not (spec := find_spec(_PACKAGE)):
        return
    parent = sys.modules[_PACKAGE] = module_from_spec(spec)
    if spec := find_spec(f"{_PACKAGE}.{_PART}"):
        child = sys.modules[f"{_PACKAGE}.{_PART}"] = module_from_spec(spec)
        setattr(parent, _PART, child)
