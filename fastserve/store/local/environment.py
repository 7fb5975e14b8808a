"""An LMDB environment as a process here uses it: opened once, read in place, written from one thread.

It runs pieces of work inside transactions and knows nothing of tables or rows. All that LMDB wants of its
callers is kept here, and every error of LMDB becomes a StoreError that names the folder.

Invariants
1. A folder is open at most once in a process, however many stores name it (LMDB's file locks belong to the
   process: a second opening that closes would release the locks of the first). The last `release` closes it.
2. It is opened after the fork. In a child that inherits one every use of it is an InvariantError.
3. The map changes its size only while no transaction of this process is open: `_writing` keeps writers out,
   `_gate` readers, always taken in this order.
4. A read sees all that any process had committed before it began. It holds no lock that another process
   could want, and no transaction outlives it, so that it keeps no old page from being used again.
5. Only the writer's thread waits for the disk or for the writers of other processes; an event loop doesn't
   (unless another process has just made the map grow, for as long as this one's commit takes).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeAlias, TypeVar

import lmdb

from fastserve.errors import InvariantError, StoreError
from fastserve.store.url import Sync

Transaction: TypeAlias = "lmdb.Transaction[bytes]"
Argument = TypeVar("Argument")
Result = TypeVar("Result")

DATA_FILE = "data.mdb"
"""LMDB's name for it, beside `lock.mdb`."""
FIRST_MAP_BYTES = 16 << 30
"""Address space only: the file grows as rows come. So large that growing, which stops everybody, is rare."""
LARGEST_MAP_BYTES = 16 << 40
MAX_READERS = 1022
"""Processes that can read at once (LMDB's own default is 126); 64 bytes each in the lock file."""
DISK_ERRORS = (errno.EIO, errno.EFBIG, errno.EDQUOT)
"""Beside DiskError (ENOSPC). LMDB says EIO, too, where the disk took a part of a write before it was full."""
MAX_TRIES = 64
"""Resizes that one transaction lives through. Doubling from one page to the largest map takes 32."""


class LocalEnvironment:
    """One open environment. Get it from `acquire`, give it back by `release`."""

    def __init__(self, folder: str, sync: Sync, map_bytes: int) -> None:
        self.folder = folder
        self.sync_mode: Sync = sync
        self.users = 0
        self._gate = threading.Lock()
        self._writing = threading.Lock()
        self._unusable: Exception | None = None
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="local-store-writer")
        try:
            # metasync off: one flush a commit instead of two, and `finish` for the last (py-lmdb's manual).
            # readahead off: rows are read at random. A spare transaction: `begin` then only renews it.
            self._lmdb: lmdb.Environment = lmdb.open(
                folder,
                map_size=map_bytes,
                max_readers=MAX_READERS,
                max_spare_txns=1,
                metasync=False,
                sync=sync != "off",
                readahead=False,
            )
        except (lmdb.Error, OSError) as error:
            self._fail("can't be opened", error)
        self._check_length()
        self._lmdb.reader_check()

    def read(self, work: Callable[[Transaction, Argument], Result], argument: Argument) -> Result:
        """Return ``work(transaction, argument)``, run inside a read-only transaction that begins now.

        ``work`` may be run again from the start, and keeps nothing of the transaction.

        Raises:
            StoreError: the environment can't be read, or ``work`` says so.
        """
        for _ in range(MAX_TRIES):
            try:
                with self._gate:
                    self._check_open()
                    with self._lmdb.begin() as transaction:
                        return work(transaction, argument)
            except StoreError as error:
                raise self._named(error) from error
            except lmdb.MapResizedError:
                self._adopt_map_size()
            except lmdb.ReadersFullError as error:
                self._clear_readers(error)
            except lmdb.Error as error:
                self._fail("can't be read", error)
        raise StoreError(f"{self}: grew faster than it could be read", retryable=True)

    def write(self, work: Callable[[Transaction, Argument], Result], argument: Argument) -> Result:
        """Run ``work(transaction, argument)`` inside a write transaction and commit; for the writer's thread.

        Nothing is written if it raises. ``work`` may be run again from the start.

        Raises:
            StoreError: the environment can't be written, or ``work`` says so.
        """
        for _ in range(MAX_TRIES):
            with self._writing:
                try:
                    self._check_open()
                    with self._lmdb.begin(write=True) as transaction:
                        return work(transaction, argument)
                except StoreError as error:
                    raise self._named(error) from error
                except lmdb.MapResizedError:
                    self._resize(0)
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.Error as error:
                    self._fail("can't be written", error)
        raise StoreError(f"{self}: grew faster than it could be written", retryable=True)

    def finish(self) -> None:
        """Return when all that is committed is on the disk; for the writer's thread, after the last commit.

        Readers of killed processes are forgotten, too: they would keep old pages from being used again.

        Raises:
            StoreError: the disk doesn't take it.
        """
        try:
            self._check_open()
            self._lmdb.reader_check()
            if self.sync_mode != "off":
                self._lmdb.sync(True)
        except lmdb.Error as error:
            self._fail("can't be written", error)

    def close(self) -> None:
        """Close; for the writer's thread, after all that was handed to it."""
        with self._writing, self._gate:
            if self._unusable is None:
                self._unusable = StoreError("closed")
                self._lmdb.close()

    def disown(self) -> None:
        """Make unusable what a child inherited by a fork. The locks may be held by threads that are gone."""
        self._gate = threading.Lock()
        self._writing = threading.Lock()
        self._unusable = InvariantError(f"{self}: opened before the fork; each process opens it for itself")

    def __str__(self) -> str:
        return f"local store {self.folder}"

    def _named(self, error: StoreError) -> StoreError:
        text = str(error)
        own = f"{self}: "
        return StoreError(text if text.startswith(own) else own + text, retryable=error.retryable)

    def _check_open(self) -> None:
        if self._unusable is not None:
            raise self._unusable.with_traceback(None)

    def _check_length(self) -> None:
        """Refuse a file shorter than its pages in use: reading beyond the end kills the process (SIGBUS).

        The last page number says nothing here: the file may rightly end before a page that was freed.
        """
        pages = self._lmdb.stat()
        used = 2 + pages["branch_pages"] + pages["leaf_pages"] + pages["overflow_pages"]
        length = Path(self.folder, DATA_FILE).stat().st_size
        if used * pages["psize"] > length and pages["entries"]:
            self._lmdb.close()
            raise StoreError(
                f"{self}: data.mdb is cut off: expected at least {used * pages['psize']} bytes, got {length}"
            )

    def _adopt_map_size(self) -> None:
        """Take over the size that another process has given the map."""
        with self._writing:
            self._resize(0)

    def _grow(self) -> None:
        size = 2 * self._lmdb.info()["map_size"]
        if size > LARGEST_MAP_BYTES:
            raise StoreError(f"{self}: full: it can't grow beyond {LARGEST_MAP_BYTES} bytes")
        self._resize(size)

    def _resize(self, size: int) -> None:
        with self._gate:
            self._check_open()
            try:
                self._lmdb.set_mapsize(size)
            except lmdb.Error as error:
                self._fail("can't grow", error)

    def _clear_readers(self, error: lmdb.Error) -> None:
        if self._lmdb.reader_check() == 0:
            self._fail(f"has {MAX_READERS} readers, which is the most it can have", error)

    def _fail(self, what: str, error: Exception) -> NoReturn:
        """Raise LMDB's error as one that an operator can read."""
        if isinstance(error, lmdb.DiskError) or getattr(error, "code", 0) in DISK_ERRORS:
            what = "can't be written: the disk is full or broken"
        elif isinstance(error, lmdb.PanicError):
            what = "failed in the middle of a commit; free the disk and start the process anew"
        elif isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError)):
            what = "is damaged; make it again from the sources or put back a copy"
        elif isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError)):
            what = "is no LMDB environment of a version known here"
        retryable = isinstance(error, (lmdb.ReadersFullError, lmdb.MemoryError))
        raise StoreError(f"{self}: {what} ({error})", retryable=retryable) from error


# Of the data file, not of the folder: the number of a folder that was deleted may be given to a new one at
# once, while that of an open file is taken.
_FileIdentity: TypeAlias = tuple[int, int]
_NO_FILE: _FileIdentity = (-1, -1)
_open: dict[_FileIdentity, LocalEnvironment] = {}
_inherited: dict[_FileIdentity, LocalEnvironment] = {}
_registry = threading.Lock()


def acquire(folder: str, sync: Sync = "batch", map_bytes: int = FIRST_MAP_BYTES) -> LocalEnvironment:
    """Return the environment in ``folder``, made where there is none, shared with all who have it open here.

    Raises:
        StoreError: the folder can't be made, isn't an environment, or is open here with another ``sync``.
        InvariantError: this process inherited it, open, by a fork.
    """
    _make_folder(folder)
    with _registry:
        identity = _identity(folder)
        if identity in _inherited:
            raise InvariantError(f"local store {folder}: opened before the fork; close it before forking")
        environment = _open.get(identity)
        if environment is None:
            environment = LocalEnvironment(folder, sync, map_bytes)
            _open[_identity(folder)] = environment
        elif environment.sync_mode != sync:
            raise StoreError(
                f"local store {folder}: expected sync={environment.sync_mode}, as it is open here, got {sync}"
            )
        environment.users += 1
        return environment


def release(environment: LocalEnvironment) -> None:
    """Give back what `acquire` gave; the last one closes it, after all that was handed to its writer."""
    with _registry:
        environment.users -= 1
        if environment.users:
            return
        for identity in [identity for identity, known in _open.items() if known is environment]:
            environment.writer.submit(environment.close).result()
            del _open[identity]
    environment.writer.shutdown(wait=True)


def _make_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise StoreError(f"local store {folder}: expected a folder, got a file") from None
    except OSError as error:
        raise StoreError(f"local store {folder}: can't be made: {error.strerror}") from error


def _identity(folder: str) -> _FileIdentity:
    try:
        status = Path(folder, DATA_FILE).stat()
    except FileNotFoundError:
        return _NO_FILE
    except OSError as error:
        raise StoreError(f"local store {folder}: can't be opened: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _disown_inherited() -> None:
    """Run in every child: what it inherited stays referenced, for LMDB's destructor would close its files."""
    global _registry  # noqa: PLW0603 - another thread of the parent may have held it
    _registry = threading.Lock()
    for environment in _open.values():
        environment.disown()
    _inherited.update(_open)
    _open.clear()


os.register_at_fork(after_in_child=_disown_inherited)
