"""Catalogue of a node: its models, and a loader that reports every error at once."""
