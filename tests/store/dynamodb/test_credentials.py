"""Credentials are one set at a time, renewed in the background, and missing ones say what to set."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from fastserve.errors import DefinitionError, StoreError
from fastserve.store.dynamodb.credentials import HOW_TO_GIVE, find_keys, open_source
from fastserve.wire.sigv4 import Credentials
from tests.store.dynamodb.conftest import Run


@dataclass
class Frozen:
    access_key: str = "AKID1"
    secret_key: str = "hush"
    token: str | None = "token"


@dataclass
class RenewableKeys:
    """Keys like botocore's that can be renewed."""

    keys: Frozen = field(default_factory=Frozen)
    failure: Exception | None = None
    asked: int = 0
    next_asking: asyncio.Event = field(default_factory=asyncio.Event)

    def refresh_needed(self) -> bool:
        return True

    async def get_frozen_credentials(self) -> Frozen:
        self.asked += 1
        self.next_asking.set()
        if self.failure is not None:
            raise self.failure
        return self.keys


class FixedKeys:
    """Keys out of the environment."""

    async def get_frozen_credentials(self) -> Frozen:
        return Frozen(token=None)


def test_fixed_keys_are_taken_once_and_never_renewed(run: Run) -> None:
    async def story() -> None:
        source = await open_source(FixedKeys())
        assert source.current == Credentials("AKID1", "hush")
        assert not source.renewable
        assert await source.fresh() is source.current
        await source.close()

    run(story())


def test_renewable_keys_are_asked_again_in_the_background(run: Run) -> None:
    async def story() -> None:
        keys = RenewableKeys()
        source = await open_source(keys, ask_every_s=0.005)
        before = source.current
        keys.next_asking.clear()
        await keys.next_asking.wait()
        assert source.current is before
        keys.keys = Frozen("AKID2", "other", "newer")
        keys.next_asking.clear()
        await keys.next_asking.wait()
        await asyncio.sleep(0)
        assert source.current == Credentials("AKID2", "other", "newer")
        await source.close()

    run(story())


def test_the_service_calling_them_expired_has_them_asked_at_once(run: Run) -> None:
    async def story() -> None:
        keys = RenewableKeys()
        source = await open_source(keys, ask_every_s=3600.0)
        keys.next_asking.clear()
        for _ in range(10):
            source.ask_soon()
        await keys.next_asking.wait()
        assert keys.asked == 2
        await source.close()

    run(story())


def test_a_failed_renewal_keeps_the_old_ones_and_shows_no_secret(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        keys = RenewableKeys()
        source = await open_source(keys, ask_every_s=0.005)
        keys.failure = RuntimeError("the key hush is refused")
        for _ in range(2):
            keys.next_asking.clear()
            await keys.next_asking.wait()
        assert source.current == Credentials("AKID1", "hush", "token")
        with pytest.raises(StoreError) as caught:
            await source.fresh()
        assert str(caught.value) == "AWS credentials can't be renewed: RuntimeError"
        await source.close()

    with caplog.at_level(logging.WARNING):
        run(story())
    assert "AWS credentials were not renewed: RuntimeError" in caplog.text
    assert "hush" not in caplog.text


def test_no_credentials_are_an_error_that_says_what_to_set(run: Run) -> None:
    async def story() -> None:
        with pytest.raises(DefinitionError) as caught:
            await open_source(None)
        assert str(caught.value) == (
            f"AWS credentials: expected some for DynamoDB, found none; {HOW_TO_GIVE}"
        )

    run(story())


def test_unusable_credentials_are_an_error_that_does_not_show_them(run: Run) -> None:
    async def story() -> None:
        with pytest.raises(DefinitionError) as caught:
            await open_source(RenewableKeys(Frozen("AKID\n")))
        expected = "expected a printable access key without spaces, got something else"
        assert str(caught.value) == f"AWS credentials: {expected}; {HOW_TO_GIVE}"
        with pytest.raises(DefinitionError) as caught:
            await open_source(RenewableKeys(failure=OSError("hush")))
        assert str(caught.value) == (
            f"AWS credentials: found, but they can't be loaded (OSError); {HOW_TO_GIVE}"
        )

    run(story())


def test_an_unknown_profile_is_an_error_that_names_it(run: Run) -> None:
    from botocore.exceptions import ProfileNotFound

    class Session:
        async def get_credentials(self) -> None:
            raise ProfileNotFound(profile="staging")

    async def story() -> None:
        with pytest.raises(DefinitionError, match="staging"):
            await find_keys(Session())

    run(story())
