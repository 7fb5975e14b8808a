from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.config import SETTINGS, STORES, Setting, Settings, settings_markdown, unknown_variables
from fastserve.errors import DefinitionError, InvariantError

ROOT = Path(__file__).resolve().parent.parent


def refusal(flags: dict[str, str | None], environ: dict[str, str], toml_text: str | None = None) -> str:
    with pytest.raises(DefinitionError) as caught:
        Settings.load(flags, environ, toml_text)
    return str(caught.value)


def test_what_nobody_gives_has_its_default() -> None:
    assert Settings.load({}, {}) == Settings()
    assert Settings().workers is None
    assert Settings().body_limit_bytes == 5 * 1024 * 1024


def test_a_flag_goes_before_a_variable_a_variable_before_the_file() -> None:
    flags: dict[str, str | None] = {"port": "1"}
    environ = {"FASTSERVE_PORT": "2", "FASTSERVE_LINGER_US": "20"}
    toml = "[server]\nport = 3\nlinger_us = 30\nmax_batch_rows = 300\n"
    settings = Settings.load(flags, environ, toml)
    assert (settings.port, settings.linger_us, settings.max_batch_rows) == (1, 20, 300)


def test_stores_have_names_and_each_name_its_own_order_of_sources() -> None:
    toml = '[stores]\nhot = "redis://file"\ncold = "local:a b"\n'
    environ = {"FASTSERVE_STORES": "hot=redis://variable\n  warm=redis+cluster://a:1,b:2?prefix=x."}
    assert Settings.load({}, {}, toml).stores == {"hot": "redis://file", "cold": "local:a b"}
    assert Settings.load({"stores": "warm=redis://flag"}, environ, toml).stores == {
        "hot": "redis://variable",
        "cold": "local:a b",
        "warm": "redis://flag",
    }
    assert Settings.load({}, {}).stores == Settings().stores == {}


@pytest.mark.parametrize("text", ["redis://a", "hot=", "hot=a hot=b", "1=a", "=a", "a-b=c", "hot = a"])
def test_a_store_without_a_usable_name_or_a_url_is_refused(text: str) -> None:
    assert refusal({"stores": text}, {}) == (
        "stores (flag --store): expected NAME=URL, each name once, of letters, digits and _, not main, by "
        f"blanks, got {text!r}"
    )
    for value in ('"hot=a"', "{ hot = 1 }", '{ "a b" = "c" }', "[]", '{ "a=b" = "c" }', '{ hot = "" }'):
        assert "stores (file fastserve.toml): expected NAME=URL" in refusal({}, {}, f"stores = {value}\n")
    assert "[server]: unknown key 'stores'" in refusal({}, {}, '[server]\nstores = "hot=a"\n')


def test_a_store_s_url_with_a_password_is_not_repeated() -> None:
    for said in (
        refusal({}, {"FASTSERVE_STORES": "hot = redis://:secret@host"}),
        refusal({}, {}, '[stores]\n"a-b" = "redis://:secret@host"\n'),
    ):
        assert said.endswith("and isn't repeated")
        assert "secret" not in said


@pytest.mark.parametrize(
    "setting", [one for one in SETTINGS if one.name != STORES], ids=lambda setting: setting.name
)
def test_every_setting_can_be_given_in_each_of_the_three_ways(setting: Setting) -> None:
    text, toml = sample(setting)
    by_flag = getattr(Settings.load({setting.name: text}, {}), setting.name)
    by_variable = getattr(Settings.load({}, {setting.variable: text}), setting.name)
    by_file = getattr(Settings.load({}, {}, f"[server]\n{setting.name} = {toml}\n"), setting.name)
    assert by_flag == by_variable == by_file != setting.default


def sample(setting: Setting) -> tuple[str, str]:
    if setting.name == "clock":
        return "2013-12-30T12:00:00Z", "2013-12-30T12:00:00Z"
    if setting.name == "log_format":
        return "json", '"json"'
    if setting.name == "log_level":
        return "debug", '"debug"'
    if setting.kind.expected.startswith("a whole number"):
        number = "777" if setting.name in {"workers", "store_connections"} else "7777"
        return number, number
    if setting.name == "trace_sample":
        return "0.25", "0.25"
    return "x:y", '"x:y"'


@pytest.mark.parametrize("text", ["abc", "-1", "+1", " 1", "1_0", "1.0", "٣", "65536", "9" * 30, "1\n"])
def test_a_port_that_is_none_is_refused_with_what_was_expected_and_what_came(text: str) -> None:
    message = refusal({"port": text}, {})
    assert message == f"port (flag --port): expected a whole number from 0 to 65535, got {text!r}"


def test_a_refusal_names_the_variable_or_the_file_that_the_value_came_from() -> None:
    assert refusal({}, {"FASTSERVE_WORKERS": "0"}) == (
        "workers (variable FASTSERVE_WORKERS): expected a whole number from 1 to 1024, got '0'"
    )
    assert refusal({}, {}, '[server]\nport = "8080"\n') == (
        "port (file fastserve.toml): expected a whole number from 0 to 65535, got '8080'"
    )


@pytest.mark.parametrize(
    "toml", ["port = true", "port = 80.0", "store = 5", "log_level = 1", "clock = 2013-12-30"]
)
def test_the_file_s_types_are_taken_at_their_word(toml: str) -> None:
    assert "(file fastserve.toml): expected " in refusal({}, {}, f"[server]\n{toml}\n")


def test_an_unknown_key_of_the_file_is_refused() -> None:
    assert refusal({}, {}, "[server]\nprot = 1\n").startswith(
        "fastserve.toml: [server]: unknown key 'prot', expected one of host, port, admin_host,"
    )
    assert refusal({}, {}, "[sever]\nport = 1\n") == (
        "fastserve.toml: unknown key 'sever', expected one of server, stores, workspace"
    )
    assert refusal({}, {}, "port = 1\n") == (
        "fastserve.toml: unknown key 'port', expected one of server, stores, workspace; "
        "port stands under [server]"
    )


def test_the_repo_s_own_key_may_stand_in_the_same_file() -> None:
    assert Settings.load({}, {}, 'workspace = "flights"\n').workspace is None


def test_a_file_that_is_not_toml_or_has_no_table_is_refused() -> None:
    assert refusal({}, {}, "[server\n").startswith("fastserve.toml: expected TOML, got what isn't: ")
    assert refusal({}, {}, "server = 1\n") == "fastserve.toml: server: expected a table, got 1"


def test_an_empty_variable_counts_as_none_and_an_empty_flag_does_not() -> None:
    assert Settings.load({}, {"FASTSERVE_PORT": "", "FASTSERVE_WORKSPACE": ""}) == Settings()
    assert (
        refusal({"workspace": ""}, {})
        == "workspace (flag --workspace): expected text that isn't empty, got ''"
    )


def test_an_unknown_variable_is_reported_and_no_more() -> None:
    environ = {
        "FASTSERVE_PROT": "1",
        "FASTSERVE_PORT": "9",
        "FASTSERVE_CONFIG": "x",
        "OTHER": "1",
        "FASTSERVE_A": "",
    }
    assert unknown_variables(environ) == ("FASTSERVE_A", "FASTSERVE_PROT")
    assert Settings.load({}, environ).port == 9


def test_the_variables_of_a_kubernetes_service_are_left_alone() -> None:
    environ = {
        "FASTSERVE_PORT": "tcp://10.0.0.7:80",
        "FASTSERVE_PORT_80_TCP": "tcp://10.0.0.7:80",
        "FASTSERVE_PORT_80_TCP_ADDR": "10.0.0.7",
        "FASTSERVE_SERVICE_HOST": "10.0.0.7",
        "FASTSERVE_SERVICE_PORT_HTTP": "80",
        "FASTSERVE_ADMIN_PORT": "tcp://10.0.0.8:9090",
        "FASTSERVE_ADMIN_SERVICE_HOST": "10.0.0.8",
    }
    assert Settings.load({}, environ) == Settings()
    assert Settings.load({}, environ, "[server]\nport = 9\n").port == 9
    assert unknown_variables(environ) == ()


@pytest.mark.parametrize(
    "text, nanoseconds",
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2013-12-30T12:00:00Z", 1_388_404_800_000_000_000),
        ("2013-12-30t13:00:00.000001+01:00", 1_388_404_800_000_001_000),
        ("1969-12-31 23:59:59z", -1_000_000_000),
        ("2199-12-31T23:59:59.999999Z", 7_258_118_399_999_999_000),
        ("1700-01-01T00:00:00Z", -8_520_336_000_000_000_000),
    ],
)
def test_the_clock_is_exact_and_in_utc(text: str, nanoseconds: int) -> None:
    settings = Settings.load({"clock": text}, {})
    assert settings.clock_ns == nanoseconds
    assert settings.clock is not None
    assert settings.clock.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "2013-12-30",
        "2013-12-30T12:00:00",
        "2013-W01-1T00:00:00Z",
        "2013-02-30T12:00:00Z",
        "now",
        "0001-01-01T00:00:00+14:00",
        "1699-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
        "2199-12-31T23:59:59-01:00",
    ],
)
def test_a_clock_without_offset_or_off_the_calendar_is_refused(text: str) -> None:
    assert refusal({"clock": text}, {}).endswith(f"got {text!r}")


def test_the_file_s_own_date_time_is_the_clock() -> None:
    settings = Settings.load({}, {}, "[server]\nclock = 2013-12-30T13:00:00+01:00\n")
    assert settings.clock == datetime(2013, 12, 30, 12, tzinfo=UTC)
    for text in ("2013-12-30T13:00:00", "9999-12-31T00:00:00Z"):
        assert f"got datetime.datetime({text[:4]}" in refusal({}, {}, f"[server]\nclock = {text}\n")


def test_a_flag_that_is_no_setting_is_our_own_mistake() -> None:
    with pytest.raises(InvariantError, match="prot"):
        Settings.load({"prot": None}, {})


def test_a_message_echoes_at_most_64_characters() -> None:
    assert len(refusal({"port": "9" * 100_000}, {})) < 64 + 80


@given(st.sampled_from(SETTINGS), st.text())
def test_any_text_is_taken_or_refused_with_the_setting_s_name(setting: Setting, text: str) -> None:
    try:
        Settings.load({setting.name: text}, {})
    except DefinitionError as error:
        assert str(error).startswith(f"{setting.name} (flag {setting.flag}): expected ")  # noqa: PT017


def test_the_page_of_settings_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_markdown(), (
        "run `make docs`"
    )
