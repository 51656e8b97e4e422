"""Fixtures of tests with third parties on the cluster of the end-to-end tier."""

from tests.e2e.conftest import bare, kind_cluster, load

__all__ = ["bare", "kind_cluster", "load"]
