"""The agent of one node: runs or watches its services and reports what the node can do right now."""

from typing import Final

from hotpool import __version__ as _version

__version__: Final = _version
