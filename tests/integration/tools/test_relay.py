"""The relay that injects network faults in tests (tools/localfleet/relay.py)."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from localfleet.process import wait_for
from localfleet.relay import Relay

SECONDS = 10.0
ALREADY = 0.2


class Echo:
    """Sends each chunk back; `received`: all bytes so far."""

    def __init__(self) -> None:
        self.received = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except OSError:
            return

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while chunk := connection.recv(65536):
                    self.received += chunk
                    connection.sendall(chunk)
            except OSError:
                return


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def relay(echo: Echo) -> Iterator[Relay]:
    with Relay(echo.port) as made:
        yield made


def connect(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), SECONDS)


def echoed(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return received(connection, len(text))


def received(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size and (chunk := connection.recv(size - len(content))):
        content += chunk
    return content


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(ALREADY)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(SECONDS)


def is_over(connection: socket.socket) -> bool:
    """Return True if the connection is closed or reset."""
    try:
        return echoed(connection, b"?") == b""
    except ConnectionError:
        return True


def test_the_relay_forwards_both_ways_and_counts_connections(relay: Relay) -> None:
    with connect(relay) as one, connect(relay) as other:
        assert (echoed(one, b"a"), echoed(other, b"b" * 10**6)) == (b"a", b"b" * 10**6)
        assert (relay.accepted, relay.connections) == (2, 2)
    wait_for("both are over", lambda: relay.connections == 0)
    assert relay.accepted == 2


def test_forgotten_connections_are_silent_without_an_end_and_new_ones_work(relay: Relay, echo: Echo) -> None:
    with connect(relay) as one:
        assert echoed(one, b"a") == b"a"
        relay.forget()
        one.sendall(b"b")
        assert is_silent(one)
        with connect(relay) as other:
            assert echoed(other, b"c") == b"c"
        relay.hold()
        relay.resume()
        assert is_silent(one)
        assert echo.received == b"ac"


def test_the_end_of_a_forgotten_connection_does_not_arrive() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        relay = stack.enter_context(Relay(int(server.getsockname()[1])))
        one = stack.enter_context(connect(relay))
        far, _ = server.accept()
        relay.forget()
        far.close()
        one.settimeout(ALREADY)
        with pytest.raises(TimeoutError):
            one.recv(1)


def test_a_cut_resets_and_refuses_connections_until_it_is_restored(relay: Relay) -> None:
    with connect(relay) as one:
        assert echoed(one, b"a") == b"a"
        relay.cut()
        relay.cut()
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    assert relay.connections == 0
    with pytest.raises(ConnectionRefusedError):
        connect(relay)
    relay.restore()
    relay.restore()
    with connect(relay) as one:
        assert echoed(one, b"a") == b"a"


def test_held_bytes_arrive_in_order_after_it_resumes(relay: Relay, echo: Echo) -> None:
    with connect(relay) as before:
        assert echoed(before, b"0") == b"0"
        relay.hold()
        before.sendall(b"12")
        with connect(relay) as during:
            during.sendall(b"x")
            assert is_silent(before)
            assert is_silent(during)
            assert echo.received == b"0"
            relay.resume()
            assert (received(before, 2), received(during, 1)) == (b"12", b"x")


def test_bytes_of_a_held_connection_arrive_even_if_the_sender_has_closed_it(relay: Relay, echo: Echo) -> None:
    with connect(relay) as one:
        assert echoed(one, b"0") == b"0"
        relay.hold()
        one.sendall(b"late")
        assert is_silent(one)
    relay.resume()
    wait_for("it arrives", lambda: echo.received == b"0late")


def test_a_cut_loses_held_bytes(relay: Relay, echo: Echo) -> None:
    relay.hold()
    with connect(relay) as one:
        one.sendall(b"lost")
        wait_for("it is on its way", lambda: relay.connections == 1)
        relay.cut()
        assert relay.connections == 0
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    relay.restore()
    relay.resume()
    with connect(relay) as one:
        assert echoed(one, b"a") == b"a"
    assert echo.received == b"a"


def test_no_connection_survives_a_concurrent_cut(relay: Relay) -> None:
    for _ in range(20):
        with ExitStack() as stack:
            ready = threading.Barrier(9)
            found: list[socket.socket] = []

            def open_one(ready: threading.Barrier = ready, found: list[socket.socket] = found) -> None:
                ready.wait(SECONDS)
                try:
                    found.append(connect(relay))
                except OSError:
                    return

            threads = [threading.Thread(target=open_one) for _ in range(8)]
            for thread in threads:
                thread.start()
            ready.wait(SECONDS)
            relay.cut()
            for thread in threads:
                thread.join(SECONDS)
            for one in found:
                stack.enter_context(one)
                one.settimeout(SECONDS)
                assert is_over(one)
            assert relay.connections == 0
        relay.restore()


def test_a_delay_applies_to_each_direction(relay: Relay) -> None:
    with connect(relay) as one:
        assert echoed(one, b"a") == b"a"
        relay.delay = 0.2
        began = time.monotonic()
        assert echoed(one, b"b") == b"b"
        assert time.monotonic() - began >= 0.4


def test_an_unreachable_target_ends_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Relay(int(unused.getsockname()[1])) as relay:
            # The reset may come while the connection is still being established.
            with suppress(ConnectionResetError), connect(relay) as one:
                assert is_over(one)
            wait_for("it was tried", lambda: relay.accepted == 1)
            wait_for("it is over", lambda: relay.connections == 0)


def test_the_end_of_the_block_closes_all_connections_and_the_thread(echo: Echo) -> None:
    threads = threading.active_count()
    with ExitStack() as stack:
        with Relay(echo.port) as relay:
            one = stack.enter_context(connect(relay))
            relay.hold()
            one.sendall(b"a")
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connect(relay)
    assert echo.received == b""
    wait_for("its thread is over", lambda: threading.active_count() <= threads)
