"""Type of the sans-I/O generators of the look-up."""

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

from hotpool.projection.functions import CommandArgs

T = TypeVar("T")
Steps: TypeAlias = Generator[CommandArgs, Any, T]
"""Yields each command, receives its reply or has its error raised, and returns the result."""
