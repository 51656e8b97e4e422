"""Projection of pools and nodes into Redis, and the look-up library of dispatchers (hotpool.lookup).

The only importer of redis. Must not decide membership: it copies given documents, with their age and completeness.
"""
