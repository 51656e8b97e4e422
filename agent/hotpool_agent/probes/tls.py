"""TLS contexts of HTTPS probes. Blocking: reads files, which may be on a hung file system."""

import ssl
from functools import lru_cache
from pathlib import Path


def tls_context(ca_file: Path | None, *, insecure: bool) -> ssl.SSLContext:
    """Return a context that trusts the file, or the system. `insecure`: it accepts any certificate.

    Raises OSError, of which ssl.SSLError for a file without a certificate.
    """
    stat = ca_file.stat() if ca_file else None
    return _context(ca_file, insecure, (stat.st_ino, stat.st_mtime_ns, stat.st_size) if stat else ())


# A context takes milliseconds to make, so it is kept until its file changes.
@lru_cache(maxsize=64)
def _context(ca_file: Path | None, insecure: bool, version: tuple[int, ...]) -> ssl.SSLContext:  # noqa: FBT001 - a key
    del version
    context = ssl.create_default_context(cafile=ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
