"""Fixtures of the tests that need no built program."""

from pathlib import Path

import pytest

from localkube.certs import write_certificates


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of a control plane; nothing changes them."""
    folder = tmp_path_factory.mktemp("cluster") / "pki"
    write_certificates(folder)
    return folder
