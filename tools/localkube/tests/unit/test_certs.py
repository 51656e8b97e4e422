"""The certificates of the control plane."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def _certificate(pki: Path, stem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((pki / f"{stem}.crt").read_bytes())


@pytest.mark.parametrize(
    ("stem", "user", "group", "authority"),
    [
        ("admin", "kubernetes-admin", ["system:masters"], "ca"),
        ("controller-manager", "system:kube-controller-manager", [], "ca"),
        ("scheduler", "system:kube-scheduler", [], "ca"),
        ("apiserver-etcd-client", "kube-apiserver-etcd-client", [], "etcd-ca"),
    ],
)
def test_a_client_certificate_says_who_and_serves_for_nothing_else(
    pki: Path, stem: str, user: str, group: list[str], authority: str
) -> None:
    certificate = _certificate(pki, stem)
    certificate.verify_directly_issued_by(_certificate(pki, authority))
    names = {
        oid: certificate.subject.get_attributes_for_oid(oid) for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    }
    assert [name.value for name in names[NameOID.COMMON_NAME]] == [user]
    assert [name.value for name in names[NameOID.ORGANIZATION_NAME]] == group
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_api_server_is_named_as_its_clients_call_it(pki: Path) -> None:
    names = _certificate(pki, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "10.96.0.1"}
    assert {"localhost", "kubernetes.default.svc"} <= set(names.get_values_for_type(x509.DNSName))


def test_no_user_of_the_cluster_is_a_client_of_etcd(pki: Path) -> None:
    with pytest.raises(ValueError, match="issuer"):
        _certificate(pki, "admin").verify_directly_issued_by(_certificate(pki, "etcd-ca"))


def test_only_the_owner_reads_certificates_and_keys(pki: Path) -> None:
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in pki.iterdir()} == {0o600}
