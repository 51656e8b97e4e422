"""Look-up of nodes for dispatchers: the documented import path of the extra `hotpool[lookup]`.

Must need only redis and the standard library.
"""

from hotpool.core.node_history import Transition
from hotpool.projection.connection.credentials import Credentials
from hotpool.projection.failures import Ejection
from hotpool.projection.lookup.client import Lookup
from hotpool.projection.lookup.pick_options import PickOptions, Strategy
from hotpool.projection.lookup.protocol import LookupUnavailableError
from hotpool.projection.lookup.report_options import FailureKind
from hotpool.projection.lookup.results import (
    Capability,
    Counts,
    Endpoint,
    Members,
    NoMember,
    Picked,
    Reason,
    ReportEffect,
    Reservation,
    TypeState,
)
from hotpool.projection.lookup.sync_client import SyncLookup

__all__ = [
    "Capability",
    "Counts",
    "Credentials",
    "Ejection",
    "Endpoint",
    "FailureKind",
    "Lookup",
    "LookupUnavailableError",
    "Members",
    "NoMember",
    "PickOptions",
    "Picked",
    "Reason",
    "ReportEffect",
    "Reservation",
    "Strategy",
    "SyncLookup",
    "Transition",
    "TypeState",
]
