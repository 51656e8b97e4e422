"""Long random courses on the cluster of the cluster tier."""

from tests.support.cluster_fixtures import client, fleet, lookup, pytest_configure, redis_address, server, world_of

__all__ = ["client", "fleet", "lookup", "pytest_configure", "redis_address", "server", "world_of"]
