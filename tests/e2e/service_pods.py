"""Pods that serve HTTP and send requests, and the chart's values, for tests of Services of pools."""

from typing import Any, Final

VALUES: Final[dict[str, Any]] = {
    "agent": {"enabled": False},
    "services": {"enabled": True},
    "endpoints": {"allowedCIDRs": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"]},
}
PORT: Final = 6000
"""That of the first service of a simulated agent."""
SERVER: Final = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = os.environ["HOSTNAME"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""
"""Program that answers with its pod's name. Argument: its port."""


def pod(name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    """Return the metadata and the spec of a pod, labelled `app: name`, with one container of hotpool's image."""
    container = {"name": name, "image": "hotpool/hotpool:0.1.0", "imagePullPolicy": "Never", "command": command}
    common = {"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False, "containers": [container]}
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": {**common, **spec}}
