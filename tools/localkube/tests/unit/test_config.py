"""The config file and the image of a cluster."""

import pytest

from localkube import config
from localkube.errors import KindError

HEADER = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"


def test_a_config_says_what_this_cluster_can_honour() -> None:
    text = HEADER + (
        "name: mine\nnodes: [{role: control-plane}]\nfeatureGates: {Some: true, Other: false}\n"
        'runtimeConfig: {"api/alpha": "true"}\nnetworking: {apiServerPort: 6443, apiServerAddress: 127.0.0.1}\n'
    )
    assert config.load(text, "f") == config.ClusterConfig(
        "mine", {"Some": True, "Other": False}, {"api/alpha": "true"}, 6443
    )
    assert config.load("", "f") == config.ClusterConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("[]", "the file must be a map"),
        ("kind: Pod", "field kind must be Cluster, not 'Pod'"),
        ("kind: Cluster", "field apiVersion must be kind.x-k8s.io/v1alpha4, not None"),
        (HEADER + "name: 5", "field name must be a string"),
        (HEADER + "kubeadmConfigPatches: []", "field kubeadmConfigPatches is not supported"),
        (HEADER + "nodes: [{role: worker}]", "field nodes: a cluster needs a control-plane node"),
        (HEADER + "nodes: [{role: master}]", r"field nodes\[0\].role must be control-plane or worker, not 'master'"),
        (HEADER + "nodes: [{}, {}]", "field nodes: this local cluster has one control-plane node, not 2"),
        (HEADER + "nodes: [{}, {role: worker}, {role: worker}]", "has one worker at most, not 2"),
        (HEADER + "nodes: [{labels: {a: b}}]", r"field nodes\[0\].labels is not supported"),
        (HEADER + "nodes: [{}, {role: worker, labels: {a: 1}}]", r"field nodes\[1\].labels.a must be"),
        (HEADER + "nodes: [{}, {role: worker, labels: {'a,b': c}}]", r"field nodes\[1\].labels.a,b must be"),
        (HEADER + "nodes: [{extraMounts: []}]", r"field nodes\[0\].extraMounts is not supported"),
        (HEADER + "networking: {ipFamily: ipv6}", "field networking.ipFamily is not supported"),
        (HEADER + "networking: {apiServerAddress: 0.0.0.0}", "field networking.apiServerAddress must be 127.0.0.1"),
        (HEADER + "networking: {apiServerPort: 70000}", "field networking.apiServerPort must be a port"),
        (HEADER + "networking: {apiServerPort: true}", "field networking.apiServerPort must be a port"),
        (HEADER + "featureGates: {A: 'yes'}", "field featureGates.A must be true or false"),
        (HEADER + "runtimeConfig: {'a,b': true}", "field runtimeConfig.a,b must be"),
    ],
)
def test_a_config_that_cannot_be_honoured_names_its_field(text: str, message: str) -> None:
    with pytest.raises(KindError, match=f"^kind.yaml.*{message}"):
        config.load(text, "kind.yaml")


def test_an_image_stands_for_a_version() -> None:
    for image in ("kindest/node:v1.37.2", "host:5000/node:v1.37.0@sha256:abc"):
        config.check_image(image, "v1.37.2")
    for image in ("kindest/node:v1.3.2", "kindest/node", "host:5000/node", "kindest/node:v1.370.0"):
        with pytest.raises(KindError, match=r"Kubernetes v1\.37\.2 only"):
            config.check_image(image, "v1.37.2")
