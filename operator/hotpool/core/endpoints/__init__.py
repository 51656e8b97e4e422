"""Decide which of the addresses that agents claim are endpoints (requirement B13)."""
