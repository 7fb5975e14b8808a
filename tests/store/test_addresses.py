"""Where stores are: which of them are opened, what is said of URLs, whose reads have a price."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.plan.stores import TablePrefixes
from fastserve.store.addresses import StoreAddresses, addresses, configured_prefixes
from fastserve.store.mixed import MixedStore, main_of, prefixes_of


def test_what_no_table_lies_in_is_not_opened(tmp_path: Path) -> None:
    where = addresses(f"local:{tmp_path}/main", {"hot": f"local:{tmp_path}/hot"}, {})

    async def story() -> None:
        store = await where.open()
        assert not isinstance(store, MixedStore)
        assert main_of(store) is store
        assert prefixes_of(store) == TablePrefixes("")
        await store.close()

    asyncio.run(story())
    assert not (tmp_path / "hot").exists()


def test_a_url_that_cannot_be_used_is_named_after_its_store_before_any_is_opened(tmp_path: Path) -> None:
    wrong = "redis://a?prefix=b&prefix=c"
    with pytest.raises(DefinitionError, match=r"^store 'hot': store URL: prefix: expected once"):
        configured_prefixes("local:a", {"hot": wrong})
    with pytest.raises(DefinitionError, match=r"^store 'hot': store URL: prefix: expected once"):
        asyncio.run(StoreAddresses(f"local:{tmp_path}/main", {"hot": wrong}, {"t": "hot"}).open())
    assert not (tmp_path / "main").exists()
    assert configured_prefixes(
        "dynamodb://eu-central-1?prefix=prod.", {"hot": "redis://a?prefix=b."}
    ) == TablePrefixes("prod.", {"hot": "b."})


def test_a_table_s_url_is_that_of_its_store() -> None:
    where = StoreAddresses("dynamodb://eu-central-1", {"hot": "redis://cache"}, {"theirs": "hot"})
    assert [where.url_of(table) for table in ("ours", "theirs")] == [where.main, "redis://cache"]


def test_redis_charges_nothing_and_what_is_local_may_become_dynamodb() -> None:
    redis = {"hot": "rediss+cluster://cache", "cold": "dynamodb://eu-central-1", "near": "local:near"}
    assert StoreAddresses("local:here", redis).unpriced == {"hot"}
    assert StoreAddresses("redis://cache").unpriced == {""}
