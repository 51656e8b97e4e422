"""The brake (requirement D8): how many silent nodes a pool may lose.

Pure. A level rule: it looks at how many are silent now, not at who fell silent when, so that a restart of the operator
comes to the same answer (docs/design/0003-the-brake-counts-silence.md).
"""

_PERCENT = 100


def too_many_silent(silent: int, live: int, max_silent_percent: int) -> bool:
    """Whether a pool keeps its silent members as Suspect.

    `silent`: nodes that meet all requirements and are silent for 3 H or more, but not yet for 600 s; `live`: those
    that meet them and beat. At most max(1, max_silent_percent % of both) may leave.
    """
    return silent > 1 and _PERCENT * silent > max_silent_percent * (silent + live)
