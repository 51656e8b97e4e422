"""Runner of probes that may block, in threads of their own."""

from hotpool_agent.blocking import SingleFlightRunner

__all__ = ["SingleFlightRunner"]
