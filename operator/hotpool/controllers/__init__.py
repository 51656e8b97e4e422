"""Reconcile one pool, node or generator: read, plan, diff, write."""
