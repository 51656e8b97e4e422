"""A small real HTTP service for tests and the demo: starts in well under 100 ms, standard library only.

GET /health returns the health status and body; POST /health?status=503 changes it; SIGTERM ends it at once.

    python tools/localfleet/service.py --port 6007 --start-delay 0.5
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

RESPONSE = (
    "HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{body}"
)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="address on which it listens; :: for all of IPv4 and IPv6")
    parser.add_argument("--only-ipv6", action="store_true", help="with --host ::, not at addresses of IPv4")
    parser.add_argument("--type", default="any", help="shown by GET / only")
    parser.add_argument("--start-delay", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--health-status", type=int, default=200)
    parser.add_argument("--health-body", default='"ok"')
    parser.add_argument("--hang", action="store_true", help="accept connections and never respond")
    parser.add_argument("--abort", action="store_true", help="close the connection in the middle of the response")
    parser.add_argument("--exit-code", type=int, help="exit with this code after the start delay, without serving")
    parser.add_argument("--ignore-term", action="store_true", help="only KILL ends it")
    parser.add_argument("--child", action="store_true", help="leave a child process in the group")
    return parser.parse_args()


def main() -> int:
    """Serve until a signal arrives."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.ignore_term else _end)
    if options.child:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(options.start_delay)
    if options.exit_code is not None:
        return int(options.exit_code)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    both = options.host == "::" and not options.only_ipv6  # on Linux this is a choice
    with socket.create_server((options.host, options.port), family=family, backlog=64, dualstack_ipv6=both) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                _serve(connection, options)


def _serve(connection: socket.socket, options: argparse.Namespace) -> None:
    connection.settimeout(5)
    try:
        request = connection.recv(65536).decode(errors="replace").partition("\r\n")[0]
        if options.hang:
            connection.recv(1)
        elif options.abort:
            connection.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\nok")
        else:
            connection.sendall(_answer(request, options).encode())
    except OSError:
        pass


def _answer(request: str, options: argparse.Namespace) -> str:
    method, _, rest = request.partition(" ")
    path = rest.partition(" ")[0]
    if method == "POST" and "status=" in path:
        options.health_status = int(path.rpartition("=")[2])
    healthy = path.startswith("/health")
    body = options.health_body if healthy else options.type
    return RESPONSE.format(status=options.health_status if healthy else 200, size=len(body.encode()), body=body)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
