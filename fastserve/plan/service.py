"""A feature service compiled: which keys it reads, where each feature comes from, in which order it answers.

The *vector row* of a request is the fixed parts of all its rows side by side: place 0's row, place 1's row,
…, behind them the heads of streamed views (`tiles.heads`) and the constants that `tiles.merge` needs. Because
every row's fixed part has a static length, each feature stands at a static word of the vector row, and the
features of many requests are read by one ``take``.

Invariants
1. Places are ordered by read, then by the read group's tables, or by the attributes of its bundle: a read's
   rows, as a store fills them, are a slice of the vector row. Of a bundle a service may want only some.
2. Two references that read the same view under the same join keys share one place.
3. ``outputs`` are in the API's order: on-demand views first, by reference name, features in schema order;
   then views by reference name, features by name.
4. ``inputs`` are what is read from rows: first the features of views that the answer holds, in its order,
   then those that only on-demand views take.
5. Reads of rows come first; then, for each group of stream tables and each key, the reads of the previous and
   of the current block. Rows and blocks of a line, in the order of reads and tables, are its *items*: first
   one for each place, then the blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from fastserve.errors import DefinitionError
from fastserve.plan.bundles import Bundle, bundle_bytes, plan_bundles
from fastserve.plan.feast import FeastPlan, feast_uses, plan_feast
from fastserve.plan.on_demand import OnDemandOutput, OnDemandPlan, on_demand_outputs, plan_on_demand
from fastserve.plan.reads import PACKED_KEY, ReadGroup, TableUse, partition_tables
from fastserve.plan.sizes import row_bytes
from fastserve.plan.stores import TablePrefixes
from fastserve.plan.streams import BLOCKS_READ
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.reference import FeatureViewReference
from fastserve.sdk.repo import Repo
from fastserve.sdk.service import FeatureService
from fastserve.sdk.types import DataType, Field
from fastserve.tiles.aggregates import AggregateFeature, CompactedSchema
from fastserve.tiles.blocks import BlockSchema, block_schema
from fastserve.tiles.heads import HeadPlace, HeadPlan, narrow_components
from fastserve.tiles.layout import WORD_BYTES, Column
from fastserve.tiles.merge import CONSTANT_BITS

MAX_STORE_BYTES = 2 * 1024 * 1024
"""A vector that took more bytes from the store is no longer eligible for the service level (API: sloInfo)."""


@dataclass(frozen=True, slots=True)
class Read:
    """One key a request asks for: ``keys`` are the positions of its values among the service's join keys.

    Of a group of stream tables it is the block ``blocks_back`` before that of the request's moment.
    """

    group: ReadGroup
    keys: tuple[int, ...]
    blocks_back: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """One row in the vector row: its view, the read and the slot that fill it, and its first word."""

    number: int
    view: ViewPlan
    read: int
    slot: int
    word: int


@dataclass(frozen=True, slots=True)
class StreamedPlace:
    """A place whose view has blocks. ``items`` are those of the previous and of the current block."""

    place: Place
    schema: CompactedSchema
    blocks: BlockSchema
    reads: tuple[int, ...]
    items: tuple[int, ...]
    features: tuple[AggregateFeature, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """One feature read from a row; ``source`` is the column (attributes) or the aggregate it is made of."""

    name: str
    view: str
    feature: str
    dtype: DataType
    place: int
    source: Column | AggregateFeature
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """All about one service that doesn't vary between requests."""

    workspace: str
    name: str
    service: FeatureService
    join_keys: tuple[Field, ...]
    reads: tuple[Read, ...]
    places: tuple[Place, ...]
    inputs: tuple[Output, ...]
    """What is read from rows, for the answer or for on-demand views."""
    visible_inputs: int
    """How many of the inputs, from the first, are in the answer."""
    on_demand: tuple[OnDemandPlan, ...]
    context_fields: tuple[Field, ...]
    """What the request context of a request must hold."""
    outputs: tuple[OnDemandOutput | Output, ...]
    constants_word: int
    """The word of the vector row at which the constants start."""
    words: int
    """Length of the vector row in 8-byte words."""
    streams: tuple[StreamedPlace, ...] = ()
    """Places with blocks, in the order of places."""
    heads: HeadPlan | None = None
    """The heads of ``streams``, by their positions; they stand before the constants."""
    bundles: tuple[Bundle, ...] = ()
    """The bundles that places have rows in, in the order of reads."""

    @property
    def heads_word(self) -> int:
        """The word of the vector row at which the heads start."""
        return self.constants_word - (0 if self.heads is None else self.heads.words)

    @property
    def row_bytes(self) -> int:
        """Bytes of all fixed parts, what a request reads at least when every row exists."""
        return self.heads_word * WORD_BYTES

    @property
    def key_count(self) -> int:
        """How many store keys one request asks for."""
        return sum(read.group.size for read in self.reads)

    @property
    def stores(self) -> frozenset[str]:
        """The names of the stores that its requests read."""
        return frozenset(read.group.store for read in self.reads)


@dataclass(frozen=True, slots=True)
class WorkspacePlan:
    """All services of one workspace, the read groups they share, and the plans of all views."""

    workspace: str
    views: Mapping[str, ViewPlan]
    services: Mapping[str, ServicePlan]
    groups: tuple[ReadGroup, ...]
    feast: FeastPlan | None = None
    """What Feast's own API is answered from; None where no view has rows that Feast wrote."""
    bundles: Mapping[str, Bundle] = field(default_factory=dict)
    """By their tables."""

    @property
    def homes(self) -> dict[str, str]:
        """The names of the stores of those tables that don't lie in the main one."""
        return {table: view.store for view in self.views.values() if view.store for table in view.tables}


def plan_workspace(
    repo: Repo, prefixes: TablePrefixes | str = "", workspace: str | None = None
) -> WorkspacePlan:
    """Compile everything in a feature repo; ``prefixes`` are as `plan_view` takes them.

    Raises:
        DefinitionError: a view's row format can't hold what the view asks for, two views claim one table, or
            a view's store isn't configured.
    """
    name = workspace or repo.workspace
    views = {view.name: plan_view(view, name, prefixes) for view in repo.views.values()}
    bundles = plan_bundles(views.values())
    _refuse_shared_tables(views.values())
    uses = [_uses(service, views) for service in repo.services.values()]
    groups = partition_tables([*uses, *feast_uses(views.values())], bundle_bytes(bundles))
    services = {
        service.name: _plan_service(name, service, views, groups, bundles)
        for service in repo.services.values()
    }
    feast = plan_feast(views, repo.services.values(), groups)
    return WorkspacePlan(name, views, services, tuple(groups), feast, bundles)


def _refuse_shared_tables(views: Iterable[ViewPlan]) -> None:
    owners: dict[str, ViewPlan] = {}
    for view in views:
        for table in view.tables:
            other = owners.setdefault(table, view)
            if other is not view and not _share_items(view, other, table):
                raise DefinitionError(
                    f"view {view.name!r}: expected a table of its own, got {table!r}, "
                    f"which view {other.name!r} has",
                    view.view.location,
                )


def _share_items(view: ViewPlan, other: ViewPlan, table: str) -> bool:
    is_bundled = view.attribute is not None and other.attribute is not None
    return is_bundled and view.table == other.table == table


def _positions(reference: FeatureViewReference, join_keys: Sequence[Field]) -> tuple[int, ...]:
    names = [field.name for field in join_keys]
    return tuple(names.index(field.name) for field in reference.request_keys)


def _uses(service: FeatureService, views: Mapping[str, ViewPlan]) -> list[TableUse]:
    uses: list[TableUse] = []
    for reference in (*service.references, *service.source_references):
        view = views[reference.view.name]
        keys = _positions(reference, service.join_keys)
        uses.append(
            TableUse(
                view.table,
                keys,
                view.key_attributes,
                view.packed,
                0,
                view.is_pushed,
                view.cache,
                view.feast,
                view.store,
                view.attribute,
                row_bytes(view),
            )
        )
        if view.stream is not None:
            block_ns = view.stream.block_ns
            uses.append(
                TableUse(
                    view.stream.table, keys, PACKED_KEY, True, block_ns, True, view.cache, store=view.store
                )
            )
    return uses


def _plan_service(
    workspace: str,
    service: FeatureService,
    views: Mapping[str, ViewPlan],
    groups: Sequence[ReadGroup],
    bundles: Mapping[str, Bundle],
) -> ServicePlan:
    by_table = {table: group for group in groups for table in group.tables}
    reads: dict[Read, int] = {}
    wanted: set[PlaceKey] = set()

    def place_key(reference: FeatureViewReference) -> PlaceKey:
        view = views[reference.view.name]
        read = Read(by_table[view.table], _positions(reference, service.join_keys))
        return reads.setdefault(read, len(reads)), view.row_place

    for reference in (*service.references, *service.source_references):
        wanted.add(place_key(reference))
    places = _places(reads, {view.row_place: view for view in views.values()}, wanted)

    def place_of(reference: FeatureViewReference) -> Place:
        return places[place_key(reference)]

    _add_block_reads(reads, places, by_table)
    input_of = _input_maker(places.values())
    visible = _visible_inputs(service, place_of, input_of)
    inputs, positions = _with_hidden_inputs(visible, service.source_references, place_of, input_of)
    streams = _streamed_places(reads, places.values(), inputs)
    heads = HeadPlan([_head_place(stream) for stream in streams]) if streams else None
    constants_word = sum(place.view.layout.fixed_words for place in places.values())
    constants_word += 0 if heads is None else heads.words
    return ServicePlan(
        workspace=workspace,
        name=service.name,
        service=service,
        join_keys=service.join_keys,
        reads=tuple(reads),
        places=tuple(places.values()),
        inputs=inputs,
        visible_inputs=len(visible),
        on_demand=plan_on_demand(service, positions),
        context_fields=service.request_fields,
        outputs=(*on_demand_outputs(service), *visible),
        constants_word=constants_word,
        words=constants_word + len(CONSTANT_BITS),
        streams=streams,
        heads=heads,
        bundles=tuple(
            bundles[table]
            for table in dict.fromkeys(table for read in reads for table in read.group.tables)
            if table in bundles
        ),
    )


PlaceKey = tuple[int, tuple[str, str | None]]
"""A read's number, and the table (and attribute) of one of its rows."""


def _places(
    reads: Mapping[Read, int],
    views: Mapping[tuple[str, str | None], ViewPlan],
    wanted: Collection[PlaceKey],
) -> dict[PlaceKey, Place]:
    places: dict[PlaceKey, Place] = {}
    word = 0
    for read, number in reads.items():
        for slot, row_place in enumerate(read.group.row_places):
            if (number, row_place) in wanted:  # of a table always, of a bundle perhaps not
                view = views[row_place]
                places[number, row_place] = Place(len(places), view, number, slot, word)
                word += view.layout.fixed_words
    return places


def _add_block_reads(
    reads: dict[Read, int], places: Mapping[PlaceKey, Place], by_table: Mapping[str, ReadGroup]
) -> None:
    """Add the reads of blocks, oldest first, of all places that have any."""
    rows = list(reads)
    for place in places.values():
        if place.view.stream is not None:
            group = by_table[place.view.stream.table]
            for back in reversed(range(BLOCKS_READ)):
                reads.setdefault(Read(group, rows[place.read].keys, back), len(reads))


def _streamed_places(
    reads: Mapping[Read, int], places: Collection[Place], inputs: Sequence[Output]
) -> tuple[StreamedPlace, ...]:
    ordered = list(reads)
    rows_of = Counter(place.read for place in places)
    items = (rows_of[number] or read.group.size for number, read in enumerate(ordered))
    first_items = [0, *accumulate(items)]
    streamed: list[StreamedPlace] = []
    for place in places:
        if place.view.stream is None or place.view.schema is None:
            continue
        table, keys = place.view.stream.table, ordered[place.read].keys
        own = [n for n, read in enumerate(ordered) if table in read.group.tables and read.keys == keys]
        sources = [output.source for output in inputs if output.place == place.number]
        streamed.append(
            StreamedPlace(
                place=place,
                schema=place.view.schema,
                blocks=block_schema(place.view.schema),
                reads=tuple(own),
                items=tuple(first_items[n] + ordered[n].group.tables.index(table) for n in own),
                features=tuple(source for source in sources if isinstance(source, AggregateFeature)),
            )
        )
    return tuple(streamed)


def _head_place(stream: StreamedPlace) -> HeadPlace:
    components = tuple(sorted(narrow_components(stream.features)))
    return HeadPlace(stream.schema, stream.blocks, components)


PlaceOf = Callable[[FeatureViewReference], Place]
InputOf = Callable[[FeatureViewReference, str, Place], Output]


def _visible_inputs(service: FeatureService, place_of: PlaceOf, input_of: InputOf) -> list[Output]:
    inputs: list[Output] = []
    for reference in sorted(service.references, key=lambda reference: reference.name):
        place = place_of(reference)
        inputs += [input_of(reference, feature, place) for feature in sorted(reference.features)]
    return inputs


def _with_hidden_inputs(
    visible: Sequence[Output],
    sources: Sequence[FeatureViewReference],
    place_of: PlaceOf,
    input_of: InputOf,
) -> tuple[tuple[Output, ...], dict[tuple[int, str], int]]:
    """Return all inputs, and where each source reference's features stand among them.

    A feature of one row is read once, whoever asks for it.
    """
    inputs = list(visible)
    known: dict[tuple[int, str], int] = {}
    for number, output in enumerate(visible):
        known.setdefault((output.place, output.feature), number)
    positions: dict[tuple[int, str], int] = {}
    for reference in sources:
        place = place_of(reference)
        for feature in reference.features:
            position = known.setdefault((place.number, feature), len(inputs))
            if position == len(inputs):
                inputs.append(input_of(reference, feature, place))
            positions[id(reference), feature] = position
    return tuple(inputs), positions


def _input_maker(places: Iterable[Place]) -> InputOf:
    """Return what makes an input of a feature; what each is made of is looked up once per view."""
    made_of = {place.view.name: _made_of(place.view) for place in places}

    def input_of(reference: FeatureViewReference, feature: str, place: Place) -> Output:
        defined = reference.view.feature(feature)
        return Output(
            name=f"{reference.name}.{feature}",
            view=reference.name,
            feature=feature,
            dtype=reference.view.output_type(feature),
            place=place.number,
            source=made_of[place.view.name][feature],
            description=defined.description,
            tags=defined.tags,
        )

    return input_of


def _made_of(view: ViewPlan) -> Mapping[str, Column | AggregateFeature]:
    if view.schema is None:
        return view.layout.by_name
    return {feature.spec.name: feature for feature in view.schema.features}
