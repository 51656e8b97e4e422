"""The agent of one node: runs or watches its services and reports what the node can do right now."""

from hotpool import __version__

__all__ = ["__version__"]
