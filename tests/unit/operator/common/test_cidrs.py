"""CIDRs in settings: an error names the bad one."""

from ipaddress import ip_network

import pytest

from hotpool.common.cidrs import parse_cidrs


def test_ranges_are_separated_by_commas() -> None:
    assert parse_cidrs("10.0.0.0/8, fd00::/8,") == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert parse_cidrs("") == ()


@pytest.mark.parametrize("bad", ["10.0.0.0/33", "10.0.0.1/8", "fd00::/129", "ten", "::ffff:10.0.0.0/104"])
def test_a_text_that_is_no_range_is_named(bad: str) -> None:
    with pytest.raises(ValueError, match=f"'{bad}' is no CIDR"):
        parse_cidrs(f"10.0.0.0/8,{bad}")
