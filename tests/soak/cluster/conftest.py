"""Fixtures of the long random tests, on the cluster of the cluster tier."""

from tests.support.cluster_fixtures import agent_world, client, fleet, lookup, pytest_configure, redis_address, server

__all__ = ["agent_world", "client", "fleet", "lookup", "pytest_configure", "redis_address", "server"]
