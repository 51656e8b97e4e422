"""Bounds of names and times as plain constants: a command line needs them without the models, which import pydantic."""

from typing import Final

NODE_NAME_MAX: Final = 200
MAX_INTERVAL_SECONDS: Final = 120
"""The longest H that a node may have."""

SUBDOMAIN_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
