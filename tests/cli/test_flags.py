from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastserve.cli.flags import add_settings, count_argument, load_settings, pairs, time_argument
from fastserve.config import SETTINGS
from fastserve.errors import DefinitionError


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return parser.parse_args(argv)


def test_every_setting_is_a_flag_with_help() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser)
    text = parser.format_help()
    assert all(setting.flag in text for setting in SETTINGS)


def test_a_store_s_flag_may_be_repeated_with_names() -> None:
    settings = load_settings(parsed("--store", "hot=redis://a", "--store", "local:x=y"), {})
    assert (settings.store, settings.stores) == ("local:x=y", {"hot": "redis://a"})
    settings = load_settings(parsed("--store", "hot=redis://a"), {"FASTSERVE_STORE": "local:z"})
    assert (settings.store, settings.stores) == ("local:z", {"hot": "redis://a"})
    with pytest.raises(
        DefinitionError, match=r"expected one URL, and NAME=URL for others, got 'local:a' and"
    ):
        load_settings(parsed("--store", "local:a", "--store", "local:b"), {})
    with pytest.raises(DefinitionError, match=r"stores \(flag --store\): expected NAME=URL"):
        load_settings(parsed("--store", "hot=a", "--store", "hot=b"), {})


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fastserve.toml").write_text(
        '[server]\nport = 3\nhost = "h"\nlinger_us = 5\n', encoding="utf-8"
    )
    settings = load_settings(parsed("--port", "1"), {"FASTSERVE_PORT": "2", "FASTSERVE_LINGER_US": "6"})
    assert (settings.port, settings.linger_us, settings.host) == (1, 6, "h")


def test_the_file_is_the_flag_s_then_the_variable_s_then_the_folder_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(parsed(), {}).port == 8080
    for number, name in enumerate(("fastserve.toml", "by_variable.toml", "by_flag.toml"), 1):
        Path(name).write_text(f"[server]\nport = {number}\n", encoding="utf-8")
    assert load_settings(parsed(), {}).port == 1
    assert load_settings(parsed(), {"FASTSERVE_CONFIG": "by_variable.toml"}).port == 2
    assert (
        load_settings(parsed("--config", "by_flag.toml"), {"FASTSERVE_CONFIG": "by_variable.toml"}).port == 3
    )


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(
        DefinitionError, match=r"settings file .*: expected a readable file, got: No such file"
    ):
        load_settings(parsed("--config", str(tmp_path / "nope.toml")), {})
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(DefinitionError, match="it isn't UTF-8"):
        load_settings(parsed("--config", str(binary)), {})


@pytest.mark.parametrize(
    "text, time",
    [
        ("2013-12-30T12:00:00Z", datetime(2013, 12, 30, 12, tzinfo=UTC)),
        ("2013-12-30T13:00:00+01:00", datetime(2013, 12, 30, 12, tzinfo=UTC)),
        ("2013-12-30", datetime(2013, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_rfc_3339_or_a_date_in_utc(text: str, time: datetime) -> None:
    assert time_argument(text) == time


@pytest.mark.parametrize(
    "text", ["", "2013-13-30", "2013-12-30T12:00:00", "yesterday", "20131230", "2013-12-30 "]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a time as in RFC 3339"):
        time_argument(text)


def test_counts_are_whole_and_large_enough() -> None:
    assert count_argument(0)("0") == 0
    for text in ("-1", "1.5", "", "٣", "1_0", " 1"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 0 on"):
            count_argument(0)(text)
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 on, got '0'"):
        count_argument(1)("0")


def test_pairs_are_cut_at_the_first_equals_sign_and_values_stay_as_they_are() -> None:
    assert pairs("join key", ["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize(
    "texts, message",
    [
        (["a"], "join key: expected NAME=VALUE, got 'a'"),
        (["=1"], "join key: expected NAME=VALUE, got '=1'"),
        (["a=1", "a=2"], "join key 'a': expected once, got it twice"),
    ],
)
def test_what_is_no_pair_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        pairs("join key", texts)
    assert str(caught.value) == message
