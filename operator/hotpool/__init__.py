"""hotpool: every node in exactly the pools it qualifies for right now."""

__version__ = "0.1.0"
