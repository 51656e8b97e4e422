"""Claimed addresses that are not used, as text of conditions (requirement B13)."""

from hypothesis import given
from hypothesis import strategies as st

from hotpool.core.address_problems import AddressProblem, conflict, describe, parse

names = st.text("abz09-", min_size=1, max_size=63)
addresses, ports = st.ip_addresses().map(str), st.integers(1, 65535)
reasons = st.sampled_from(["is link-local", "is in endpoints.deniedCIDRs (10.0.0.0/8)"])
problems = st.one_of(
    st.builds(AddressProblem, names, addresses, ports, reasons, st.none()),
    st.builds(conflict, names, addresses, ports, names, equal=st.booleans()),
)


@given(st.lists(problems, max_size=4))
def test_the_text_can_be_read_back(found: list[AddressProblem]) -> None:
    assert list(parse(describe(found))) == found


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_text_is_bounded_and_ends_with_the_number_of_the_others(count: int, length: int) -> None:
    found = [conflict(f"w{number}", "10.0.0.1", 6007, "n" * length, equal=True) for number in range(count)]
    text = describe(found)
    assert len(text) <= 4096
    shown = list(parse(text))
    assert shown == found[: len(shown)]
    assert len(shown) == len(found) or text.endswith(f"and {len(found) - len(shown)} more")


@given(st.text())
def test_any_text_of_others_can_be_read(text: str) -> None:
    list(parse(text))


def test_the_text_names_service_address_port_and_the_other_node() -> None:
    assert describe([conflict("w", "2001:db8::1", 80, "edge-2", equal=True)]) == (
        "w at [2001:db8::1]:80 is claimed by edge-2, too, with an equal right"
    )
