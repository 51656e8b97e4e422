"""A service whose requests are streams: a line with its process id, then a dot every 20 ms until the client closes.

GET /health returns 200. SIGTERM ends it at once, in the middle of every stream.

    python stream_server.py PORT
"""

import asyncio
import os
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"GET /health"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        else:
            writer.write(f"{os.getpid()}\n".encode())
            closed = asyncio.ensure_future(reader.read(1))
            while not closed.done():
                writer.write(b".")
                await writer.drain()
                await asyncio.wait([closed], timeout=0.02)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serve until a signal arrives."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
