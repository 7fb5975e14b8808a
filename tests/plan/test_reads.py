from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from fastserve.plan.reads import MAX_GROUP_TABLES, KeyAttributes, TableUse, partition_tables

PACKED: KeyAttributes = (("k", "S"),)
OTHER: KeyAttributes = (("id", "N"),)


def use(table: str, recipe: int = 0, key: KeyAttributes = PACKED, own: bool = True) -> TableUse:
    return TableUse(table, recipe, key, own)


def cut(*services: list[TableUse]) -> list[tuple[str, ...]]:
    return [group.tables for group in partition_tables(services)]


def test_tables_that_a_service_reads_under_one_key_share_a_group() -> None:
    assert cut([use("b"), use("a")]) == [("a", "b")]


def test_tables_under_different_keys_do_not() -> None:
    assert sorted(cut([use("a", 0), use("b", 1)])) == [("a",), ("b",)]


def test_a_table_that_another_service_reads_alone_has_a_group_of_its_own() -> None:
    assert sorted(cut([use("a"), use("b"), use("c")], [use("a")])) == [("a",), ("b", "c")]


def test_services_that_read_the_same_tables_the_same_way_share_the_group() -> None:
    assert cut([use("a"), use("b")], [use("a", 5), use("b", 5)]) == [("a", "b")]


def test_a_table_read_under_two_keys_by_one_service_is_in_one_group() -> None:
    assert sorted(cut([use("a", 0), use("a", 1), use("b", 0)])) == [("a",), ("b",)]
    assert cut([use("a", 0), use("a", 1), use("b", 0), use("b", 1)]) == [("a", "b")]


def test_tables_with_other_key_attributes_or_of_another_format_stand_apart() -> None:
    assert sorted(cut([use("a"), use("b", key=OTHER)])) == [("a",), ("b",)]
    assert sorted(cut([use("a"), use("b", own=False)])) == [("a",), ("b",)]
    (group,) = partition_tables([[use("b", key=OTHER, own=False)]])
    assert (group.key_attributes, group.own_items, group.size) == (OTHER, False, 1)


def test_tables_in_other_stores_stand_apart() -> None:
    hot = TableUse("b", 0, PACKED, True, store="hot")
    groups = partition_tables([[use("a"), hot, use("c")]])
    assert [(group.tables, group.store) for group in groups] == [(("a", "c"), ""), (("b",), "hot")]


def test_a_group_that_would_be_too_large_is_cut_evenly() -> None:
    tables = [use(f"t{number:03}") for number in range(101)]
    assert [len(group) for group in cut(tables)] == [33, 34, 34]
    assert [len(group) for group in cut(tables[:MAX_GROUP_TABLES])] == [50]
    assert [len(group) for group in cut(tables[:51])] == [25, 26]


def test_no_services_have_no_groups() -> None:
    assert partition_tables([]) == []
    assert partition_tables([[]]) == []


SERVICES = st.lists(
    st.lists(st.builds(use, st.sampled_from("abcdefgh"), st.integers(0, 2)), max_size=12, unique=True),
    max_size=5,
)


@given(SERVICES)
def test_groups_are_disjoint_complete_and_all_or_nothing_for_every_key_of_every_service(
    services: list[list[TableUse]],
) -> None:
    groups = partition_tables(services)
    tables = [table for group in groups for table in group.tables]
    assert sorted(tables) == sorted({each.table for service in services for each in service})
    assert [group.index for group in groups] == list(range(len(groups)))
    for service in services:
        for recipe in {each.key_recipe for each in service}:
            read = {each.table for each in service if each.key_recipe == recipe}
            for group in groups:
                assert not read & set(group.tables) or set(group.tables) <= read


@given(SERVICES)
def test_no_two_groups_could_be_one(services: list[list[TableUse]]) -> None:
    def reads_of(table: str) -> set[tuple[int, object]]:
        return {(n, u.key_recipe) for n, service in enumerate(services) for u in service if u.table == table}

    groups = partition_tables(services)
    assert all(reads_of(a.tables[0]) != reads_of(b.tables[0]) for a, b in combinations(groups, 2))


@given(st.permutations([use(name) for name in "abcd"]), st.permutations([use(name) for name in "abcd"]))
def test_the_order_in_which_views_are_named_changes_nothing(
    one: list[TableUse], other: list[TableUse]
) -> None:
    assert partition_tables([one]) == partition_tables([other])
