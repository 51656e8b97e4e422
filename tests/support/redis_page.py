"""Documentation pages about Redis: sessions with redis-cli, their output, ACL rules, programs."""

from __future__ import annotations

import re
import shlex
from typing import Any

from localfleet.kind import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGE = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("reference/redis.md", "how-to/look-up.md"))
OPERATOR = "hotpool-operator"
PROMPT = "127.0.0.1:6379> "


def format_reply(reply: Any) -> str:
    """Format a reply as redis-cli does in a terminal."""
    return "\n".join(_lines(reply))


def _lines(reply: Any) -> list[str]:
    if reply is None:
        return ["(nil)"]
    if isinstance(reply, int):
        return [f"(integer) {reply}"]
    if isinstance(reply, bytes):
        return ['"' + reply.decode().replace("\\", "\\\\").replace('"', '\\"') + '"']
    if not reply:
        return ["(empty array)"]
    width = len(str(len(reply)))
    lines = []
    for number, item in enumerate(reply, start=1):
        first, *rest = _lines(item)
        lines.append(f"{number:>{width}}) {first}")
        lines += [" " * (width + 2) + line for line in rest]
    return lines


def sessions(page: str) -> list[tuple[str, str]]:
    """Return each command of the page's `redis-cli` blocks with its documented output."""
    results = []
    for block in re.findall(r"^```redis-cli\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        assert block.startswith(PROMPT)
        for part in block.split(PROMPT)[1:]:
            command, _, answer = part.partition("\n")
            results.append((command, answer.rstrip("\n")))
    return results


def without_times(text: str) -> str:
    """Replace each Unix time in ms, and each age in a reply to a pick."""
    aged = re.sub(r'^("\S+ \w+ \S+) \d+ ', r"\1 <age> ", text)
    return re.sub(r"\b\d{13}\b", "<ms>", aged)


def acl_rules() -> dict[str, list[str]]:
    """Return the ACL rules of each user of the page."""
    blocks = re.findall(r"^```sh\nredis-cli (ACL SETUSER.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(block.replace("\\\n", " ")) for block in blocks]
    return {words[2]: words[3:] for words in lines}
