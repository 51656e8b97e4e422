"""Logs, metrics and the latency from a stopped service to its removal."""
