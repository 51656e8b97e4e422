"""Back-off of restarts after crashes: a pause that doubles up to a limit (requirement A7). Pure."""


def restart_pause(failures: int, first: float, limit: float) -> float:
    """Return the seconds until the next attempt after `failures` (1 or more) in a row."""
    return float(min(first * 2 ** min(failures - 1, 32), limit))
