"""Build the command lines of a worker's programs, and the files that configure them.

All functions are pure and depend on the cluster's layout only. Must not do anything else.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from localkube.components import Layout
from localkube.worker import Worker, cgroup_name

NODE, RELAY, CONTAINERD, KUBE_PROXY, KUBELET, DNS = "node", "relay", "containerd", "kube-proxy", "kubelet", "dns"
# In the order of starting. The node is the first process of the namespaces: all others in them end with it.
WORKER_PROGRAMS = (NODE, RELAY, CONTAINERD, KUBE_PROXY, KUBELET, DNS)
SOCKET = "/run/containerd/containerd.sock"
PAUSE_IMAGE = "localhost/pause:1"
DNS_READY_PORT, PROXY_READY_PORT = 8181, 10256
_ROOT = {"root-dir": "/var/lib/kubelet"}


def inner_command_lines(layout: Layout) -> dict[str, list[str]]:
    """The command lines of the programs inside the node's namespaces."""
    worker = _worker(layout)
    files, binaries = node_folder(layout.folder) / "etc", layout.binaries
    labels = ",".join(f"{name}={value}" for name, value in worker.labels.items())
    kubelet = {
        "config": files / "kubelet.yaml",
        "kubeconfig": layout.kubeconfig(KUBELET),
        "hostname-override": worker.name,
        "node-ip": worker.address,
        **_ROOT,
        **({"node-labels": labels} if labels else {}),
    }
    return {
        CONTAINERD: [str(binaries / CONTAINERD), "--config", str(files / "containerd.toml")],
        KUBE_PROXY: [str(binaries / KUBE_PROXY), f"--config={files / 'kube-proxy.yaml'}"],
        KUBELET: [str(binaries / KUBELET), *(f"--{name}={value}" for name, value in kubelet.items())],
        DNS: [str(binaries / DNS), "-conf", str(files / "Corefile")],
    }


def node_folder(folder: Path) -> Path:
    """Return the folder of the worker's files: ``etc`` is read by its programs, ``var`` is the node's /var."""
    return folder / "node"


def config_files(layout: Layout, runc: str) -> dict[str, str]:
    """The files of the folder ``etc``, by their names in it."""
    worker = _worker(layout)
    return {
        "containerd.toml": _containerd(layout, runc),
        "cni/10-pods.conflist": json.dumps(_cni(worker)),
        "kubelet.yaml": yaml.safe_dump(_kubelet(layout, worker)),
        "kube-proxy.yaml": yaml.safe_dump(_kube_proxy(layout, worker)),
        "Corefile": _corefile(layout, worker),
    }


def permissions(dns_user: str, kubelet_client: str) -> list[dict[str, Any]]:
    """Return the permissions of the DNS server and the API server (towards the kubelet) beyond the built-in roles."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": dns_user},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }
    return [role, _binding(dns_user, dns_user), _binding("system:kubelet-api-admin", kubelet_client)]


def _binding(role: str, user: str) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def _worker(layout: Layout) -> Worker:
    if not layout.worker:
        raise ValueError("the cluster has no worker")
    return layout.worker


def _containerd(layout: Layout, runc: str) -> str:
    """Its own places are /run/containerd and /var/lib/containerd, which are the node's own."""
    runtime, cni = "io.containerd.cri.v1.runtime", node_folder(layout.folder) / "etc" / "cni"
    return f"""version = 3
# opt would make folders in /opt, and nri has no peer.
disabled_plugins = ['io.containerd.internal.v1.opt', 'io.containerd.nri.v1.nri']
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE_IMAGE}'
[plugins.'{runtime}']
# Where the machine forbids to lower the score, no container would start.
restrict_oom_score_adj = true
[plugins.'{runtime}'.cni]
bin_dirs = ['{layout.binaries}']
conf_dir = '{cni}'
[plugins.'{runtime}'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'{runtime}'.containerd.runtimes.runc.options]
BinaryName = '{runc}'
SystemdCgroup = false
"""


def _cni(worker: Worker) -> dict[str, Any]:
    """Each pod has a link of its own to the node (ptp): all is routed, so no bridge module is needed on the host."""
    pods = {"type": "host-local", "ranges": [[{"subnet": str(worker.pods)}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipam": pods},
            {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": True}},
        ],
    }


def _kubelet(layout: Layout, worker: Worker) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(worker.address),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [str(worker.address)],
        # Nothing of the host's names in pods: they have no way out.
        "resolvConf": "",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "volumePluginDir": f"{_ROOT['root-dir']}/volume-plugins",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup_name(layout.folder)}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        # The host's settings are never changed: node.py shows it those that it wants.
        "protectKernelDefaults": True,
        # A full disk of the host is not this node's business.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        # Images come from archives: what it removed could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        **({"featureGates": dict(layout.feature_gates)} if layout.feature_gates else {}),
    }


def _kube_proxy(layout: Layout, worker: Worker) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig(KUBE_PROXY))},
        "hostnameOverride": worker.name,
        "clusterCIDR": str(worker.pods),
        "detectLocalMode": "ClusterCIDR",
        "healthzBindAddress": f"{worker.address}:{PROXY_READY_PORT}",
        # Limits of connection tracking belong to the host.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        **({"featureGates": dict(layout.feature_gates)} if layout.feature_gates else {}),
    }


def _corefile(layout: Layout, worker: Worker) -> str:
    return f""".:53 {{
    bind {worker.address}
    ready {worker.address}:{DNS_READY_PORT}
    errors
    kubernetes cluster.local {{
        kubeconfig {layout.kubeconfig(DNS)}
    }}
}}
"""


def sysctls() -> Mapping[str, str]:
    """Return what the kubelet requires (setupKernelTunables of its container manager); the host keeps its own."""
    return {
        "vm/overcommit_memory": "1",
        "vm/panic_on_oom": "0",
        "kernel/panic": "10",
        "kernel/panic_on_oops": "1",
        "kernel/keys/root_maxkeys": "1000000",
        "kernel/keys/root_maxbytes": "25000000",
    }
