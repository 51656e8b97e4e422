"""Comparison of the cache with the API server: only what differs is decoded (requirement C7)."""

from typing import Any

import pytest
from tests.support.llm_fleet import no_llm, publish, small_fleet
from tests.support.simulated_fleet import operator, simulated

from hotpool.core.model import Identity, Kind
from hotpool.kube import reader


@simulated
async def test_a_resync_decodes_only_objects_that_differ_from_the_cache() -> None:
    api = small_fleet(4)
    async with operator(api) as fleet:
        await fleet.beating(15)
        decoded: list[str] = []
        decode = reader._decoded  # noqa: SLF001

        def counting(kind: Kind, item: Any) -> Any:
            body = decode(kind, item)
            decoded.append(body["metadata"]["name"])
            return body

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, "_decoded", counting)
            await fleet.manager.compare()
            assert decoded == []
            api.feed = None
            publish(api, "n3", no_llm(2))
            await fleet.manager.compare()
        assert decoded == ["n3"]
        assert set(fleet.cache.pools["llm"].members) == {"n0", "n1", "n2"}


@simulated
async def test_objects_of_a_list_without_an_identity_are_decoded_and_refused() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        known = dict(fleet.cache.identities(Kind.NODE))
        api.objects[Kind.NODE]["n0"]["metadata"]["uid"] = 7
        found = [found async for found, _ in fleet._reader.each_changed(Kind.NODE, known)]  # noqa: SLF001
        assert found == [None, ("n1", known["n1"])]
        assert isinstance(known["n1"], Identity)
