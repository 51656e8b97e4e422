"""Runs commands of both programs in forks of one process that has imported them: a fork takes milliseconds.

Run it as a program. Each line of standard input is a case in JSON, each line of standard output its result:
`words` (module and arguments), `environment` (all of it), `stdout` and `stderr` (`pipe`, `broken`: without a reader,
`closed`, `terminal`), `encoding` (of both streams), `homeless` (the system does not know the user), `terminate`
(SIGTERM after the first line on standard error) → `code`, `out`, `err`.
"""

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import pty
import pwd
import selectors
import signal
import sys
import threading
from typing import Any, Final

Json = dict[str, Any]

_PACKAGES: Final = ("hotpool.cli", "hotpool_agent.cli")
_ALSO: Final = ("hotpool.app", "hotpool.lookup", "hotpool.__main__", "hotpool_agent.__main__")
_SECONDS: Final = 60
_NOT_FLUSHED: Final = 120


def _import_all() -> None:
    importlib.import_module("hotpool.common.bare_kubernetes").import_bare_kubernetes()
    for package in map(importlib.import_module, _PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in _ALSO:
        importlib.import_module(name)


def _channel(kind: str) -> tuple[int | None, int | None]:
    """Return the descriptors that we read and that the fork writes; None: there is none."""
    if kind == "closed":
        return None, None
    reader, writer = pty.openpty() if kind == "terminal" else os.pipe()
    if kind == "broken":
        os.close(reader)
        return None, writer
    return reader, writer


def _finish(pid: int, readers: dict[int, str], *, terminate: bool) -> Json:
    """Read until the fork has ended, and return its result."""
    texts = dict.fromkeys(("out", "err"), b"")
    selector = selectors.DefaultSelector()
    for reader in readers:
        selector.register(reader, selectors.EVENT_READ)
    while selector.get_map():
        for key, _ in selector.select(_SECONDS) or _killed(pid):
            block = _read(key.fd)
            texts[readers[key.fd]] += block
            if terminate and b"\n" in texts["err"]:
                os.kill(pid, signal.SIGTERM)
                terminate = False
            if not block:
                selector.unregister(key.fd)
                os.close(key.fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"code": code, **{name: text.decode(errors="replace") for name, text in texts.items()}}


def _killed(pid: int) -> list[Any]:
    os.kill(pid, signal.SIGKILL)
    return []


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end of a terminal is closed
        return b""


def _become(case: Json, writers: tuple[int | None, int | None]) -> None:
    """Set up the fork as the interpreter sets up a process."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, writer in enumerate(writers, 1):
        if writer is None:
            os.close(descriptor)
        else:
            os.dup2(writer, descriptor)
    os.closerange(3, 64)
    os.environ.clear()
    os.environ.update(case["environment"])
    sys.argv = list(case["words"])
    sys.stdout = _stream(1, case, "strict")
    sys.stderr = _stream(2, case, "backslashreplace")
    if case.get("homeless"):
        pwd.getpwuid = _unknown


def _stream(descriptor: int, case: Json, errors: str) -> Any:
    if case[("stdout", "stderr")[descriptor - 1]] == "closed":
        return None
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), case.get("encoding") or "utf-8", errors, line_buffering=descriptor == 2 or raw.isatty()
    )


def _unknown(uid: int) -> Any:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def _serve() -> str:
    """Fork for each case. Return only in a fork: the module to run."""
    for line in sys.stdin:
        case = json.loads(line)
        (out, out_writer), (err, err_writer) = _channel(case["stdout"]), _channel(case["stderr"])
        pid = os.fork()
        if pid == 0:
            _become(case, (out_writer, err_writer))
            return str(case["words"][0])
        for writer in filter(None, (out_writer, err_writer)):
            os.close(writer)
        readers = {reader: name for reader, name in ((out, "out"), (err, "err")) if reader is not None}
        sys.stdout.write(json.dumps(_finish(pid, readers, terminate=bool(case.get("terminate")))) + "\n")
        sys.stdout.flush()
    sys.exit()


def _run(module: str) -> int:
    """Run a program to the end of its threads, and return the exit code that the interpreter would return."""
    code = 0
    try:
        importlib.import_module(f"{module}.__main__").main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - no other way to end as the interpreter does
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            code = _NOT_FLUSHED
    return code


if __name__ == "__main__":
    _import_all()
    gc.freeze()
    # The interpreter's own end would write to most of the memory, which is shared with the parent until then.
    os._exit(_run(_serve()))
