"""Probes of services: HTTP, TCP, processes, files and systemd units."""
