"""Text from outside the agent, made representable in a report or refused (requirement A12): pure.

Catalogue, annotations, labels, responses of the API server, facts of the device and errors of probes pass through these
functions, and nothing else decides which text is valid. A report is JSON in UTF-8, so half of a surrogate pair cannot
be in it. NUL could not be passed on to processes and files.
"""

import encodings.utf_16_le  # noqa: F401 - a codec that is imported later may be gone with its files
import json
import math
import re
from typing import Any, Final

MAX_DIGITS: Final = 64
"""Longest number that is read. Python refuses to convert very long ones to or from text."""
REPLACEMENT: Final = "\ufffd"
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def representable(text: str) -> str | None:
    """Return the text with joined surrogate pairs, or None if it has NUL or half of a pair."""
    if "\0" in text:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return _joined(text)
    return text


def readable(text: str, limit: int) -> str:
    """Return text for people in at most `limit` characters. A character that is not representable is replaced."""
    # A pair counts as two characters until it is joined.
    encoded = text[: 2 * limit].encode("utf-16-le", "surrogatepass")
    return encoded.decode("utf-16-le", "replace").replace("\0", REPLACEMENT)[:limit]


def quoted(value: Any, limit: int = 60) -> str:
    """Return the value as in Python's source, for messages, cut behind `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def parse_json(data: bytes | str) -> Any:
    """Parse JSON of which nothing is certain. Raises ValueError.

    Halves of surrogate pairs are replaced, as the API server does. A number that is no finite double, or has more than
    64 digits, becomes None.
    """
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=lambda _: None)
        return _cleaned(value) if _SURROGATE_ESCAPE.search(text) else value
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _joined(text: str) -> str | None:
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _number(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value, len(value))
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value
