"""The environment with real files and, where it matters, with other processes."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from fastserve.errors import StoreError
from fastserve.store.local import environment
from fastserve.store.local.environment import LocalEnvironment, Transaction, acquire, release

ROOT = Path(__file__).parents[3]
PAGE = 4096


def put(transaction: Transaction, items: Sequence[tuple[bytes, bytes]]) -> None:
    for key, value in items:
        transaction.put(key, value)


def get(transaction: Transaction, key: bytes) -> bytes | None:
    return transaction.get(key)


def count(transaction: Transaction, _: object) -> int:
    return transaction.stat()["entries"]


@contextmanager
def opened(folder: Path, map_bytes: int = 1 << 30) -> Iterator[LocalEnvironment]:
    opened = acquire(str(folder), map_bytes=map_bytes)
    try:
        yield opened
    finally:
        release(opened)


@contextmanager
def child(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run Python in a process of its own, with the folder as its argument and pipes to talk."""
    head = "import os, sys, lmdb\nfrom fastserve.store.local.environment import acquire, release\n"
    process = subprocess.Popen(
        [sys.executable, "-c", head + code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told_by(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_folder_is_open_once_however_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir()
    with opened(tmp_path / "real") as one:
        with opened(tmp_path / "link") as other:
            assert other is one
            other.write(put, [(b"a", b"1")])
        assert one.read(get, b"a") == b"1"
    with pytest.raises(StoreError, match="closed"):
        one.read(get, b"a")
    with opened(tmp_path / "link") as again:
        assert again.read(get, b"a") == b"1"


def test_a_folder_that_is_open_is_not_opened_with_another_durability(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(
            StoreError, match=f"local store {tmp_path}: expected sync=batch, as it is open here, got off"
        ),
    ):
        acquire(str(tmp_path), "off")
    release(acquire(str(tmp_path), "off"))


def test_commits_are_flushed_unless_durability_is_off(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        flags = store._lmdb.flags()
        assert flags["sync"]
        assert not flags["metasync"], "the end of a write flushes what the last commit left"
    store = acquire(str(tmp_path), "off")
    assert not store._lmdb.flags()["sync"]
    release(store)


def test_a_folder_made_anew_is_another_one(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with opened(folder) as old:
        old.write(put, [(b"a", b"1")])
        shutil.rmtree(folder)
        with opened(folder) as new:
            assert new is not old
            assert new.read(get, b"a") is None
        assert old.read(get, b"a") == b"1"


def test_work_that_fails_writes_nothing_and_names_the_folder(tmp_path: Path) -> None:
    def fail(transaction: Transaction, _: None) -> None:
        transaction.put(b"a", b"1")
        raise StoreError("no", retryable=True)

    with opened(tmp_path) as store:
        with pytest.raises(StoreError) as caught:
            store.write(fail, None)
        assert str(caught.value) == f"local store {tmp_path}: no"
        assert caught.value.retryable
        assert store.read(get, b"a") is None


def test_an_unforeseen_error_in_the_work_writes_nothing_and_leaves_the_store_usable(tmp_path: Path) -> None:
    def fail(transaction: Transaction, _: None) -> None:
        transaction.put(b"a", b"1")
        raise ZeroDivisionError

    with opened(tmp_path) as store:
        with pytest.raises(ZeroDivisionError):
            store.write(fail, None)
        with pytest.raises(ZeroDivisionError):
            store.read(fail_reading, None)
        assert store.read(get, b"a") is None
        store.write(put, [(b"a", b"2")])
        assert store.read(get, b"a") == b"2"


def fail_reading(transaction: Transaction, _: None) -> None:
    raise ZeroDivisionError


def test_the_map_grows_as_rows_come(tmp_path: Path) -> None:
    with opened(tmp_path, map_bytes=16 * PAGE) as store:
        store.write(put, [(b"%d" % number, bytes(1000)) for number in range(2000)])
        assert store.read(count, None) == 2000
        assert store.read(get, b"1999") == bytes(1000)


def test_a_map_at_its_largest_is_full_and_still_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "LARGEST_MAP_BYTES", 64 * PAGE)
    with opened(tmp_path, map_bytes=16 * PAGE) as store:
        store.write(put, [(b"a", b"1")])
        with pytest.raises(
            StoreError, match=f"local store {tmp_path}: full: it can't grow beyond 262144 bytes"
        ):
            store.write(put, [(b"%d" % number, bytes(1000)) for number in range(2000)])
        assert store.read(get, b"a") == b"1"
        store.write(put, [(b"a", b"2")])
        assert store.read(get, b"a") == b"2"


GROWING = """
store = acquire(sys.argv[1], map_bytes=16 * 4096)
def put(transaction, numbers):
    for number in numbers:
        transaction.put(b"%d" % number, b"v%d" % number * 100)
for start in range(0, 4000, 100):
    store.write(put, range(start, start + 100))
store.finish()
print("grown", flush=True)
sys.stdin.readline()
"""


def test_readers_and_writers_follow_a_map_that_another_process_has_grown(tmp_path: Path) -> None:
    with opened(tmp_path, map_bytes=16 * PAGE) as store:
        store.write(put, [(b"mine", b"1")])
        with child(GROWING, tmp_path) as other:
            assert told_by(other) == "grown"
            assert store.read(get, b"3999") == b"v3999" * 100
            store.write(put, [(b"mine", b"2")])
        assert store.read(get, b"mine") == b"2"
        assert store.read(count, None) == 4001


def test_a_writer_that_has_not_read_follows_a_map_that_has_grown(tmp_path: Path) -> None:
    with opened(tmp_path, map_bytes=16 * PAGE) as store:
        with child(GROWING, tmp_path) as other:
            assert told_by(other) == "grown"
            store.write(put, [(b"mine", b"2")])
        assert store.read(count, None) == 4001


def test_two_processes_that_both_grow_the_map_lose_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, map_bytes=16 * PAGE) as store, child(GROWING, tmp_path) as other:
        for start in range(0, 2000, 50):
            store.write(put, [(b"mine%d" % number, bytes(500)) for number in range(start, start + 50)])
        assert told_by(other) == "grown"
        assert store.read(count, None) == 6000


KILLED_IN_A_WRITE = """
store = acquire(sys.argv[1])
def put(transaction, batch):
    for number in range(200):
        transaction.put(b"%d:%d" % (batch, number), b"%d" % batch * 700)
    if batch == 7:
        print("writing", flush=True)
        sys.stdin.readline()
for batch in range(100):
    store.write(put, batch)
"""


def test_a_writer_killed_in_a_batch_leaves_whole_batches(tmp_path: Path) -> None:
    with child(KILLED_IN_A_WRITE, tmp_path) as other:
        assert told_by(other) == "writing"
        other.kill()
        other.wait()
    with opened(tmp_path) as store:
        assert store.read(count, None) == 7 * 200
        assert store.read(get, b"6:199") == b"6" * 700
        store.write(put, [(b"a", b"1")])
        assert store.read(get, b"a") == b"1"


def test_a_writer_killed_while_this_process_has_the_folder_open_blocks_nobody(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with child(KILLED_IN_A_WRITE, tmp_path) as other:
            assert told_by(other) == "writing"
            assert store.read(count, None) == 7 * 200
            other.kill()
            other.wait()
        store.write(put, [(b"a", b"1")])
        assert store.read(count, None) == 7 * 200 + 1


KILLED_IN_A_READ = """
store = acquire(sys.argv[1])
def wait(transaction, _):
    transaction.get(b"a")
    print("reading", flush=True)
    sys.stdin.readline()
store.read(wait, None)
print("read", flush=True)
"""


def test_a_reader_that_was_killed_is_forgotten_at_the_end_of_the_next_write(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.write(put, [(b"a", b"1")])
        with child(KILLED_IN_A_READ, tmp_path) as other:
            assert told_by(other) == "reading"
            other.kill()
            other.wait()
            pid = str(other.pid)
        assert pid in store._lmdb.readers()
        store.finish()
        assert pid not in store._lmdb.readers()


def test_readers_that_were_killed_make_room_for_living_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "MAX_READERS", 1)
    with opened(tmp_path) as store, child(KILLED_IN_A_READ, tmp_path) as other:
        assert told_by(other) == "reading"
        with pytest.raises(StoreError, match="has 1 readers, which is the most it can have") as caught:
            store.read(get, b"a")
        assert caught.value.retryable
        other.kill()
        other.wait()
        assert store.read(get, b"a") is None


FORKED = """
store = acquire(sys.argv[1])
def get(transaction, key):
    return transaction.get(key)
def put(transaction, key):
    transaction.put(key, b"1")
store.write(put, b"a")
store.read(get, b"a")
pid = os.fork()
if pid == 0:
    for call in (lambda: store.read(get, b"a"), lambda: store.write(put, b"a"), store.finish,
                 lambda: acquire(sys.argv[1])):
        try:
            call()
        except Exception as error:
            print(type(error).__name__, str(error).rsplit("/", 1)[1], flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(store.read(get, b"a"), flush=True)
release(store)
pid = os.fork()
if pid == 0:
    store = acquire(sys.argv[1])
    print("child", store.read(get, b"a"), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_a_store_opened_before_the_fork_is_refused_in_the_child(tmp_path: Path) -> None:
    with child(FORKED, tmp_path / "store") as process:
        lines = [told_by(process) for _ in range(6)]
    inherited = "InvariantError store: opened before the fork"
    assert lines == [
        f"{inherited}; each process opens it for itself",
        f"{inherited}; each process opens it for itself",
        f"{inherited}; each process opens it for itself",
        f"{inherited}; close it before forking",
        "b'1'",
        "child b'1'",
    ]


LIMITED = """
import resource
store = acquire(sys.argv[1])
def put(transaction, numbers):
    for number in numbers:
        transaction.put(b"%d" % number, bytes(1000))
def count(transaction, _):
    return transaction.stat()["entries"]
store.write(put, range(10))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    store.write(put, range(10, 1000))
except Exception as error:
    print(type(error).__name__, str(error).partition(sys.argv[1][:-5])[2], flush=True)
print(store.read(count, None), flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.write(put, range(10, 1000))
print(store.read(count, None), flush=True)
"""


def test_a_write_that_the_disk_refuses_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    with child(LIMITED, tmp_path / "store") as process:
        lines = [told_by(process) for _ in range(3)]
    assert lines[0].startswith("StoreError store: can't be written: the disk is full or broken (")
    assert lines[1:] == ["10", "1000"]


@pytest.mark.parametrize(
    "error,message",
    [
        (lmdb.DiskError("commit"), "can't be written: the disk is full or broken"),
        (lmdb.CorruptedError("get"), "is damaged; make it again from the sources or put back a copy"),
        (lmdb.PageNotFoundError("get"), "is damaged; make it again from the sources or put back a copy"),
        (
            lmdb.PanicError("get"),
            "failed in the middle of a commit; free the disk and start the process anew",
        ),
        (lmdb.Error("get"), "can't be written"),
    ],
)
def test_each_error_of_lmdb_says_the_folder_and_what_is_wrong(
    tmp_path: Path, error: lmdb.Error, message: str
) -> None:
    def fail(transaction: Transaction, _: None) -> None:
        raise error

    with opened(tmp_path) as store, pytest.raises(StoreError) as caught:
        store.write(fail, None)
    assert str(caught.value).startswith(f"local store {tmp_path}: {message} (")


@pytest.mark.parametrize("content", [b"x" * 10, b"x" * 9000, bytes(20_000)], ids=["short", "long", "zeros"])
def test_a_folder_with_another_file_in_its_place_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=f"local store {tmp_path}: is no LMDB environment of a version known here"
        ):
            acquire(str(tmp_path))
    assert (tmp_path / "data.mdb").read_bytes() == content


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.write(put, [(b"%d" % number, bytes(1000)) for number in range(1000)])
    data = tmp_path / "data.mdb"
    whole = data.read_bytes()
    os.truncate(data, len(whole) // 2)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=f"local store {tmp_path}: data.mdb is cut off: expected at least"
        ):
            acquire(str(tmp_path))
    data.write_bytes(whole)
    with opened(tmp_path) as store:
        assert store.read(count, None) == 1000


def test_a_file_that_holds_freed_pages_is_not_called_cut_off(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for _ in range(5):
            store.write(put, [(b"%d" % number, bytes(3000)) for number in range(500)])
            store.write(delete_all, None)
            store.write(put, [(b"a", b"1")])
    with opened(tmp_path) as store:
        assert store.read(get, b"a") == b"1"


def delete_all(transaction: Transaction, _: None) -> None:
    cursor = transaction.cursor()
    while cursor.first():
        cursor.delete()


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        acquire(str(tmp_path / "file"))
    assert str(caught.value) == f"local store {tmp_path}/file: expected a folder, got a file"
    with pytest.raises(StoreError) as caught:
        acquire(str(tmp_path / "file" / "store"))
    assert str(caught.value) == f"local store {tmp_path}/file/store: can't be made: Not a directory"


def test_a_folder_that_could_not_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").mkdir()
    with pytest.raises(StoreError, match=f"local store {tmp_path}: "):
        acquire(str(tmp_path))
    (tmp_path / "data.mdb").rmdir()
    with opened(tmp_path) as store:
        assert store.read(count, None) == 0
    gc.collect()


def test_no_signal_to_another_process_is_needed_to_see_its_writes(tmp_path: Path) -> None:
    code = """
store = acquire(sys.argv[1])
def put(transaction, value):
    transaction.put(b"a", value)
for line in sys.stdin:
    store.write(put, line.strip().encode() or b"-")
    print("written", flush=True)
"""
    with opened(tmp_path) as store, child(code, tmp_path) as other:
        for _ in range(20):
            tell(other)
            assert told_by(other) == "written"
            assert store.read(get, b"a") == b"-"
            store.write(put, [(b"a", b"mine")])
