"""Fixtures of all tiers of the tool's tests."""

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home: clusters and kubeconfig of the person stay as they are."""
    for name in ("KUBECONFIG", "KIND_CLUSTER_NAME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path
