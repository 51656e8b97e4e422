"""The pages of the documentation about Redis: sessions with redis-cli, their output, access lines, programs."""

from __future__ import annotations

import re
import shlex
from typing import Any

from localfleet.kind import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGE = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("reference/redis.md", "how-to/look-up.md"))
OPERATOR = "hotpool-operator"
PROMPT = "127.0.0.1:6379> "


def shown(reply: Any) -> str:
    """A reply as redis-cli shows it to people."""
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
    told = []
    for number, item in enumerate(reply, start=1):
        first, *rest = _lines(item)
        told.append(f"{number:>{width}}) {first}")
        told += [" " * (width + 2) + line for line in rest]
    return told


def sessions(page: str) -> list[tuple[str, str]]:
    """Each command of the page's blocks `redis-cli`, and what it says comes of it."""
    found = []
    for block in re.findall(r"^```redis-cli\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        assert block.startswith(PROMPT)
        for part in block.split(PROMPT)[1:]:
            command, _, answer = part.partition("\n")
            found.append((command, answer.rstrip("\n")))
    return found


def timeless(text: str) -> str:
    """The same with every moment in ms since 1970, and every age of an answer to a pick, left out."""
    aged = re.sub(r'^("\S+ \w+ \S+) \d+ ', r"\1 <age> ", text)
    return re.sub(r"\b\d{13}\b", "<ms>", aged)


def access() -> dict[str, list[str]]:
    """The rules of each user of the page."""
    blocks = re.findall(r"^```sh\nredis-cli (ACL SETUSER.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(block.replace("\\\n", " ")) for block in blocks]
    return {words[2]: words[3:] for words in lines}
