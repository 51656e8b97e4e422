"""IP addresses as text of untrusted origin."""

import pytest

from hotpool.common.ip_addresses import canonical_ip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:a00:1", "10.0.0.1"),
        ("fe80::1%eth0", None),
        ("::ffff:10.0.0.1%1", None),
        ("[::1]", None),
        ("10.0.0.01", None),
        ("10.0.0.1/8", None),
        ("localhost", None),
        ("", None),
    ],
)
def test_an_address_has_one_form(text: str, expected: str | None) -> None:
    assert canonical_ip(text) == expected
