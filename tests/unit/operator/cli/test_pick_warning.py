"""`hotpool pick` warns on a terminal of a projection that is old or incomplete (requirement E6)."""

import sys
from typing import Any

import pytest
from click.testing import CliRunner

from hotpool.cli import pick
from hotpool.lookup import Counts, Lookup, NoMember, Picked, Reason

PICKED = Picked("edge-1", "Ready", "zh-en", 1, 3.0, complete=True)
OLD = Picked("edge-1", "Ready", "zh-en", 1, 60.0, complete=True)
NEVER = Picked("edge-1", "Ready", "zh-en", 1, None, complete=True)
REBUILT = Picked("edge-1", "Ready", "zh-en", 1, 3.0, complete=False)
STALE = NoMember("zh-en", Reason.STALE, Counts(0, 0, 0, 0, 0), 60.0, complete=True)


def picking(monkeypatch: pytest.MonkeyPatch, result: Picked | NoMember, *, terminal: bool) -> str:
    """Run the command with a look-up that returns `result`. Return standard error."""

    async def picked(*_: Any, **__: Any) -> Picked | NoMember:
        return result

    monkeypatch.setattr(Lookup, "pick", picked)
    monkeypatch.setattr(pick, "sys", _Terminal(terminal=terminal))
    return CliRunner().invoke(pick.pick, ["zh-en", "--redis", "redis://127.0.0.1:1", "-n", "x"]).stderr


class _Terminal:
    """Stands for the module sys, with a standard error that is a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        self.stderr, self._terminal = self, terminal
        self.exit = sys.exit

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (PICKED, ""),
        (OLD, "warning: Redis was confirmed 60s ago: this may be old; see hotpool status\n"),
        (NEVER, "warning: Redis was never confirmed by an operator: this may be old; see hotpool status\n"),
        (REBUILT, "warning: Redis is incomplete, and being rebuilt: pools may be missing\n"),
        (STALE, "no member of pool zh-en: Stale, 60 s old\n"),
    ],
)
def test_a_person_is_warned(monkeypatch: pytest.MonkeyPatch, result: Picked | NoMember, expected: str) -> None:
    assert picking(monkeypatch, result, terminal=True) == expected


def test_a_script_is_not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert picking(monkeypatch, OLD, terminal=False) == ""
