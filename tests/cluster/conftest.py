"""The cluster tier: pytest-kind's `kind_cluster` and a real Redis."""

from tests.support.cluster_fixtures import (
    agent_world,
    client,
    fleet,
    lookup,
    module_server,
    pytest_configure,
    redis_address,
    server,
)

__all__ = ["agent_world", "client", "fleet", "lookup", "module_server", "pytest_configure", "redis_address", "server"]
