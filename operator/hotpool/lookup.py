"""Look-up of nodes for dispatchers: the documented import path of the extra `hotpool[lookup]`.

Imported by dispatchers, and by nothing in the operator. It must not need more than redis and the standard library.
"""

from hotpool.core.story.transitions import Transition
from hotpool.projection.answers import Capability, Counts, Members, NoMember, Picked, Reason, Reservation, TypeState
from hotpool.projection.blocking import SyncLookup
from hotpool.projection.choice import How, Strategy
from hotpool.projection.credentials import Credentials
from hotpool.projection.lookup import Lookup
from hotpool.projection.questions import LookupFailed

__all__ = [
    "Capability",
    "Counts",
    "Credentials",
    "How",
    "Lookup",
    "LookupFailed",
    "Members",
    "NoMember",
    "Picked",
    "Reason",
    "Reservation",
    "Strategy",
    "SyncLookup",
    "Transition",
    "TypeState",
]
