"""Local socket of the agent: protocol, client and server."""
