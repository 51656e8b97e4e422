"""Tests of Redis: a client whose picks wait, of either kind."""

from tests.support.waiting_clients import dispatcher

__all__ = ["dispatcher"]
