"""Control socket of the agent, and its HTTP endpoints for health and metrics."""
