"""The way to the API server: what is reported and when, credentials, heartbeats, commands."""
