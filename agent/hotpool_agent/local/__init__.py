"""The way in on this machine: the socket, health and metrics over HTTP, tables for people."""
