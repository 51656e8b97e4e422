"""Records of ejected services, as the operator and the command line read them (E8)."""

from __future__ import annotations

from hotpool.projection.failures import (
    Ejection,
    operator_commands,
    parse_ejections,
    pick_commands,
    report_commands,
)
from hotpool.projection.keys import FleetKeys

KEYS = FleetKeys("hotpool", "speech")
LINE = "edge-1 fw asr|fw|6007|http|10.0.3.1 zh-en 1 1000 30000 31000 0 1000 one,two -"
WHOLE = "edge-2 - - any 3 2000 60000 62000 5000 2000 one two"


def test_records_are_parsed() -> None:
    assert parse_ejections(f"{LINE}\n{WHOLE}") == (
        Ejection("edge-1", "fw", "asr", "zh-en", ("one", "two"), 1.0, 31.0),
        Ejection("edge-2", None, None, "any", ("one",), 2.0, 62.0),
    )


def test_lines_that_no_function_wrote_are_left_out() -> None:
    assert parse_ejections("") == ()
    assert len(parse_ejections(f"one two\n\n{LINE} more\n{LINE.replace('1000', 'x')}\n{LINE}\n")) == 1


def test_every_command_is_on_the_keys_of_failures() -> None:
    for commands in (pick_commands(KEYS), report_commands(KEYS), operator_commands(KEYS)):
        assert {command.split(" ")[1] for command in commands} <= set(KEYS.failures)
