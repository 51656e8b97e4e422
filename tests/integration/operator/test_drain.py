"""The progress and the end of a drain, in simulated time (requirement C5)."""

from itertools import pairwise
from typing import Any

import pytest
from tests.support.builders import H, node_object, pool_object, report, requires, service
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, now, operator, simulated, until

from hotpool.core.model import Kind
from hotpool.errors import UnavailableError
from hotpool.projection.use import Use

pytestmark = pytest.mark.timeout(60)

DRAIN = {"spec": {"drain": True}}


def small_api(*, served: bool = False, **more: Any) -> FakeApi:
    """Return an API server with one node, whose service has these fields, in one pool."""
    api = FakeApi()
    published: dict[str, Any] = {"service": {"ports": [{"type": "asr", "port": 80}]}} if served else {}
    api.put(pool_object("asr", requires=requires("asr"), **published))
    api.put(node_object("n0", report(service("a", "asr", **more))))
    return api


def drained(api: FakeApi) -> tuple[str, str]:
    """Return status and reason of condition Drained."""
    return api.conditions(Kind.NODE, "n0").get("Drained", ("", ""))


def progress(api: FakeApi) -> dict[str, Any]:
    """Return `status.drain`."""
    found: dict[str, Any] = api.objects[Kind.NODE]["n0"]["status"].get("drain") or {}
    return found


def set_number(api: FakeApi, number: int | None, sequence: int) -> None:
    """Let the agent report the number of its service."""
    api.edit(Kind.NODE, "n0", {"status": {"report": report(service("a", "asr", inFlight=number), sequence=sequence)}})


async def reserved_drain(api: FakeApi, redis: FakeRedis, fleet: Fleet) -> None:
    """Drain the node while it has two reservations, until the operator has counted them."""
    redis.reservations = {"n0": 2}
    await fleet.beating(H)
    api.edit(Kind.NODE, "n0", DRAIN)
    await until(lambda: progress(api).get("inFlight") == 2)


@simulated
async def test_a_node_with_reservations_is_drained_when_the_last_one_has_ended() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        await reserved_drain(api, redis, fleet)
        assert (progress(api)["counted"], drained(api)) == ("Reservations", ("False", "InUse"))
        redis.reservations["n0"] = 0
        await fleet.beating(5)
        assert drained(api) == ("True", "NothingInUse")
        assert (progress(api)["inFlight"], progress(api)["byService"]) == (0, [])
        api.edit(Kind.NODE, "n0", {"spec": {"drain": False}})
        await until(lambda: not progress(api))
        assert drained(api) == ("False", "NotDraining")


@simulated
async def test_the_progress_names_services_with_the_larger_of_their_slots_and_their_own_number() -> None:
    api, redis = small_api(), FakeRedis(use=Use({"n0": {"a": 2, "unknown": 1}}))
    async with operator(api, redis) as fleet:
        await reserved_drain(api, redis, fleet)
        assert progress(api)["byService"] == [{"id": "a", "inFlight": 2}]
        set_number(api, 3, 2)
        await fleet.beating(H)
        assert (progress(api)["byService"], progress(api)["counted"]) == ([{"id": "a", "inFlight": 3}], "Both")
        set_number(api, 0, 3)
        await fleet.beating(H)
        assert progress(api)["byService"] == [{"id": "a", "inFlight": 2}]
        redis.reservations["n0"] = 0
        await fleet.beating(H)
        assert progress(api)["byService"] == [{"id": "a", "inFlight": 0}]


@simulated
async def test_numbers_in_redis_that_the_api_does_not_accept_are_shown_as_the_largest_one() -> None:
    api, redis = small_api(), FakeRedis(use=Use({"n0": {"a": 10**12}}), reservations={"n0": 10**12})
    async with operator(api, redis) as fleet:
        api.edit(Kind.NODE, "n0", DRAIN)
        await fleet.beating(H)
        largest = 2**31 - 1
        assert (progress(api)["inFlight"], progress(api)["byService"]) == (largest, [{"id": "a", "inFlight": largest}])
        assert drained(api) == ("False", "InUse")


@simulated
async def test_a_drain_soon_after_another_one_is_not_confirmed_by_what_was_seen_of_that() -> None:
    """Both within one period of the reader."""
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        await reserved_drain(api, redis, fleet)
        redis.reservations["n0"] = 0
        await until(lambda: drained(api)[0] == "True")
        api.edit(Kind.NODE, "n0", {"spec": {"drain": False}})
        await until(lambda: redis.pools["asr"].ready == {"n0"} and not progress(api))
        redis.reservations["n0"] = 1
        api.edit(Kind.NODE, "n0", DRAIN)
        before = now()
        await until(lambda: drained(api)[1] != "NotDraining")
        assert now() < before + 1
        assert drained(api) == ("Unknown", "NotAccepted")
        await until(lambda: drained(api)[1] != "NotAccepted")
        assert drained(api) == ("False", "InUse")
        redis.reservations["n0"] = 0
        await fleet.beating(5)
        assert drained(api) == ("True", "NothingInUse")


@simulated
async def test_progress_is_written_on_change_only_and_at_most_every_two_seconds() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        await reserved_drain(api, redis, fleet)
        await fleet.beating(10)
        before = len(api.written(Kind.NODE))
        await fleet.beating(60)
        assert len(api.written(Kind.NODE)) == before
        begun = now()
        for sequence in range(10, 40):
            set_number(api, sequence, sequence)
            await fleet.beating(0.5)
        times = [write.at for write in api.written(Kind.NODE) if write.at >= begun]
        assert 6 <= len(times) <= 8
        assert all(later - earlier >= 2 for earlier, later in pairwise(times))
        await fleet.beating(3)
        assert progress(api)["inFlight"] == 39


@simulated
async def test_a_dispatcher_that_only_picks_leaves_the_drain_unknown() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        api.edit(Kind.NODE, "n0", DRAIN)
        await fleet.beating(600)
        assert (drained(api), progress(api)["counted"]) == (("Unknown", "NothingCounted"), "Nothing")


@simulated
async def test_a_node_behind_a_service_is_drained_only_by_its_own_numbers() -> None:
    api, redis = small_api(served=True), FakeRedis()
    async with operator(api, redis) as fleet:
        await reserved_drain(api, redis, fleet)
        redis.reservations["n0"] = 0
        await fleet.beating(60)
        assert drained(api) == ("Unknown", "ServedByService")
        set_number(api, 3, 2)
        await fleet.beating(H)
        assert (drained(api), progress(api)["byService"]) == (("False", "InUse"), [{"id": "a", "inFlight": 3}])
        set_number(api, 0, 3)
        await fleet.beating(H)
        assert (drained(api), progress(api)["counted"]) == (("True", "NothingInUse"), "Both")


@simulated
async def test_a_zero_of_a_service_counts_only_in_a_heartbeat_long_after_the_drain() -> None:
    api, redis = small_api(inFlight=0), FakeRedis()
    async with operator(api, redis) as fleet:
        api.edit(Kind.NODE, "n0", DRAIN)
        await fleet.beating(7.5)
        assert drained(api) == ("Unknown", "NothingCounted")
        await fleet.beating(2 * H)
        assert (drained(api), progress(api)["counted"]) == (("True", "NothingInUse"), "Services")


@simulated
async def test_a_flush_in_the_middle_of_a_drain_leaves_it_unknown_until_it_begins_again() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        await reserved_drain(api, redis, fleet)
        redis.flush()
        await fleet.beating(600)
        assert drained(api) == ("Unknown", "LedgerTooYoung")
        api.edit(Kind.NODE, "n0", {"spec": {"drain": False}})
        await fleet.beating(H)
        api.edit(Kind.NODE, "n0", DRAIN)
        await fleet.beating(H)
        assert drained(api) == ("True", "NothingInUse")


@simulated
async def test_a_drain_after_a_flush_is_unknown_until_the_longest_lost_reservation_would_have_ended() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        redis.reservations = {"n0": 2}
        await fleet.beating(H)
        redis.flush()
        await fleet.beating(10)
        api.edit(Kind.NODE, "n0", DRAIN)
        await fleet.beating(20)
        assert drained(api) == ("Unknown", "LedgerTooYoung")
        await fleet.beating(10)
        assert drained(api) == ("True", "NothingInUse")


@simulated
async def test_without_redis_the_drain_is_unknown_and_membership_follows_it_all_the_same() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        await reserved_drain(api, redis, fleet)
        redis.reservations["n0"] = 0
        redis.fault = UnavailableError("connection refused")
        await fleet.beating(60)
        assert drained(api) == ("Unknown", "RedisDown")
        redis.fault = None
        await until(lambda: drained(api) != ("Unknown", "RedisDown"))
        assert drained(api) == ("Unknown", "NotAccepted")
        await fleet.beating(H)
        assert drained(api) == ("True", "NothingInUse")
    api = small_api(inFlight=0)
    async with operator(api) as fleet:
        api.edit(Kind.NODE, "n0", DRAIN)
        await fleet.beating(60)
        assert drained(api) == ("Unknown", "RedisDown")
        assert api.members("asr") == {"n0": "Draining"}


@simulated
async def test_a_pool_that_redis_refuses_keeps_the_drain_from_being_accepted() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        redis.reservations = {"n0": 1}
        await fleet.beating(H)
        redis.reservations = {}
        redis.refusals["replace_pool asr"] = UnavailableError("lost")
        api.edit(Kind.NODE, "n0", DRAIN)
        await fleet.beating(60)
        assert drained(api)[0] == "Unknown"
        redis.refusals.clear()
        await fleet.beating(H)
        assert drained(api) == ("True", "NothingInUse")


@simulated
async def test_the_next_leader_continues_a_drain_with_what_the_former_one_knew() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        await reserved_drain(api, redis, fleet)
        since = progress(api)["since"]
    redis.reservations = {}
    async with operator(api, redis) as fleet:
        await fleet.beating(H)
        assert (drained(api), progress(api)["since"]) == (("True", "NothingInUse"), since)


@simulated
async def test_the_next_leader_knows_the_longest_reservation_that_redis_lost_before_it_led() -> None:
    api, redis = small_api(), FakeRedis()
    async with operator(api, redis) as fleet:
        redis.reservations = {"n0": 2}
        await fleet.beating(H)
        longest = fleet.leadership.longest_reservation
    redis.flush()
    async with operator(api, redis) as fleet:
        fleet.leadership.note_reservation(longest)  # from the Lease
        redis.reservations, redis.longest = {"n0": 1}, 1.0
        await fleet.beating(7)
        redis.reservations = {}
        api.edit(Kind.NODE, "n0", DRAIN)
        await fleet.beating(20)
        assert drained(api) == ("Unknown", "LedgerTooYoung")
        await fleet.beating(15)
        assert drained(api) == ("True", "NothingInUse")
