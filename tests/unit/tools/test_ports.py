"""Free ports for programs: each handed out once, to one process of this machine."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from localfleet import ports
from localfleet.kind import REPOSITORY

HOLDER = """
import sys
from localfleet.ports import free_port
print(*(free_port() for _ in range(300)), flush=True)
sys.stdin.read()
"""


@contextmanager
def holder() -> Iterator[set[int]]:
    """Run another process that takes ports; yield them."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY / "tools"
    ) as other:
        assert other.stdout
        yield set(map(int, other.stdout.readline().split()))
        other.kill()


@pytest.fixture
def block() -> range:
    """Four ports of this process: one as lock, and three to hand out."""
    first = next(port for port in iter(ports.free_port, None) if port % 256 < 252)
    return range(first, first + 4)


@pytest.fixture
def small(block: range) -> Iterator[ports.Ports]:
    pool = ports.Ports([block])
    yield pool
    pool.close()


def test_no_port_is_handed_out_twice() -> None:
    given = [ports.free_port() for _ in range(600)]
    assert len(set(given)) == 600
    assert set(given) <= set(ports.RANGE)


def test_concurrent_processes_get_different_ports() -> None:
    ours = {ports.free_port() for _ in range(300)}
    with holder() as first, holder() as second:
        assert len(ours | first | second) == 900


def test_a_block_has_one_owner_until_that_has_closed_it(small: ports.Ports, block: range) -> None:
    assert small.take() in block
    other = ports.Ports([block])
    with pytest.raises(ports.PortsExhaustedError):
        other.take()
    small.close()
    again = ports.Ports([block])
    assert again.take() in block
    again.close()


def test_the_block_of_a_killed_process_can_be_taken_again() -> None:
    with holder() as given:
        blocks = [block for block in ports.blocks(ports.RANGE.stop) if not given.isdisjoint(block)]
        taken = ports.Ports(blocks)
        with pytest.raises(ports.PortsExhaustedError):
            taken.take()
    again = ports.Ports(blocks)
    assert {again.take() for _ in range(300)} <= {port for block in blocks for port in block}
    again.close()


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::1")],
    ids=["loopback", "every address", "IPv6"],
)
def test_a_port_in_use_by_another_program_is_skipped(
    small: ports.Ports, block: range, family: socket.AddressFamily, address: str
) -> None:
    with socket.create_server((address, block[1]), family=family):
        assert {small.take() for _ in range(4)} == {block[2], block[3]}


def test_after_the_last_port_the_oldest_free_one_is_reused(small: ports.Ports, block: range) -> None:
    assert [small.take() for _ in range(5)] == [*block[1:], block[1], block[2]]
    with socket.create_server(("127.0.0.1", block[3])):
        assert [small.take() for _ in range(2)] == [block[1], block[2]]
    with (
        socket.create_server(("127.0.0.1", block[1])),
        socket.create_server(("127.0.0.1", block[2])),
        socket.create_server(("127.0.0.1", block[3])),
        pytest.raises(ports.PortsExhaustedError),
    ):
        small.take()


def test_blocks_above_the_first_ephemeral_port_come_last() -> None:
    found = ports.blocks(16_000)
    below = [block for block in found if block.stop <= 16_000]
    assert found[: len(below)] == below
    assert {port for block in found for port in block} <= set(ports.RANGE)
    assert len(ports.blocks(1_024)) == len(found)
