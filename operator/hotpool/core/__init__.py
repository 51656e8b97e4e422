"""Membership decisions: pure functions and one cache, without I/O, clocks or tasks.

Must not import watches, writers or controllers.
"""
