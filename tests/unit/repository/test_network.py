"""Traffic of tests stays on this machine."""

import asyncio
import socket

import pytest
from tests.conftest import ADVERTISED


@pytest.mark.parametrize("address", [ADVERTISED, "203.0.113.7"])
async def test_no_test_connects_to_an_address_that_agents_only_advertise(address: str) -> None:
    with socket.socket() as plain, pytest.raises(ConnectionRefusedError, match="for advertising alone"):
        plain.connect((address, 80))
    with pytest.raises(ConnectionRefusedError, match="for advertising alone"):
        await asyncio.open_connection(address, 80)
