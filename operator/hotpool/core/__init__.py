"""The decision: pure functions and one state, without I/O, clocks or tasks.

Sources feed it, the reconciler asks it; it calls nobody.
"""
