"""AWS credentials for the hot path: found and renewed by aiobotocore, handed out as one frozen object.

`CredentialSource.current` never waits. A task renews the credentials 15 minutes before they end. In their
last 10 minutes the control path waits for that (`fresh`), reads don't: they go on with credentials that are
still good, for making them wait would turn a hiccup of the metadata service into an outage ten minutes early.

1. `current` is one consistent set; a renewal replaces the object.
2. Nothing here logs or shows a secret.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from fastserve.errors import DefinitionError, StoreError
from fastserve.wire.sigv4 import Credentials

LOGGER = logging.getLogger(__name__)
# botocore renews when it is asked less than 15 minutes before the end: asked each minute it keeps to that.
ASK_EVERY_S = 60.0
# The service may go on calling credentials expired for a while: no storm of questions.
ASK_AGAIN_S = 5.0

HOW_TO_GIVE = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN if there is one), or set "
    "AWS_PROFILE to a profile of ~/.aws, or run under a role (ECS, EKS, EC2)"
)


class FrozenKeys(Protocol):
    """botocore's frozen credentials."""

    @property
    def access_key(self) -> str:
        """The key's public half."""

    @property
    def secret_key(self) -> str:
        """The key's secret half."""

    @property
    def token(self) -> str | None:
        """The session token of temporary credentials."""


class Keys(Protocol):
    """What of aiobotocore's credentials is used here."""

    async def get_frozen_credentials(self) -> FrozenKeys:
        """Return the keys; renew them first if they end in less than 15 minutes."""


class CredentialSource:
    """Keeps one set of credentials current. `open_source` makes it."""

    def __init__(self, keys: Keys, current: Credentials, ask_every_s: float, ask_again_s: float) -> None:
        self._keys = keys
        self._ask_every_s = ask_every_s
        self._ask_again_s = ask_again_s
        self._early = asyncio.Event()
        # Keys out of the environment or a file have no end, and nothing to renew them with.
        self.renewable = hasattr(keys, "refresh_needed")
        self.current = current
        self._task = asyncio.create_task(self._renew_forever()) if self.renewable else None

    async def fresh(self) -> Credentials:
        """Return credentials that last, waiting for new ones in their last ten minutes.

        Raises:
            StoreError: they are about to end and can't be renewed.
        """
        if self.renewable:
            try:
                await self._ask()
            except Exception as error:  # botocore's credential errors have no common base
                raise StoreError(
                    f"AWS credentials can't be renewed: {type(error).__name__}", retryable=True
                ) from error
        return self.current

    def ask_soon(self) -> None:
        """Have the task ask without waiting for its minute: the service called the credentials expired."""
        self._early.set()

    async def close(self) -> None:
        """Stop renewing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _renew_forever(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._early.wait(), self._ask_every_s)
                early = True
            except TimeoutError:
                early = False
            self._early.clear()
            try:
                await self._ask()
            except Exception as error:  # noqa: BLE001 - whatever it is, the old ones may still be good
                LOGGER.warning("AWS credentials were not renewed: %s", type(error).__name__)
            if early:
                await asyncio.sleep(self._ask_again_s)

    async def _ask(self) -> None:
        current = _frozen(await self._keys.get_frozen_credentials())
        if current != self.current:
            self.current = current


async def open_source(
    keys: Keys | None, *, ask_every_s: float = ASK_EVERY_S, ask_again_s: float = ASK_AGAIN_S
) -> CredentialSource:
    """Return a source over what botocore's chain of providers found, None being nothing.

    Raises:
        DefinitionError: there are no credentials, or they can't be used.
    """
    if keys is None:
        raise DefinitionError(f"AWS credentials: expected some for DynamoDB, found none; {HOW_TO_GIVE}")
    try:
        current = _frozen(await keys.get_frozen_credentials())
    except ValueError as error:
        raise DefinitionError(f"AWS credentials: {error}; {HOW_TO_GIVE}") from None
    except Exception as error:
        raise DefinitionError(
            f"AWS credentials: found, but they can't be loaded ({type(error).__name__}); {HOW_TO_GIVE}"
        ) from error
    return CredentialSource(keys, current, ask_every_s, ask_again_s)


async def find_keys(session: Any) -> Keys | None:
    """Return what the providers of an aiobotocore session give.

    Raises:
        DefinitionError: a provider is set up wrongly, such as an unknown profile.
    """
    from botocore.exceptions import BotoCoreError

    try:
        keys: Keys | None = await session.get_credentials()
    except BotoCoreError as error:  # its texts name profiles and files, no secrets
        raise DefinitionError(f"AWS credentials: {error}; {HOW_TO_GIVE}") from error
    return keys


def _frozen(keys: FrozenKeys) -> Credentials:
    return Credentials(keys.access_key, keys.secret_key, keys.token)
