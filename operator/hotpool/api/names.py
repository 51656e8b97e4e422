"""Bounds of names and times. Command lines need them without the models, which import pydantic."""

from typing import Final

NODE_NAME_MAX: Final = 200
MAX_INTERVAL_SECONDS: Final = 120
"""Maximum of H, the heartbeat interval."""

SUBDOMAIN_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
