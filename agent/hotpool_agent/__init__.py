"""The agent of one node: runs or watches its services and reports what the node can do right now."""

from importlib.metadata import version
from typing import Final

__version__: Final = version("hotpool")
