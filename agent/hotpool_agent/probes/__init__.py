"""Probes of services: HTTP, TCP, commands, gRPC, processes, systemd units and files."""
