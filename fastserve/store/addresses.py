"""Where the stores of a workspace are, and which tables lie in which: URLs in, settings or open stores out.

It knows no views, and not how a store is built (`url`) or how several are one (`mixed`).

Invariants
1. Only stores that a table lies in are opened; where that is the main one alone, nothing stands before it.
2. What can't be used is told with the name of the store that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastserve.errors import DefinitionError
from fastserve.plan.stores import MAIN_STORE, TablePrefixes
from fastserve.store.interface import OnlineStore
from fastserve.store.mixed import MixedStore
from fastserve.store.url import (
    READ_TIMEOUT_S,
    RedisSettings,
    StoreSettings,
    open_store,
    parse_store_url,
)


@dataclass(frozen=True, slots=True)
class StoreAddresses:
    """Where the stores of a workspace are: the main one's URL, those of named ones, and tables' ``homes``.

    ``named`` holds the stores that tables lie in, ``homes`` the names of the stores of those tables that
    don't lie in the main one.
    """

    main: str
    named: Mapping[str, str] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)

    async def open(
        self,
        *,
        may_lack: bool = False,
        read_timeout_s: float = READ_TIMEOUT_S,
        connections: int | None = None,
        hedge_floor_s: float = 0.0,
    ) -> OnlineStore:
        """Open them, each as `open_store` does.

        ``may_lack`` lets a named store that can't be opened be opened later, while its tables' calls fail.

        Raises:
            DefinitionError, StoreError: as `open_store`.
        """

        async def opened(url: str) -> OnlineStore:
            return await open_store(
                url, read_timeout_s=read_timeout_s, connections=connections, hedge_floor_s=hedge_floor_s
            )

        prefixes = self.prefixes
        main = await opened(self.main)
        if not self.named:
            return main
        mixed = MixedStore(main, prefixes, self.homes, self.named, opened)
        try:
            await mixed.open_named(may_lack=may_lack)
        except BaseException:
            await mixed.close()
            raise
        return mixed

    @property
    def prefixes(self) -> TablePrefixes:
        """What tables' names begin with in these stores.

        Raises:
            DefinitionError: a URL can't be used.
        """
        return configured_prefixes(self.main, self.named)

    def url_of(self, table: str) -> str:
        """Return the URL of the store in which a table lies."""
        home = self.homes.get(table)
        return self.main if home is None else self.named[home]

    @property
    def unpriced(self) -> frozenset[str]:
        """The names of stores that charge nothing for reads and writes; a local one may become DynamoDB.

        Raises:
            DefinitionError: a URL can't be used.
        """
        settings = {MAIN_STORE: parse_store_url(self.main), **named_settings(self.named)}
        return frozenset(name for name, one in settings.items() if isinstance(one, RedisSettings))


def addresses(main: str, configured: Mapping[str, str], homes: Mapping[str, str]) -> StoreAddresses:
    """Return the addresses of the stores that are needed, of those that are configured."""
    used = set(homes.values())
    return StoreAddresses(main, {name: url for name, url in configured.items() if name in used}, homes)


def named_settings(configured: Mapping[str, str]) -> dict[str, StoreSettings]:
    """Return what the URLs of named stores say.

    Raises:
        DefinitionError: one can't be used; it is named.
    """
    found = {}
    for name, url in configured.items():
        try:
            found[name] = parse_store_url(url)
        except DefinitionError as error:
            raise DefinitionError(f"store {name!r}: {error.message}") from None
    return found


def configured_prefixes(main: str, configured: Mapping[str, str]) -> TablePrefixes:
    """Return what tables' names begin with in the stores that are configured.

    Raises:
        DefinitionError: a URL can't be used.
    """
    named = {name: store.prefix for name, store in named_settings(configured).items()}
    return TablePrefixes(parse_store_url(main).prefix, named)
