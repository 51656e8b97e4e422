"""Reports, heartbeats and commands: what the agent sends to the API server and reads from it, and when."""
