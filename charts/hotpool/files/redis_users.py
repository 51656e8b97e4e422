"""Write the users of the built-in Redis to a file, with hashes of their passwords.

Runs before the server, in the image of hotpool. The passwords are files of an existing Secret. Without one they are in
Secret `hotpool-redis`, to which this program adds those that it lacks. $USERS has a placeholder for each hash.
"""

import base64
import hashlib
import json
import os
import secrets
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

SECRET: Final = "hotpool-redis"  # noqa: S105 - its name.
USERS: Final = {"#OPERATOR": "operator-password", "#DISPATCHER": "dispatcher-password"}
"""Placeholder → key in the Secret."""
TARGET: Final = Path("etc/hotpool-redis/users.acl")
FILES: Final = Path("etc/hotpool-redis-passwords")
ACCOUNT: Final = Path("var/run/secrets/kubernetes.io/serviceaccount")
SECONDS: Final = 10.0


class Api:
    """The Secret on the API server. `root`: folder of the token and the certificate."""

    def __init__(self, root: Path) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._url = (
            f"https://{authority}/api/v1/namespaces/{os.environ['NAMESPACE']}/secrets/{SECRET}?fieldManager={SECRET}"
        )
        self._headers = {"Authorization": f"Bearer {(root / ACCOUNT / 'token').read_text().strip()}"}
        context = ssl.create_default_context(cafile=str(root / ACCOUNT / "ca.crt"))
        # A proxy for the internet does not reach the API server.
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def send(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request, and return the Secret. Raises OSError."""
        data = json.dumps(body).encode() if body else None
        headers = self._headers | {"Content-Type": "application/merge-patch+json"}
        request = urllib.request.Request(self._url, data, headers, method=method)  # noqa: S310 - https.
        with self._opener.open(request, timeout=SECONDS) as response:
            found: dict[str, Any] = json.load(response)
        return found


def from_api(api: Api) -> dict[str, bytes]:
    """Return the passwords in the Secret, after adding those that it lacks. Raises OSError."""
    found = api.send("GET")
    missing = [key for key in USERS.values() if not (found.get("data") or {}).get(key)]
    if missing:
        new = {key: base64.b64encode(secrets.token_urlsafe(24).encode()).decode() for key in missing}
        # Of two pods that add passwords, the version lets only one succeed. The other is started again.
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        found = api.send("PATCH", {"metadata": version, "data": new})
    return {key: base64.b64decode(found["data"][key]) for key in USERS.values()}


def from_files(folder: Path) -> dict[str, bytes]:
    """Return the passwords in files. Raises OSError."""
    return {key: (folder / key).read_bytes() for key in USERS.values()}


def with_hashes(users: str, passwords: dict[str, bytes]) -> str:
    """Return the users with hashes for the placeholders. Raises ValueError for an empty password."""
    for placeholder, key in USERS.items():
        password = passwords[key].rstrip(b"\r\n")  # as the operator reads it
        if not password:
            raise ValueError(f"{key} is empty")
        users = users.replace(placeholder, f"#{hashlib.sha256(password).hexdigest()}")
    return users


def main(root: Path) -> None:
    """Write the file. `root`: folder to use as `/`."""
    try:
        passwords = from_files(root / FILES) if (root / FILES).is_dir() else from_api(Api(root))
        (root / TARGET).write_text(with_hashes(os.environ["USERS"], passwords))
    except (OSError, ValueError) as error:
        detail = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        sys.exit(f"no users for Redis: {error} {detail}".rstrip())


if __name__ == "__main__":
    main(Path("/"))
