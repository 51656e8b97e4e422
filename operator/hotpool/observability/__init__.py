"""Logs, metrics and the hot-plug latency."""
