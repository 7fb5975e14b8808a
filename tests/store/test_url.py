from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.store.url import (
    DynamoDBSettings,
    LocalSettings,
    RedisSettings,
    StoreSettings,
    open_store,
    parse_store_url,
)


@pytest.mark.parametrize(
    "url,expected",
    [
        ("local:store", LocalSettings("store")),
        ("local:./a b/ä", LocalSettings("./a b/ä")),
        ("local:/var/lib/fastserve", LocalSettings("/var/lib/fastserve")),
        ("local:100%25", LocalSettings("100%25")),
        ("local:store?sync=off", LocalSettings("store", "off")),
        ("local:store?", LocalSettings("store")),
        ("dynamodb://eu-central-1", DynamoDBSettings("eu-central-1")),
        ("dynamodb://us-gov-west-1/", DynamoDBSettings("us-gov-west-1")),
        (
            "dynamodb://local?endpoint=http://127.0.0.1:8000&prefix=t.1_-",
            DynamoDBSettings("local", endpoint="http://127.0.0.1:8000", prefix="t.1_-"),
        ),
        (
            "dynamodb://us-east-1?endpoint=https%3A%2F%2Fvpce.example%2F&connections=64&consistent_reads=true",
            DynamoDBSettings(
                "us-east-1", endpoint="https://vpce.example", connections=64, consistent_reads=True
            ),
        ),
        ("dynamodb://x?endpoint=http://[::1]:80", DynamoDBSettings("x", endpoint="http://[::1]:80")),
        ("redis://cache", RedisSettings((("cache", 6379),))),
        ("redis://10.0.0.1:7000/", RedisSettings((("10.0.0.1", 7000),))),
        (
            "rediss://cache.example:6380/15?prefix=prod.&eviction=allow",
            RedisSettings(
                (("cache.example", 6380),), database=15, prefix="prod.", tls=True, allow_eviction=True
            ),
        ),
        (
            "redis+cluster://a:1,b,[::1]:3?prefix=p",
            RedisSettings((("a", 1), ("b", 6379), ("::1", 3)), prefix="p", cluster=True),
        ),
        ("redis://a?credentials=HOT_2", RedisSettings((("a", 6379),), credentials="HOT_2")),
        ("rediss+cluster://a", RedisSettings((("a", 6379),), tls=True, cluster=True)),
    ],
)
def test_a_url_says_what_to_open(url: str, expected: StoreSettings) -> None:
    assert parse_store_url(url) == expected


@pytest.mark.parametrize(
    "url,message",
    [
        ("", "expected local:PATH, dynamodb://REGION or redis://HOST:PORT, got ''"),
        ("store", "expected local:PATH, dynamodb://REGION or redis://HOST:PORT, got 'store'"),
        (
            "postgres://user:secret@host",
            "expected local:PATH, dynamodb://REGION or redis://HOST:PORT, got the scheme 'postgres'",
        ),
        ("LOCAL:x", "expected local:PATH, dynamodb://REGION or redis://HOST:PORT, got the scheme 'LOCAL'"),
        ("local:", "local: needs a folder; write for example local:./store"),
        ("local:?sync=off", "local: needs a folder; write for example local:./store"),
        (
            "local://data",
            (
                "expected local:PATH with a relative path or one that begins with a single slash, "
                "got 'local://data'"
            ),
        ),
        ("local:x?sync=sometimes", "sync: expected batch or off, got 'sometimes'"),
        ("local:x?snyc=off", "expected parameters out of sync, got 'snyc'"),
        (
            "dynamodb:",
            (
                "expected a region, as in dynamodb://eu-central-1 (with an emulator any will do, as in "
                "dynamodb://local?endpoint=http://127.0.0.1:8000), got 'dynamodb:'"
            ),
        ),
        (
            "dynamodb://?prefix=a",
            (
                "expected a region, as in dynamodb://eu-central-1 (with an emulator any will do, as in "
                "dynamodb://local?endpoint=http://127.0.0.1:8000), got 'dynamodb://'"
            ),
        ),
        ("dynamodb://EU", "region: expected a name like eu-central-1, got 'EU'"),
        ("dynamodb://a/b", "region: expected a name like eu-central-1, got 'a/b'"),
        ("dynamodb://eu-central-1\n", "region: expected a name like eu-central-1, got 'eu-central-1\\n'"),
        (
            "dynamodb://x?tables=a",
            "expected parameters out of endpoint, prefix, connections, consistent_reads, got 'tables'",
        ),
        (
            "dynamodb://x?&",
            "expected parameters out of endpoint, prefix, connections, consistent_reads, got ''",
        ),
        ("dynamodb://x?prefix=a&prefix=b", "prefix: expected once, got it twice"),
        ("dynamodb://x?prefix=", "prefix: expected prefix=VALUE, got no value"),
        ("dynamodb://x?prefix", "prefix: expected prefix=VALUE, got no value"),
        (
            "dynamodb://x?prefix=a/b",
            (
                "prefix: expected at most 127 characters out of A-Z a-z 0-9 _ - . "
                "for names of tables, got 'a/b'"
            ),
        ),
        ("dynamodb://x?connections=0", "connections: expected 1 to 1024, got '0'"),
        ("dynamodb://x?connections=1025", "connections: expected 1 to 1024, got '1025'"),
        ("dynamodb://x?connections=\u0664", "connections: expected 1 to 1024, got '\u0664'"),
        ("dynamodb://x?consistent_reads=yes", "consistent_reads: expected true or false, got 'yes'"),
        (
            "dynamodb://x?endpoint=127.0.0.1:8000",
            "endpoint: expected http://HOST:PORT or https://HOST, got '127.0.0.1:8000'",
        ),
        (
            "dynamodb://x?endpoint=http://h:99999",
            "endpoint: expected http://HOST:PORT or https://HOST, got 'http://h:99999'",
        ),
        (
            "dynamodb://x?endpoint=http://h/path",
            "endpoint: expected http://HOST:PORT or https://HOST, got 'http://h/path'",
        ),
        (
            "dynamodb://x?endpoint=http://h%20h",
            "endpoint: expected http://HOST:PORT or https://HOST, got 'http://h h'",
        ),
        (
            "redis://user:secret@host",
            (
                "expected redis://HOST:PORT, got one with credentials; they belong into the environment: "
                "REDIS_USERNAME, and REDIS_PASSWORD or REDIS_PASSWORD_FILE"
            ),
        ),
        *(
            (
                url,
                (
                    "expected a host, as in redis://127.0.0.1:6379/0, or several of a cluster, as in "
                    f"redis+cluster://10.0.0.1:6379,10.0.0.2:6379, got {url.partition(':')[2]!r}"
                ),
            )
            for url in ("redis:", "redis://", "rediss:///0", "redis:host", "redis://a,b")
        ),
        (
            "redis://h/x",
            "database: expected a number, as in redis://127.0.0.1:6379/0, got 'x'",
        ),
        (
            "redis://h/99999999999",
            "database: expected a number, as in redis://127.0.0.1:6379/0, got '99999999999'",
        ),
        ("redis+cluster://h/0", "database: expected none, for a cluster has but one, got '0'"),
        ("redis://h:0", "expected HOST:PORT, got 'h:0'"),
        ("redis://h:65536", "expected HOST:PORT, got 'h:65536'"),
        ("redis://h:x", "expected HOST:PORT, got 'h:x'"),
        ("redis+cluster://a,,b", "expected HOST:PORT, got ''"),
        ("redis://h?eviction=maybe", "eviction: expected refuse or allow, got 'maybe'"),
        ("redis://h?password=x", "expected parameters out of prefix, eviction, credentials, got 'password'"),
        (
            "redis://h?credentials=hunter2",
            (
                "credentials: expected what variables of the environment begin with, as HOT for "
                "HOT_PASSWORD, got something else"
            ),
        ),
    ],
)
def test_a_url_that_cannot_be_used_says_what_was_expected(url: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_store_url(url)
    assert str(caught.value) == f"store URL: {message}"


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://AKIAKEY:hunter2@eu-central-1",
        "dynamodb://x?endpoint=http://AKIAKEY:hunter2@h",
        "AKIA:hunter2@x",
        "redis://user:hunter2@h:6379/0",
        "rediss+cluster://:hunter2@h",
    ],
)
def test_a_credential_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_store_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_message_repeats_no_more_than_64_characters() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_store_url("dynamodb://x?prefix=" + "/" * 1000)
    assert str(caught.value).count("/") <= 64


def test_a_local_url_opens_a_store_in_its_folder(tmp_path: Path) -> None:
    async def story() -> None:
        store = await open_store(f"local:{tmp_path}/new/store")
        await store.close()

    asyncio.run(story())
    assert (tmp_path / "new" / "store").is_dir()
