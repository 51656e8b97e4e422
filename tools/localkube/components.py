"""Build the command lines of the control plane's programs.

Each program has one pure function. Must not do anything else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from localkube.certs import KUBELET_CLIENT
from localkube.ports import LOOPBACK
from localkube.worker import Worker, services_of

ETCD, APISERVER, CONTROLLERS, SCHEDULER = "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"
# In the order of starting.
PROGRAMS = (ETCD, APISERVER, CONTROLLERS, SCHEDULER)


@dataclass(frozen=True)
class Ports:
    """The ports of one cluster, all on 127.0.0.1."""

    apiserver: int
    etcd: int
    etcd_peer: int

    def numbers(self) -> set[int]:
        """All of them."""
        return set(asdict(self).values())


@dataclass(frozen=True)
class Layout:
    """Inputs of the command lines of one cluster."""

    folder: Path
    binaries: Path
    ports: Ports
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    runtime_config: Mapping[str, str] = field(default_factory=dict)
    worker: Worker | None = None

    @property
    def pki(self) -> Path:
        """The folder of certificates."""
        return self.folder / "pki"

    def kubeconfig(self, program: str) -> Path:
        """The file with which a program speaks to the API server."""
        return self.folder / f"{program}.conf"

    def gates(self) -> dict[str, object]:
        """The flag of the feature gates, if there are any."""
        gates = ",".join(f"{name}={str(on).lower()}" for name, on in self.feature_gates.items())
        return {"feature-gates": gates} if gates else {}


def command_lines(layout: Layout) -> dict[str, list[str]]:
    """The command line of each program, in the order of starting."""
    flags = (_etcd(layout), _apiserver(layout), _controllers(layout), _scheduler(layout))
    return {
        program: [str(layout.binaries / program), *_words(options)]
        for program, options in zip(PROGRAMS, flags, strict=True)
    }


def _etcd(layout: Layout) -> dict[str, object]:
    pki, client = layout.pki, f"https://{LOOPBACK}:{layout.ports.etcd}"
    peer = f"https://{LOOPBACK}:{layout.ports.etcd_peer}"
    return {
        "name": "local",
        "data-dir": layout.folder / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"local={peer}",
        "client-cert-auth": "true",
        "trusted-ca-file": pki / "etcd-ca.crt",
        "cert-file": pki / "etcd.crt",
        "key-file": pki / "etcd.key",
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": pki / "etcd-ca.crt",
        "peer-cert-file": pki / "etcd.crt",
        "peer-key-file": pki / "etcd.key",
        # A power cut may lose what was written last: right for a cluster that lives as long as a test, and far quicker.
        "unsafe-no-fsync": "true",
    }


def _apiserver(layout: Layout) -> dict[str, object]:
    pki = layout.pki
    runtime = ",".join(f"{api}={value}" for api, value in layout.runtime_config.items())
    return {
        "bind-address": LOOPBACK,
        "secure-port": layout.ports.apiserver,
        **_endpoint(layout),
        "etcd-servers": f"https://{LOOPBACK}:{layout.ports.etcd}",
        "etcd-cafile": pki / "etcd-ca.crt",
        "etcd-certfile": pki / "apiserver-etcd-client.crt",
        "etcd-keyfile": pki / "apiserver-etcd-client.key",
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "anonymous-auth": "false",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": pki / "sa.pub",
        "service-account-signing-key-file": pki / "sa.key",
        "service-cluster-ip-range": services_of(layout.worker),
        # Ends watches when it is stopped; else their connections hold it for up to a minute.
        "shutdown-watch-termination-grace-period": "1s",
        "profiling": "false",
        **({"runtime-config": runtime} if runtime else {}),
        **layout.gates(),
    }


def _endpoint(layout: Layout) -> dict[str, object]:
    """Return the flags by which pods reach the API server, and it reaches their kubelet."""
    if not layout.worker:
        # A loopback address may not be an endpoint of the service `kubernetes`.
        return {"advertise-address": LOOPBACK, "endpoint-reconciler-type": "none"}
    return {
        # There the relay listens, on the same port.
        "advertise-address": layout.worker.address,
        "kubelet-certificate-authority": layout.pki / "ca.crt",
        "kubelet-client-certificate": layout.pki / f"{KUBELET_CLIENT}.crt",
        "kubelet-client-key": layout.pki / f"{KUBELET_CLIENT}.key",
    }


def _controllers(layout: Layout) -> dict[str, object]:
    pki = layout.pki
    return {
        **_client(layout, CONTROLLERS),
        "cluster-signing-cert-file": pki / "ca.crt",
        "cluster-signing-key-file": pki / "ca.key",
        "root-ca-file": pki / "ca.crt",
        "service-account-private-key-file": pki / "sa.key",
        "use-service-account-credentials": "true",
        # At the default rate its forty controllers take seconds to get their credentials.
        "kube-api-qps": 500,
        "kube-api-burst": 1000,
    }


def _scheduler(layout: Layout) -> dict[str, object]:
    return _client(layout, SCHEDULER)


def _client(layout: Layout, program: str) -> dict[str, object]:
    return {
        "kubeconfig": layout.kubeconfig(program),
        "bind-address": LOOPBACK,
        # No port at all: nothing here asks for their metrics.
        "secure-port": 0,
        # One of each: an election would only delay the start, and end them while the API server is stopped.
        "leader-elect": "false",
        "profiling": "false",
        **layout.gates(),
    }


def _words(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]
