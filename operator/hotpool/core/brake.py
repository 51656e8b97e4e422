"""The brake (requirement D8): the limit of silent nodes that may leave a pool.

Pure. It depends only on the number of nodes that are silent now, not on when they became silent, so that the result is
the same after a restart of the operator (docs/design/0003-the-brake-counts-silence.md).
"""

_PERCENT = 100


def too_many_silent(silent: int, live: int, max_silent_percent: int) -> bool:
    """Return True if a pool retains its silent members as Suspect.

    `silent`: number of nodes that meet all other requirements and are silent for 3 H or more, but less than 600 s;
    `live`: number of those with heartbeats. At most max(1, max_silent_percent % of the sum) may leave.
    """
    return silent > 1 and _PERCENT * silent > max_silent_percent * (silent + live)
