"""Write the certificates and keys of one cluster.

There are two authorities (the cluster's, and etcd's own so that no cluster user can read etcd), the certificates that
they sign, and the key pair of service accounts. Must not leave a file that others can read.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localkube.paths import make_private, write_private
from localkube.worker import Worker, services_of

KUBELET_CLIENT = "apiserver-kubelet-client"
DNS_USER = "system:coredns"
KUBELET_USER = "kube-apiserver-kubelet-client"  # What the API server calls itself before the kubelet.
_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
_API_NAMES = tuple(
    x509.DNSName(f"kubernetes{suffix}") for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local")
)
_USERS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
}
_WORKER_USERS = {
    KUBELET_CLIENT: (KUBELET_USER, None),
    "kube-proxy": ("system:kube-proxy", None),
    "dns": (DNS_USER, None),
}
_SKEW = dt.timedelta(hours=1)
_VALIDITY = dt.timedelta(days=365)


def write_certificates(folder: Path, worker: Worker | None = None) -> None:
    """Fill the folder with everything that the cluster's programs and its administrator need."""
    make_private(folder)
    cluster = Authority.create("kubernetes-ca")
    cluster.write(folder / "ca")
    names = [*_API_NAMES, *_LOCAL, x509.IPAddress(services_of(worker)[1])]
    if worker:
        _write_worker(folder, cluster, worker)
        names.append(x509.IPAddress(worker.address))
    for stem, (user, group) in _USERS.items():
        cluster.issue(_subject(user, group), [_CLIENT]).write(folder / stem)
    cluster.issue(_subject("kube-apiserver"), [_SERVER], names).write(folder / "apiserver")
    etcd = Authority.create("etcd-ca")
    etcd.write(folder / "etcd-ca")
    # One certificate serves clients and peers: etcd presents it in both roles.
    etcd.issue(_subject("etcd"), [_SERVER, _CLIENT], _LOCAL).write(folder / "etcd")
    etcd.issue(_subject("kube-apiserver-etcd-client"), [_CLIENT]).write(folder / "apiserver-etcd-client")
    _write_account_keys(folder)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, stem: Path) -> None:
        """Write ``<stem>.crt`` and ``<stem>.key``."""
        write_private(stem.with_suffix(".crt"), self.certificate.public_bytes(serialization.Encoding.PEM))
        write_private(stem.with_suffix(".key"), _pem(self.key))


class Authority(Pair):
    """A pair that signs others."""

    @classmethod
    def create(cls, name: str) -> "Authority":
        """Make a self-signed authority."""
        key = _new_key()
        builder = _builder(_subject(name), key).issuer_name(_subject(name))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(
        self, subject: x509.Name, usages: Sequence[x509.ObjectIdentifier], names: Sequence[x509.GeneralName] = ()
    ) -> Pair:
        """Sign a new key for the subject."""
        key = _new_key()
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = _builder(subject, key).issuer_name(self.certificate.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(signer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Pair(builder.sign(self.key, hashes.SHA256()), key)


def _write_worker(folder: Path, cluster: Authority, worker: Worker) -> None:
    for stem, (user, group) in _WORKER_USERS.items():
        cluster.issue(_subject(user, group), [_CLIENT]).write(folder / stem)
    node = f"system:node:{worker.name}"
    cluster.issue(_subject(node, "system:nodes"), [_CLIENT]).write(folder / "kubelet")
    names = [x509.DNSName(worker.name), x509.IPAddress(worker.address)]
    cluster.issue(_subject(node, "system:nodes"), [_SERVER], names).write(folder / "kubelet-server")


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(user: str, group: str | None = None) -> x509.Name:
    """Kubernetes reads the user from CN and the group from O."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    if group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(attributes)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_account_keys(folder: Path) -> None:
    key = _new_key()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_private(folder / "sa.key", _pem(key))
    write_private(folder / "sa.pub", public)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
