"""Look-up of nodes for dispatchers: the documented import path of the extra `hotpool[lookup]`.

Imported by dispatchers, and by nothing in the operator. It must not need more than redis and the standard library.
"""

from hotpool.core.story.transitions import Transition
from hotpool.projection.answers import Capability, Counts, Members, NoMember, Picked, Reason, TypeState
from hotpool.projection.lookup import Lookup, LookupFailed

__all__ = [
    "Capability",
    "Counts",
    "Lookup",
    "LookupFailed",
    "Members",
    "NoMember",
    "Picked",
    "Reason",
    "Transition",
    "TypeState",
]
