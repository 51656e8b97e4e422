"""Logins from kubeconfigs: errors of their parts in one line, and no file that others could read (requirement F5)."""

import base64
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.certificates import Authority

from hotpool.common.kube_login import Login, load_login
from hotpool.common.kubeconfig import Target, TargetError


def login(folder: Path, user: dict[str, Any], **cluster: Any) -> Login:
    """Return the login of a kubeconfig with this user and cluster."""
    content = {
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "https://api.test"} | cluster}],
        "users": [{"name": "a", "user": user}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_login(Target(str(path)))


def oidc(expires: float, name: str = "oidc") -> dict[str, Any]:
    """Return a user with the token of an OpenID provider."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
    return {"auth-provider": {"name": name, "config": {"id-token": f"e30.{claims}.c2ln"}}}


@pytest.mark.parametrize(
    ("user", "cluster", "reason"),
    [
        ({"token": "a\nb"}, {}, "is not one line of ASCII"),
        ({"token": "ä"}, {}, "is not one line of ASCII"),
        ({"token": "t"}, {"certificate-authority": "missing"}, "missing: No such file or directory"),
        ({"token": "t"}, {"certificate-authority-data": "!"}, "certificate-authority-data of a is not base64"),
        ({"token": "t"}, {"certificate-authority-data": "eA=="}, "the certificate-authority is not usable"),
        ({"token": "t"}, {"proxy-url": "socks5://u:secret@p"}, "proxy socks5://p is not supported"),
        ({"client-certificate": "config"}, {}, "needs both client-certificate and client-key"),
        ({"client-certificate": "config", "client-key": "config"}, {}, "the client certificate is not usable"),
        (oidc(1.0), {}, "has expired; any kubectl command renews it"),
        (oidc(1.0, "gcp"), {}, "auth-provider gcp of a is not supported; use an exec plugin"),
    ],
)
def test_a_part_that_is_not_usable_is_named_in_one_line(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TargetError) as raised:
        login(tmp_path, user, **cluster)
    message = str(raised.value)
    assert message.startswith(f"no usable kubeconfig ({tmp_path}/config): ")
    assert reason in message
    assert "\n" not in message
    assert "secret" not in message


def test_a_valid_token_of_an_openid_provider_is_used(tmp_path: Path) -> None:
    user = oidc(time.time() + 60)
    token = user["auth-provider"]["config"]["id-token"]
    assert login(tmp_path, user).headers == (("Authorization", f"Bearer {token}"),)


def test_a_server_without_a_scheme_uses_tls_where_there_is_something_to_verify(tmp_path: Path) -> None:
    Authority(tmp_path)
    assert login(tmp_path, {"token": "t"}, server="api.test:1/").server == "http://api.test:1"
    authority = {"certificate-authority": "authority.crt"}
    assert login(tmp_path, {"token": "t"}, server="api.test:1", **authority).server == "https://api.test:1"


def test_a_change_of_any_file_makes_a_login_stale(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "token").write_text("t", encoding="utf-8")
    found = login(tmp_path, {"tokenFile": "token"}, **{"certificate-authority": "authority.crt"})
    assert not found.is_stale()
    for name in ("token", "authority.crt", "config"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content + b"\n")
        assert found.is_stale(), name
        (tmp_path / name).write_bytes(content)
    assert not found.is_stale()
    (tmp_path / "token").unlink()
    assert found.is_stale()


def test_trust_is_that_of_go(tmp_path: Path) -> None:
    context = login(tmp_path, {"token": "t"}, **{"insecure-skip-tls-verify": True}).new_context()
    assert context.verify_mode is ssl.CERT_NONE
    Authority(tmp_path)
    context = login(tmp_path, {"token": "t"}, **{"certificate-authority": "authority.crt"}).new_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
