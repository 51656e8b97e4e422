"""Tests of Redis: a client whose picks wait, of either kind."""

from tests.support.waiting_clients import dispatcher, lines_only

__all__ = ["dispatcher", "lines_only"]
