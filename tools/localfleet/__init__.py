"""A whole fleet on this machine: Redis, the operator and agents as real processes, each under its own account."""
