"""Desired state of one pool, node or generator, and the changes that lead to it."""
