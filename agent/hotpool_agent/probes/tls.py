"""TLS contexts of HTTPS probes. Blocking: reads files, which may be on a hung file system."""

import ssl
from pathlib import Path


class TlsContexts:
    """TLS contexts by their files. A context takes milliseconds to make, so it is kept until its file changes."""

    def __init__(self) -> None:
        self._contexts: dict[Path | bool, tuple[tuple[int, ...], ssl.SSLContext]] = {}

    def get(self, ca_file: Path | None, *, insecure: bool) -> ssl.SSLContext:
        """Return a context that trusts the file, or the system. `insecure`: it accepts any certificate.

        Raises OSError, of which ssl.SSLError for a file without a certificate.
        """
        key, version = ca_file or insecure, _version(ca_file) if ca_file else ()
        kept = self._contexts.get(key)
        if kept is None or kept[0] != version:
            kept = self._contexts[key] = version, _context(ca_file, insecure=insecure)
        return kept[1]


def _version(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _context(ca_file: Path | None, *, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
