"""IP addresses that clients can connect to."""

import pytest

from hotpool_agent.ip_addresses import is_advertisable, is_loopback, is_routed, one_per_family

UNSPECIFIED = ["0.0.0.0", "::"]  # noqa: S104 - nothing is bound


@pytest.mark.parametrize("text", ["169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1", *UNSPECIFIED, "x"])
def test_an_address_that_names_no_machine_is_never_used(text: str) -> None:
    assert not is_advertisable(text)
    assert not is_routed(text)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_a_loopback_address_is_used_only_where_a_person_gives_it(text: str) -> None:
    assert is_loopback(text)
    assert is_advertisable(text)
    assert not is_routed(text)


def test_the_first_address_of_each_family_is_kept() -> None:
    assert one_per_family(["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2"]) == ("fd00::1", "10.0.0.1")
