"""Kubeconfigs and environments for a comparison of programs with kubectl."""

import base64
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from tests.support.certificates import Pair

PROXY_VARIABLES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
NOWHERE: Final = "http://127.0.0.1:9"
PLUGIN: Final = """
import base64, json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
spec = info["spec"]
cluster = spec.get("cluster", {})
told = {"interactive": spec["interactive"], "keys": sorted(cluster), "config": cluster.get("config"),
        "words": sys.argv[1:], "user": os.environ.get("PLUGIN_USER")}
token = base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
status = json.loads(os.environ.get("PLUGIN_STATUS") or json.dumps({"token": token}))
print(json.dumps({"kind": "ExecCredential", "apiVersion": info["apiVersion"], "status": status}))
"""

Json = dict[str, Any]


@dataclass
class Run:
    """Environment variables, and the options of a command."""

    environment: Mapping[str, str] = field(default_factory=dict)
    context: str | None = None
    kubeconfig: str | None = None


@dataclass(frozen=True)
class Setup:
    """Folder of one program in one case, its port of the server, and what a kubeconfig may name."""

    folder: Path
    port: int
    proxy: str
    authority: Path
    client: Pair

    def url(self, host: str = "127.0.0.1") -> str:
        """Return the server's address."""
        return f"https://{host}:{self.port}"

    def cluster(self, **more: Any) -> Json:
        """Return a cluster that trusts the server, with further or other fields."""
        fields = {"server": self.url(), "certificate-authority": str(self.authority)} | more
        return {name: value for name, value in fields.items() if value is not None}

    def config(self, name: str = "config", *, entry: str = "main", **parts: Any) -> str:
        """Write a kubeconfig with a context of the entry's name: `cluster`, `user`, `namespace`. Return its path."""
        context = {"cluster": entry, "user": entry}
        if namespace := parts.get("namespace"):
            context["namespace"] = namespace
        return self.write(
            name,
            {
                "current-context": parts.get("current", entry),
                "clusters": [{"name": entry, "cluster": parts.get("cluster") or self.cluster()}],
                "users": [{"name": entry, "user": parts.get("user") or {"token": f"token-{name}"}}],
                "contexts": [{"name": entry, "context": context}],
            },
        )

    def write(self, name: str, content: Json) -> str:
        """Write a kubeconfig with this content, and return its path."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config"} | content), encoding="utf-8")
        return str(path)

    def copy(self, name: str, source: Path) -> str:
        """Copy a file into the folder, and return its name."""
        shutil.copy(source, self.folder / name)
        return name

    def text(self, name: str, content: str) -> str:
        """Write a file, and return its name."""
        (self.folder / name).write_text(content, encoding="utf-8")
        return name

    def plugin(self, **more: Any) -> Json:
        """Return a user with an exec plugin."""
        script = self.folder / self.text("plugin.py", PLUGIN)
        run = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "IfAvailable"}
        return {"exec": run | {"command": sys.executable, "args": ["-S", str(script)]} | more}


def one(path: str, **environment: str) -> Run:
    """Return a run with one kubeconfig in the environment."""
    return Run({"KUBECONFIG": path, **environment})


def several(*paths: str) -> Run:
    """Return a run with a list of kubeconfigs."""
    return Run({"KUBECONFIG": os.pathsep.join(paths)})


def _two_files(setup: Setup) -> Run:
    first = setup.config("first", namespace="alpha")
    return several(first, setup.config("second", entry="other", namespace="beta", user={"token": "second"}))


def _same_names(setup: Setup) -> Run:
    nowhere = {"server": NOWHERE.replace("http:", "https:")}
    first = setup.config("first", namespace="alpha")
    return several(first, setup.config("second", namespace="beta", cluster=nowhere, user={"token": "second"}))


def _parts_in_several_files(setup: Setup) -> Run:
    clusters = {"clusters": [{"name": "main", "cluster": setup.cluster()}]}
    users = {"users": [{"name": "main", "user": {"token": "of-users"}}], "current-context": "main"}
    contexts = setup.config("contexts", namespace="alpha", current="other", user={"username": "u", "password": "p"})
    missing = str(setup.folder / "missing")
    return several(missing, "", setup.write("clusters", clusters), setup.write("users", users), contexts)


def _relative_paths(setup: Setup) -> Run:
    (setup.folder / "far").mkdir()
    user = {"client-certificate": "client.crt", "client-key": "client.key"}
    for name, path in (("ca.crt", setup.authority), ("client.crt", setup.client.certificate)):
        setup.copy(f"far/{name}", path)
    setup.copy("far/client.key", setup.client.key)
    return one(setup.config("far/config", cluster=setup.cluster(**{"certificate-authority": "ca.crt"}), user=user))


def _inline(setup: Setup) -> Run:
    def data(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    cluster = {"certificate-authority": None, "certificate-authority-data": data(setup.authority)}
    user = {"client-certificate-data": data(setup.client.certificate), "client-key-data": data(setup.client.key)}
    return one(setup.config(cluster=setup.cluster(**cluster), user=user))


def _token_file(setup: Setup) -> Run:
    setup.text("token", "  from-file\n\n")
    return one(setup.config(user={"tokenFile": "token"}))


def _token_and_file(setup: Setup) -> Run:
    setup.text("token", "from-file\n")
    return one(setup.config(user={"tokenFile": "token", "token": "older"}))


def _proxy_and_name(setup: Setup) -> Run:
    proxy = setup.proxy.replace("//", "//user:p%40ss@")
    cluster = {"server": setup.url("hidden.test"), "tls-server-name": "other.test", "proxy-url": proxy}
    return one(setup.config(cluster=setup.cluster(**cluster)), HTTPS_PROXY=NOWHERE, NO_PROXY="*")


def _any_name(setup: Setup) -> Run:
    cluster = {"certificate-authority": None, "insecure-skip-tls-verify": True, "tls-server-name": "wrong.test"}
    return one(setup.config(cluster=setup.cluster(**cluster)))


def _by_environment(host: str, excluded: str = "", **more: str) -> Callable[[Setup], Run]:
    """Return a case with HTTPS_PROXY. PORT in `excluded` is the server's."""

    def case(setup: Setup) -> Run:
        # On Linux 0.0.0.0 is the local machine, but not exempt from proxies as loopback addresses are.
        name = {"tls-server-name": "api.test"} if host == "0.0.0.0" else {}  # noqa: S104 - not bound
        path = setup.config(cluster=setup.cluster(server=setup.url(host), **name))
        variables = {"HTTPS_PROXY": setup.proxy, "NO_PROXY": excluded.replace("PORT", str(setup.port))} | more
        return one(path, **{key: value.replace("PROXY", setup.proxy) for key, value in variables.items()})

    return case


def _other_context(setup: Setup) -> Run:
    names = ("main", "other")
    path = setup.write(
        "config",
        {
            "current-context": "main",
            "clusters": [{"name": "main", "cluster": setup.cluster()}],
            "users": [{"name": name, "user": {"token": name}} for name in names],
            "contexts": [
                {"name": name, "context": {"cluster": "main", "user": name, "namespace": f"of-{name}"}}
                for name in names
            ],
        },
    )
    return Run({"KUBECONFIG": path}, context="other")


def _explicit_file(setup: Setup) -> Run:
    variable = setup.config("variable", user={"token": "variable"})
    return Run({"KUBECONFIG": variable}, kubeconfig=setup.config("explicit", namespace="alpha"))


def _home(setup: Setup) -> Run:
    setup.config(".kube/config", user={"token": "home"})
    return Run({"HOME": str(setup.folder), "KUBECONFIG": ""})


def _plugin(setup: Setup) -> Run:
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    user = setup.plugin(provideClusterInfo=True, env=[{"name": "PLUGIN_USER", "value": "me"}])
    return one(setup.config(cluster=setup.cluster(extensions=[extension]), user=user))


def _relative_plugin(setup: Setup) -> Run:
    text = f"#!/bin/sh\nexec {sys.executable} -S {setup.folder}/plugin.py\n"
    (setup.folder / setup.text("login", text)).chmod(0o700)
    return one(setup.config(user=setup.plugin(command="./login", args=None, interactiveMode="Never")))


def _plugin_certificate(setup: Setup) -> Run:
    pair = {
        "clientCertificateData": setup.client.certificate.read_text(encoding="utf-8"),
        "clientKeyData": setup.client.key.read_text(encoding="utf-8"),
    }
    return one(setup.config(user=setup.plugin()), PLUGIN_STATUS=json.dumps(pair))


def _acting_as(setup: Setup) -> Run:
    acting = {
        "as": "boss",
        "as-uid": "7",
        "as-groups": ["g1", "g2"],
        "as-user-extra": {"scopes": ["a", "b"], "x.y/z%": ["c"]},
    }
    return one(setup.config(user={"token": "t"} | acting))


def _number(setup: Setup) -> Run:
    text = Path(setup.config(namespace="NUMBER")).read_text(encoding="utf-8")
    setup.text("config", text.replace("NUMBER", "1234"))
    return one(str(setup.folder / "config"))


def _twice(setup: Setup) -> Run:
    user = {"name": "main", "user": {"token": "t"}}
    context = {"name": "main", "context": {"cluster": "main", "user": "main"}}
    cluster = {"name": "main", "cluster": setup.cluster()}
    parts = {"clusters": [cluster], "users": [user, user], "contexts": [context], "current-context": "main"}
    return one(setup.write("config", parts))


LOCAL: Final = "0.0.0.0"  # noqa: S104 - not bound

CASES: Final[Mapping[str, Callable[[Setup], Run]]] = {
    "token": lambda setup: one(setup.config(namespace="alpha")),
    "no namespace": lambda setup: one(setup.config()),
    "the first of two files": _two_files,
    "the same names in two files": _same_names,
    "parts in several files": _parts_in_several_files,
    "relative paths": _relative_paths,
    "inline data": _inline,
    "token file with newlines": _token_file,
    "token file before token": _token_and_file,
    "token where the file is missing": lambda setup: one(setup.config(user={"tokenFile": "no", "token": "kept"})),
    "user and password": lambda setup: one(setup.config(user={"username": "u", "password": "p:ü"})),
    "tls-server-name": lambda setup: one(setup.config(cluster=setup.cluster(**{"tls-server-name": "other.test"}))),
    "proxy-url and tls-server-name": _proxy_and_name,
    "insecure-skip-tls-verify": _any_name,
    "prefix": lambda setup: one(setup.config(cluster=setup.cluster(server=f"{setup.url()}/prefix/"))),
    "HTTPS_PROXY": _by_environment("api.test"),
    "https_proxy": _by_environment("api.test", HTTPS_PROXY="", https_proxy="PROXY"),
    "HTTPS_PROXY before https_proxy": _by_environment("api.test", https_proxy=NOWHERE),
    "loopback is never proxied": _by_environment("127.0.0.1", HTTPS_PROXY=NOWHERE),
    "HTTP_PROXY is not for https": _by_environment(LOCAL, HTTPS_PROXY="", HTTP_PROXY=NOWHERE),
    "NO_PROXY with a network": _by_environment(LOCAL, "10.0.0.0/8, 0.0.0.0/8"),
    "NO_PROXY with another network": _by_environment(LOCAL, "10.0.0.0/8"),
    "NO_PROXY with the port": _by_environment(LOCAL, "0.0.0.0:PORT"),
    "NO_PROXY with another port": _by_environment(LOCAL, "0.0.0.0:1"),
    "NO_PROXY with all": _by_environment(LOCAL, "*"),
    "NO_PROXY with subdomains": _by_environment("api.test", ".api.test,*.api.test,est"),
    "NO_PROXY with the domain": _by_environment("api.zone.test", "zone.test"),
    "no_proxy": _by_environment(LOCAL, "", no_proxy=LOCAL),
    "--context": _other_context,
    "--kubeconfig": _explicit_file,
    "the home folder's": _home,
    "exec plugin": _plugin,
    "exec plugin with a relative path": _relative_plugin,
    "exec plugin with a certificate": _plugin_certificate,
    "acting as": _acting_as,
    "quoted number": lambda setup: one(setup.config(namespace="1234")),
    "number where text belongs": _number,
    "exec plugin that fails": lambda setup: one(setup.config(user=setup.plugin(command="false", args=None))),
    "exec plugin that is missing": lambda setup: one(setup.config(user=setup.plugin(command="no-such-program"))),
    "exec plugin that needs a terminal": lambda setup: one(setup.config(user=setup.plugin(interactiveMode="Always"))),
    "unknown context": lambda setup: Run({"KUBECONFIG": setup.config()}, context="nowhere"),
    "missing file": lambda setup: Run(kubeconfig=str(setup.folder / "missing")),
    "empty file": lambda setup: one(setup.write("config", {})),
    "wrong TLS name": lambda setup: one(setup.config(cluster=setup.cluster(**{"tls-server-name": "wrong.test"}))),
    "untrusted server": lambda setup: one(setup.config(cluster=setup.cluster(**{"certificate-authority": None}))),
    "authority and insecure": lambda setup: one(
        setup.config(cluster=setup.cluster(**{"insecure-skip-tls-verify": True}))
    ),
    "a name twice in one file": _twice,
}
