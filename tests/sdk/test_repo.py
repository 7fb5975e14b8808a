"""A folder of files becomes a Repo, or one list of everything that is wrong in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from fastserve import DefinitionError, DefinitionErrors
from fastserve.sdk.repo import Repo, load_repo

ENTITIES = """
from fastserve import Entity, Field, String

user = Entity("user", [Field("user_id", String)])
"""
VIEWS = """
from datetime import timedelta
from fastserve import Aggregate, Attribute, FeatureService, FeatureView, Field, FileSource, Float64, Int64
{imports}

transactions = FileSource("transactions", "data/*.csv", timestamp_field="ts")
amounts = FeatureView(
    "amounts", user, transactions, [Aggregate(Field("amount", Float64), "sum", timedelta(days=7))],
    aggregation_interval=timedelta(hours=1),
)
profile = FeatureView("profile", [user], FileSource("users", "users.parquet"), [Attribute("age", Int64)])
fraud = FeatureService("fraud:v2", [amounts, profile[["age"]].with_name("p")])
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    folder = tmp_path / "shop"

    def files(**texts: str | bytes) -> Path:
        for name, text in texts.items():
            path = folder / (name.replace("__in__", "/") + ("" if "." in name else ".py"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else dedent(text).lstrip().encode())
        return folder

    return files


def errors_of(folder: Path) -> list[str]:
    """Return the lines of what load_repo raises, less the path to the folder."""
    with pytest.raises(DefinitionErrors) as caught:
        load_repo(folder)
    assert str(caught.value).startswith(f"{len(caught.value.errors)} error")
    return [str(error).replace(f"{folder}/", "") for error in caught.value.errors]


def assert_shop(repo: Repo) -> None:
    assert list(repo.entities) == ["user"]
    assert list(repo.sources) == ["transactions", "users"]
    assert list(repo.views) == ["amounts", "profile"]
    assert list(repo.services) == ["fraud:v2"]
    assert repo.services["fraud:v2"].references[0].view is repo.views["amounts"]


@pytest.mark.parametrize(
    "imports",
    ["from entities import user", "from .entities import user", "import entities; user = entities.user"],
)
def test_files_import_each_other_as_siblings_and_relatively(write: Write, imports: str) -> None:
    assert_shop(load_repo(write(entities=ENTITIES, views=VIEWS.format(imports=imports))))


def test_a_folder_that_is_a_package_may_be_imported_by_its_name(write: Write) -> None:
    imports = "from shop.entities import user"
    assert_shop(load_repo(write(__init__="", entities=ENTITIES, views=VIEWS.format(imports=imports))))


def test_a_file_imported_in_three_ways_runs_once(write: Write) -> None:
    imports = """
from entities import user as a
from .entities import user as b
from shop.entities import user as c
assert a is b is c
user = a
"""
    assert_shop(load_repo(write(__init__="", entities=ENTITIES, views=VIEWS.format(imports=imports))))


@pytest.mark.parametrize("init", [True, False], ids=["package", "plain folder"])
def test_subfolders_are_loaded_and_imported_with_and_without_an_init_file(write: Write, init: bool) -> None:
    folder = write(
        shared__in__entities=ENTITIES,
        views__in__main=VIEWS.format(imports="from ..shared.entities import user"),
    )
    if init:
        (folder / "shared" / "__init__.py").write_text("from .entities import user\n")
        write(other="from shared import user\nimport views.main as m\nassert m.user is user")
    else:
        write(other="from shared.entities import user\nimport views.main as m\nassert m.user is user")
    assert_shop(load_repo(folder))


def test_two_loads_share_nothing(write: Write, tmp_path: Path) -> None:
    folder = write(entities=ENTITIES)
    other = tmp_path / "other"
    other.mkdir()
    (other / "entities.py").write_text(ENTITIES.replace("user", "card"))
    (other / "use.py").write_text("from entities import card")
    first, second, again = load_repo(folder), load_repo(other), load_repo(folder)
    assert list(first.entities) == ["user"]
    assert list(second.entities) == ["card"]
    assert again.entities["user"] is not first.entities["user"]
    assert "entities" not in sys.modules


def test_a_changed_file_is_read_again_even_within_a_second_and_nothing_is_written_beside_it(
    write: Write,
) -> None:
    folder = write(entities=ENTITIES)
    load_repo(folder)
    write(entities=ENTITIES.replace('"user"', '"item"'))
    assert list(load_repo(folder).entities) == ["item"]
    assert [path.name for path in folder.iterdir()] == ["entities.py"]


def test_after_a_load_the_import_system_is_as_before(write: Write) -> None:
    finders, modules, path = list(sys.meta_path), set(sys.modules), list(sys.path)
    load_repo(write(entities=ENTITIES, use="import entities"))
    assert sys.meta_path == finders
    assert sys.path == path
    new = set(sys.modules) - modules
    assert all(name.startswith("_fastserve_repo_") for name in new), new


def test_a_module_that_the_process_has_under_a_name_of_the_repo_is_neither_used_nor_lost(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = type(sys)("entities")
    monkeypatch.setitem(sys.modules, "entities", foreign)
    assert_shop(load_repo(write(entities=ENTITIES, views=VIEWS.format(imports="from entities import user"))))
    assert sys.modules["entities"] is foreign


def test_a_file_named_like_a_standard_module_shadows_it_for_nobody(write: Write) -> None:
    folder = write(
        random=ENTITIES,
        views=VIEWS.format(imports="import random; random.seed\nfrom .random import user"),
    )
    assert_shop(load_repo(folder))


def test_functions_of_a_repo_can_import_from_it_after_the_load(write: Write) -> None:
    folder = write(
        entities=ENTITIES,
        views=VIEWS.format(
            imports="""
from .entities import user
def late(table):
    from .entities import user as again
    return again
"""
        )
        .replace('FileSource("users"', 'transformation=late, source=FileSource("users"')
        .replace(
            '[user], transformation=late, source=FileSource("users", "users.parquet"), [',
            '[user], transformation=late, source=FileSource("users", "users.parquet"), features=[',
        ),
    )
    repo = load_repo(folder)
    late = repo.views["profile"].transformation
    assert callable(late)
    assert late(None) is repo.entities["user"]


def test_hidden_files_tests_and_environments_are_not_run(write: Write) -> None:
    boom = "raise RuntimeError('not to be run')"
    folder = write(
        entities=ENTITIES,
        _draft=boom,
        test_views=boom,
        views_test=boom,
        conftest=boom,
        setup=boom,
        tests__in__anything=boom,
        _old__in__views=boom,
        venv__in__lib__in__site=boom,
        **{".hidden__in__views": boom, "venv__in__pyvenv.cfg": ""},
    )
    (folder / ".hidden" / "views").rename(folder / ".hidden" / "views.py")
    assert list(load_repo(folder).entities) == ["user"]


def test_a_file_beginning_with_an_underscore_can_be_imported_by_others(write: Write) -> None:
    folder = write(_shared=ENTITIES, views=VIEWS.format(imports="from _shared import user"))
    assert_shop(load_repo(folder))


def test_definitions_without_a_name_in_a_module_are_collected_too(write: Write) -> None:
    made_in_a_loop = """
    from fastserve import Entity, Field, String
    for name in ("a", "b"):
        Entity(name, Field(name, String))
    """
    assert list(load_repo(write(loop=made_in_a_loop)).entities) == ["a", "b"]


def test_definitions_of_an_installed_library_belong_to_every_load(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "lib"
    library.mkdir()
    (library / "shop_library_for_test.py").write_text(ENTITIES)
    monkeypatch.syspath_prepend(str(library))
    folder = write(views=VIEWS.format(imports="from shop_library_for_test import user"))
    assert_shop(load_repo(folder))
    assert_shop(load_repo(folder))  # now the library isn't run again
    del sys.modules["shop_library_for_test"]


def test_a_library_with_faults_is_an_error_in_later_loads_too(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "lib"
    library.mkdir()
    (library / "shop_library_for_test.py").write_text(
        ENTITIES.replace("String)", "Float64)").replace("String", "Float64")
    )
    monkeypatch.syspath_prepend(str(library))
    folder = write(a="import shop_library_for_test", b="from shop_library_for_test import user")
    assert "got Float64" in errors_of(folder)[0]
    assert "Entity('user'): invalid since an earlier load (expected its faults mended" in errors_of(folder)[0]
    del sys.modules["shop_library_for_test"]


def test_the_workspace_comes_from_the_settings_file(write: Write) -> None:
    assert load_repo(write(entities=ENTITIES)).workspace == "default"
    folder = write(**{"fastserve.toml": 'workspace = "prod"\n[server]\nport = 1\n'})
    assert load_repo(folder).workspace == "prod"


@pytest.mark.parametrize(
    "text, error",
    [
        (
            "# of the shop\nworkspace = 5\n",
            (
                "fastserve.toml:2: workspace (expected a letter, then letters, digits and _ . -, "
                "at most 100 characters, got 5)"
            ),
        ),
        (
            "a = 1\nworkspace = x\n",
            "fastserve.toml:2: not readable as TOML: Invalid value (at line 2, column 13)",
        ),
    ],
    ids=["not a text", "not TOML"],
)
def test_a_wrong_workspace_is_told_with_its_line(write: Write, text: str, error: str) -> None:
    assert errors_of(write(entities=ENTITIES, **{"fastserve.toml": text})) == [error]


def test_keys_of_the_settings_file_that_nobody_reads_are_told_with_what_was_meant(write: Write) -> None:
    text = 'worksapce = "prod"\n"port" = 1\n\n  [servers]\n'
    assert errors_of(write(entities=ENTITIES, **{"fastserve.toml": text})) == [
        "fastserve.toml:1: 'worksapce' (expected one of server, stores, workspace; did you mean workspace?)",
        "fastserve.toml:2: 'port' (expected one of server, stores, workspace)",
        "fastserve.toml:4: 'servers' (expected one of server, stores, workspace; did you mean server?)",
    ]


def test_a_settings_file_that_is_no_text_is_told(write: Write) -> None:
    (error,) = errors_of(write(entities=ENTITIES, **{"fastserve.toml": b"workspace = '\xff'"}))
    assert error.startswith("fastserve.toml:1: not readable as TOML: 'utf-8' codec can't decode byte 0xff")


def test_all_errors_of_all_files_are_told_in_one_run(write: Write) -> None:
    folder = write(
        a="""
        from fastserve import Entity, Field, Float64, String
        one = Entity("one", [Field("k", Float64)])
        two = Entity("two words", [Field("k", String)],
                     tags=["x"])
        """,
        b="import no_such_package_at_all\n",
        c="def f(:\n    pass\n",
        d="""
        from fastserve import Entity, Field, String

        def make():
            return 1 / 0

        make()
        """,
        e=b"x = 1\ny = 2  # caf\xe9\n",
    )
    assert errors_of(folder) == [
        "a.py:2: Entity 'one': join key 'k' (expected String, Int64, Bool or Timestamp, got Float64)",
        (
            "a.py:3: Entity 'two words': name (expected a letter, then letters, digits and _ . : -, "
            "at most 120 characters, got 'two words')"
        ),
        "a.py:3: Entity 'two words': tags (expected a dict of str to str, got ['x'])",
        "b.py:1: ModuleNotFoundError: No module named 'no_such_package_at_all'",
        "c.py:1: SyntaxError: invalid syntax",
        "d.py:4: ZeroDivisionError: division by zero",
        "e.py:2: SyntaxError: not readable as text (expected utf-8, got the byte 0xe9)",
    ]


def test_paths_are_shown_as_the_repo_was_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(a="1 / 0")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DefinitionErrors) as caught:
        load_repo("shop")
    assert (
        str(caught.value)
        == "1 error in the feature repo:\n  shop/a.py:1: ZeroDivisionError: division by zero"
    )
    monkeypatch.chdir(folder)
    with pytest.raises(DefinitionErrors) as caught:
        load_repo(".")
    assert str(caught.value.errors[0]) == "a.py:1: ZeroDivisionError: division by zero"


def test_one_failing_file_is_told_once_however_many_import_it(write: Write) -> None:
    folder = write(
        entities="1 / 0",
        a="from entities import user",
        b="from .entities import user",
        c="import a",
    )
    assert errors_of(folder) == ["entities.py:1: ZeroDivisionError: division by zero"]


def test_a_failing_file_is_told_though_another_catches_its_failure(write: Write) -> None:
    folder = write(
        a="try:\n    import broken\nexcept ImportError:\n    pass",
        broken="import no_such_package_at_all",
        later="import broken",
    )
    assert errors_of(folder) == ["broken.py:1: ModuleNotFoundError: No module named 'no_such_package_at_all'"]


def test_a_failing_init_file_of_the_repo_is_told_once(write: Write) -> None:
    assert errors_of(write(__init__="1 / 0", entities=ENTITIES)) == [
        "__init__.py:1: ZeroDivisionError: division by zero"
    ]


@pytest.mark.parametrize(
    "text, error",
    [
        ("import sys\nsys.exit('enough')", "a.py:2: SystemExit: enough"),
        ("x = 1\nraise RuntimeError", "a.py:2: RuntimeError"),
        ("raise ValueError('y' * 1000)", f"a.py:1: ValueError: {'y' * 299}…"),
        ("raise ValueError('one\\ntwo')", "a.py:1: ValueError: one"),
        (
            "import json\n\njson.loads('{')",
            "a.py:3: JSONDecodeError: Expecting property name enclosed in double quotes",
        ),
        ("eval('1 +')", "a.py:1: SyntaxError: invalid syntax"),
        ("from entities import usr", "a.py:1: ImportError: cannot import name 'usr' from 'entities' ("),
        (
            "from fastserve import Entity\nEntity(nam='x')",
            "a.py:2: TypeError: Entity.__init__() got an unexpected keyword argument 'nam'",
        ),
        ("# coding: klingon\n", "a.py:1: SyntaxError: unknown encoding: klingon"),
        (
            "x = 1\nif x:\ny = 2\n",
            "a.py:3: IndentationError: expected an indented block after 'if' statement on line 2",
        ),
        (
            "from ..outside import x",
            "a.py:1: ImportError: attempted relative import beyond top-level package",
        ),
    ],
    ids=[
        "exit",
        "silent",
        "long",
        "many lines",
        "in a library",
        "eval",
        "name",
        "keyword",
        "coding",
        "indent",
        "beyond",
    ],
)
def test_whatever_a_file_raises_is_told_with_the_line_of_the_repo(
    write: Write, text: str, error: str
) -> None:
    (got,) = errors_of(write(entities=ENTITIES, a=text))
    assert got.startswith(error)


def test_bytes_that_are_no_text_are_told_with_their_line_wherever_they_stand(write: Write) -> None:
    assert errors_of(write(a=b"\xff\xfe = 1\n")) == [
        "a.py:1: SyntaxError: not readable as text (expected utf-8, got the byte 0xff)"
    ]
    assert errors_of(write(a=b"x = 1\n\ny = '\xe9'\n")) == [
        "a.py:3: SyntaxError: not readable as text (expected utf-8, got the byte 0xe9)"
    ]


def test_a_null_byte_is_told(write: Write) -> None:
    assert errors_of(write(a=b"x = 1\0\n")) == [
        "a.py:1: SyntaxError: source code string cannot contain null bytes"
    ]


def test_a_file_in_another_declared_encoding_is_read(write: Write) -> None:
    text = "# coding: latin-1\n" + ENTITIES.replace(")])", ')], description="é")')
    assert load_repo(write(a=text.encode("latin-1"))).entities["user"].description == "é"


def test_two_definitions_of_one_name_are_told_with_both_places(write: Write) -> None:
    folder = write(a=ENTITIES, b=ENTITIES)
    assert errors_of(folder) == [
        "b.py:3: Entity 'user': the name is taken (expected another, got that of a.py:3)"
    ]


def test_sources_of_both_kinds_share_their_names(write: Write) -> None:
    text = """
    from fastserve import Field, FileSource, PushSource, String
    a = FileSource("s", "x.csv")
    b = PushSource("s", [Field("k", String)])
    """
    assert errors_of(write(a=text)) == [
        "a.py:3: source 's': the name is taken (expected another, got that of a.py:2)"
    ]


def test_views_of_a_bundle_have_one_entity_and_are_cached_alike_and_its_name_is_no_view_s(
    write: Write,
) -> None:
    text = """
    from datetime import timedelta
    from fastserve import Attribute, Entity, FeatureView, Field, FileSource, Int64, String
    user, day = Field("user_id", String), Field("day", Int64)
    one, other = Entity("one", [user, day]), Entity("other", [day, user])
    rows = FileSource("rows", "rows.csv")
    def view(name, entity, **options):
        return FeatureView(name, entity, rows, [Attribute("age", Int64)], **options)
    a = view("a", one, bundle="both")
    b = view("b", one, bundle="both")
    c = view("c", other, bundle="both")
    d = view("d", one, bundle="both", cache_ttl=timedelta(minutes=1))
    e = view("e", one, bundle="a")
    f = view("f", one, bundle="a")
    """
    # Places are those of the call in `view`, where the author writes a view.
    found = [error.partition(": ")[2] for error in errors_of(write(a=text))]
    assert found == [
        (
            "FeatureView 'c': bundle 'both' (expected the join keys of 'a' in their order, "
            "user_id: String, day: Int64, got day: Int64, user_id: String)"
        ),
        (
            "FeatureView 'd': bundle 'both' (expected to be cached as 'a' is, for one item is read for both, "
            "cache_ttl None, stale_ttl None, got cache_ttl 1m, stale_ttl None)"
        ),
        (
            "FeatureView 'e': bundle 'a' (expected a name that no view has, as it names a table, "
            "got that of the view at a.py:7)"
        ),
    ]


def test_two_packed_views_cannot_share_a_table(write: Write) -> None:
    views = VIEWS.format(imports="from entities import user").replace(
        '[Attribute("age", Int64)]', '[Attribute("age", Int64)], table="t_1"'
    )
    copy = """
    from fastserve import Attribute, FeatureView, FileSource, Int64
    from entities import user
    again = FeatureView("again", user, FileSource("more", "m.csv"), [Attribute("age", Int64)], table="t_1")
    """
    assert errors_of(write(entities=ENTITIES, again=copy, views=views)) == [
        (
            "views.py:10: FeatureView 'profile': table (expected one of its own, got 't_1', "
            "which 'again' writes to at again.py:3)"
        )
    ]


def test_a_mistake_is_one_message_though_much_depends_on_it(write: Write) -> None:
    entities = ENTITIES.replace("String)", '"string")')
    views = VIEWS.format(imports="from entities import user")
    assert errors_of(write(entities=entities, views=views)) == [
        (
            "entities.py:3: Field 'user_id': dtype (expected a data type such as Int64, String or "
            "Array(Int64); did you mean String?, got 'string')"
        )
    ]


def test_a_folder_without_definitions_is_an_error(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DefinitionErrors, match="no definition found"):
        load_repo(tmp_path)
    with pytest.raises(DefinitionErrors, match="no definition found"):
        load_repo(write(a="x = 1"))


def test_a_path_that_is_no_folder_is_an_error(write: Write) -> None:
    file = write(a="x = 1") / "a.py"
    for path in (file, file.parent / "nowhere"):
        with pytest.raises(DefinitionError, match=r"expected a folder, found none"):
            load_repo(path)


def test_a_file_name_that_cannot_be_imported_is_an_error(write: Write) -> None:
    folder = write(entities=ENTITIES)
    (folder / "views.v2.py").write_text("x = 1")
    assert errors_of(folder) == [
        "views.v2.py:1: file name (expected no dot before .py nor in a folder's name, got 'views.v2.py')"
    ]


def test_a_load_that_is_interrupted_leaves_the_import_system_clean(write: Write) -> None:
    finders = list(sys.meta_path)
    with pytest.raises(KeyboardInterrupt):
        load_repo(write(a="raise KeyboardInterrupt"))
    assert sys.meta_path == finders


def test_circular_imports_between_files_work_as_in_python(write: Write) -> None:
    folder = write(a="import b\n" + ENTITIES.lstrip(), b="import a\n")
    assert list(load_repo(folder).entities) == ["user"]


ON_DEMAND = """
from fastserve import Attribute, Calculation, Field, Float64, Int64, OnDemandFeatureView, RequestSource
from fastserve import FeatureService, on_demand_feature_view
from views import amounts, profile

request = RequestSource([Field("amount", Float64)])

@on_demand_feature_view(sources=[request, profile], features=[Attribute("ratio", Float64)])
def ratio(request, profile):
    return {"ratio": request["amount"] / profile["age"]}

hidden = OnDemandFeatureView("hidden", [ratio, amounts], [Calculation("twice", "ratio * 2")])
"""


def test_on_demand_views_are_collected_with_what_they_read(write: Write) -> None:
    imports = "from entities import user"
    uses = """
    from fastserve import FeatureService
    from computed import hidden
    scoring = FeatureService("scoring", [hidden])
    """
    files = {
        "entities": ENTITIES,
        "views": VIEWS.format(imports=imports),
        "computed": ON_DEMAND,
        "uses": uses,
    }
    repo = load_repo(write(**files))
    assert list(repo.on_demand_views) == ["ratio", "hidden"]
    assert list(repo.views) == ["amounts", "profile"]
    assert set(repo.services) == {"scoring", "fraud:v2"}
    assert [view.name for view in repo.services["scoring"].on_demand_views] == ["ratio", "hidden"]


def test_views_that_a_library_made_come_along_with_those_that_read_them(write: Write) -> None:
    library = """
    from fastserve import Calculation, Field, Float64, OnDemandFeatureView, RequestSource
    request = RequestSource([Field("amount", Float64)])
    inner = OnDemandFeatureView("inner", request, [Calculation("twice", "amount * 2")])
    """
    outer = """
    from fastserve import Calculation, FeatureService, OnDemandFeatureView
    from _library import inner
    service = FeatureService("s", [OnDemandFeatureView("outer", inner, [Calculation("c", "twice + 1")])])
    """
    repo = load_repo(write(_library=library, outer=outer))
    assert list(repo.on_demand_views) == ["inner", "outer"]


def test_every_fault_of_on_demand_views_is_told_with_its_line(write: Write) -> None:
    faults = """
    from fastserve import Attribute, Calculation, FeatureService, Field, Float64, Int64
    from fastserve import OnDemandFeatureView, RequestSource, on_demand_feature_view

    request = RequestSource([Field("amount", Float64)])

    @on_demand_feature_view(sources=[request], features=[Attribute("a", Float64)])
    async def later(request):
        return {}

    @on_demand_feature_view(sources=[request], features=[Attribute("a", Float64)], mode="spark")
    def mode(request, profile):
        return {}

    @on_demand_feature_view(sources=[request, later], features=[Attribute("a", Float64)])
    def of_a_wrong_one(request, later):
        return {}

    @on_demand_feature_view(sources=[request], features=[Attribute("a", Float64)])
    def few():
        return {}

    OnDemandFeatureView("c", request, [
        Calculation("x", "amount +"),
        Calculation("y", "nosuch"),
    ])
    OnDemandFeatureView("d", request, [
        Calculation("y", "nosuch"),
        Calculation("z", "amount", Int64),
    ])
    FeatureService("s", [few, of_a_wrong_one, request])
    """
    of_async = "a function that returns its result at once, got a coroutine function (async def)"
    of_mode = '"python" or "numpy" or "pandas", got \'spark\''
    of_few = "1, one for each source, got none"
    of_service = "FeatureView or OnDemandFeatureView, whole or selected from, got RequestSource('request')"
    assert errors_of(write(faults=faults)) == [
        f"faults.py:6: OnDemandFeatureView 'later': decorated object (expected {of_async})",
        f"faults.py:10: OnDemandFeatureView 'mode': mode (expected {of_mode})",
        f"faults.py:18: OnDemandFeatureView 'few': parameters of the function (expected {of_few})",
        "faults.py:23: Calculation 'x': expr: expected a value, got the end at column 9",
        f"faults.py:27: {OF_D} calculation 'y': expected one of request.amount, got 'nosuch' at column 1",
        f"faults.py:28: {OF_D} calculation 'z' (expected Int64, got Float64)",
        f"faults.py:30: FeatureService 's': features[2] (expected {of_service})",
    ]


OF_D = "OnDemandFeatureView 'd':"


def test_a_wrong_join_key_map_within_the_sources_is_told_at_its_line(write: Write) -> None:
    computed = """
    from fastserve import Attribute, Int64, on_demand_feature_view
    from views import profile

    @on_demand_feature_view(
        sources=[
            profile.with_join_key_map({"nosuch": "x"}),
            profile[["nosuch"]].with_name("b"),
        ],
        features=[Attribute("a", Int64)],
    )
    def view(a, b):
        return {"a": 1}
    """
    imports = "from entities import user"
    files = {"entities": ENTITIES, "views": VIEWS.format(imports=imports), "computed": computed}
    assert errors_of(write(**files)) == [
        "computed.py:6: view 'profile': join key map (expected join keys of the view: user_id, got 'nosuch')",
        "computed.py:7: view 'profile': selected feature (expected one of age, got 'nosuch')",
    ]


def test_files_whose_views_need_each_other_are_told(write: Write) -> None:
    def view(name: str, source: str) -> str:
        return f"""
        from fastserve import Calculation, OnDemandFeatureView
        from {source} import {source}_view
        {name}_view = OnDemandFeatureView("{name}", {source}_view, [Calculation("c", "c + 1")])
        """

    (error,) = errors_of(write(a=view("a", "b"), b=view("b", "a")))
    assert error.startswith(
        "b.py:2: ImportError: cannot import name 'a_view' from partially initialized module 'a'"
    )


def test_a_view_s_name_means_one_view_of_either_kind(write: Write) -> None:
    clash = """
    from fastserve import Calculation, Field, Float64, OnDemandFeatureView, RequestSource
    OnDemandFeatureView("profile", RequestSource([Field("a", Float64)]), [Calculation("c", "a")])
    """
    files = {"entities": ENTITIES, "views": VIEWS.format(imports="from entities import user"), "clash": clash}
    (error,) = errors_of(write(**files))
    assert error.startswith(("views.py:", "clash.py:2:"))
    assert "'profile': the name is taken (expected another, got that of" in error
