"""Choice of the proxy to the API server by kubectl's rules (requirement B9)."""

import pytest

from hotpool.common.proxy import ProxyError, proxy_for

SERVER = "https://10.1.2.3:6443"
P = "http://proxy.test:3128"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_the_environment_names_a_proxy_for_each_scheme_in_both_cases(name: str) -> None:
    assert proxy_for(SERVER, None, {name: P}) == P
    assert proxy_for("http://api.test", None, {name: P}) is None


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_a_plain_http_server_uses_http_proxy(name: str) -> None:
    assert proxy_for("http://api.test", None, {name: P}) == P
    assert proxy_for(SERVER, None, {name: P}) is None


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    ("server", "excluded", "direct"),
    [
        (SERVER, "10.1.2.3", True),
        (SERVER, "other, 10.0.0.0/8", True),
        (SERVER, "10.1.2.3:6443", True),
        (SERVER, "10.1.2.3:443", False),
        (SERVER, "11.0.0.0/8", False),
        (SERVER, "3", True),
        (SERVER, "*", True),
        (SERVER, "", False),
        ("https://api.example.com", "example.com", True),
        ("https://API.example.com", ".Example.com", True),
        ("https://api.example.com", "*.example.com", True),
        ("https://example.com", ".example.com", False),
        ("https://badexample.com", "example.com", False),
        ("https://api.example.com", "example.com:443", True),
        ("https://api.example.com", "10.0.0.0/8", False),
        ("https://[fd00::1]:6443", "fd00::/8", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://localhost:6443", "", True),
        ("https://127.0.0.1:6443", "", True),
    ],
)
def test_no_proxy_supports_names_networks_and_ports(name: str, server: str, excluded: str, direct: bool) -> None:  # noqa: FBT001
    assert (proxy_for(server, None, {"HTTPS_PROXY": P, name: excluded}) is None) is direct


def test_the_kubeconfigs_proxy_overrides_the_environment_and_no_proxy() -> None:
    environ = {"HTTPS_PROXY": "http://other.test:1"}
    assert proxy_for(SERVER, P, environ) == P
    assert proxy_for(SERVER, P, environ | {"NO_PROXY": "*"}) == P


def test_a_proxy_without_a_scheme_is_plain_http() -> None:
    assert proxy_for(SERVER, None, {"HTTPS_PROXY": "proxy.test:3128"}) == P


def test_an_unsupported_proxy_is_named_without_its_password() -> None:
    with pytest.raises(ProxyError, match=r"socks5://proxy\.test is not supported") as raised:
        proxy_for(SERVER, "socks5://user:secret@proxy.test:1080", {})
    assert "secret" not in str(raised.value)
