"""Supervised services: states, processes, probes, back-off, adoption."""
