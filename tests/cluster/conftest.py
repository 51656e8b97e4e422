"""The cluster tier: pytest-kind's `kind_cluster` and a real Redis."""

from tests.support.cluster_fixtures import client, fleet, lookup, pytest_configure, redis_address, server, world_of

__all__ = ["client", "fleet", "lookup", "pytest_configure", "redis_address", "server", "world_of"]
