"""Content and timing of reports and heartbeats, and commands from the cluster."""
