"""Text output of `status`."""

from collections.abc import Mapping
from typing import Final

from rich.text import Text

from hotpool.cli.health import FleetHealth, Problem, RedisHealth
from hotpool.cli.leader import Leader
from hotpool.cli.redis_age import confirmed_text
from hotpool.cli.render.tables import BAD, BOLD, GOOD, listing, plural, print_line, table
from hotpool.common.durations import age

MAX_PROBLEMS: Final = 20
"""Maximum number of problems to show."""
_UNKNOWN: Final = "unknown: cannot be read"


def show_status(health: FleetHealth) -> None:
    """Print the output of `status`."""
    print_line(Text.assemble((f"{health.namespace}: ", BOLD), _verdict(health)))
    rows = (
        ("operator", _operator(health.leader)),
        ("watches", _watches(health.leader)),
        ("redis", _redis(health.redis)),
        ("nodes", _nodes(health.nodes)),
        ("pools", _UNKNOWN if health.pools is None else f"{health.pools}: {health.pools_ready} ready"),
        ("versions", _versions(health)),
    )
    print_line("", table(("PART", "STATE"), rows))
    if health.problems:
        _show_problems(health.problems)
    if health.unreadable:
        print_line("", "Cannot be read:", listing(health.unreadable))


def _verdict(health: FleetHealth) -> Text:
    if health.problems:
        return Text(f"NOT healthy, {plural(len(health.problems), 'problem')}", BAD)
    return Text("healthy", GOOD) if health.healthy else Text("unknown: not everything can be read", BAD)


def _operator(leader: Leader | None) -> str | Text:
    if leader is None:
        return _UNKNOWN
    if not leader.leads:
        return Text(f"NONE LEADS: {leader.problem}", BAD)
    return f"{leader.holder} leads, term {leader.term}, Lease renewed {age(leader.age)} ago"


def _watches(leader: Leader | None) -> str:
    """Return what the probe Lease says: the operator's /readyz alone knows of each watch."""
    if leader is None or not leader.leads:
        return "unknown"
    if leader.probe_lag is None:
        return "no probe Lease yet; /readyz of the operator names each watch"
    lag = age(max(0.0, leader.probe_lag))
    return f"probe Lease {lag} older than the election Lease; /readyz names each watch"


def _redis(redis: RedisHealth | None) -> str | Text:
    if redis is None:
        return "not asked: --redis URL"
    if redis.error:
        return Text("UNAVAILABLE", BAD)
    return f"{confirmed_text(redis.age_seconds)}, {'complete' if redis.complete else 'incomplete'}"


def _nodes(nodes: Mapping[str, int] | None) -> str:
    if nodes is None:
        return _UNKNOWN
    return f"{sum(nodes.values())}: {_counts(nodes)}" if nodes else "0"


def _versions(health: FleetHealth) -> str:
    revisions = {"none" if found is None else str(found) for found in (health.definitions or {}).values()}
    needed = health.leader.schema_revision if health.leader else None
    definitions = ", ".join(sorted(revisions)) or (f"at least {needed}" if needed else "unknown")
    operator = (health.leader.version if health.leader else None) or "unknown"
    agents = ", ".join(f"{version} ({count})" for version, count in health.agents.items()) or "none"
    return f"definitions revision {definitions}; operator {operator}; agents {agents}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _show_problems(problems: tuple[Problem, ...]) -> None:
    rows = [(item.subject, Text(item.reason, BAD), item.message) for item in problems[:MAX_PROBLEMS]]
    print_line("", table(("PROBLEM OF", "REASON", "MESSAGE"), rows))
    if len(problems) > MAX_PROBLEMS:
        print_line(f"… and {len(problems) - MAX_PROBLEMS} more: -o json")
