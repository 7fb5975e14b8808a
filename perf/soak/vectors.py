"""Requests for vectors of self-describing values, and what is right of an answer.

Knows no sockets and no faults.

Invariants:
1. An answer is judged by itself and by when its request was sent and it came: nothing is remembered.
2. A null stands where the table has no row; elsewhere only with a status that says that it isn't known.
3. A row is no older than a read that the request may have joined, and no newer than the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from perf.load.described import NUMBERS, is_lacking, lacking, text, value, values
from perf.load.key_laws import entity_key
from perf.soak.account import NULLS, RIGHT, WRONG

PATH = "/api/v1/feature-service/get-features"
WORKSPACE = "perf"
# A request may join a read that is on its way already, for as long as requests may take.
JOINED_S = 6
NUMBER_TABLES, TEXT_TABLES = 50, 2
_WIDTH = NUMBERS + 1
_UNKNOWN = frozenset({"TIME_OUT", "UNKNOWN"})


class WrongAnswer(Exception):
    """An answer that says what isn't so."""


@dataclass(frozen=True)
class Service:
    """Which tables a service reads: those of numbers, then those of texts, which are numbered last."""

    name: str
    numbers: int
    texts: int

    @property
    def keys(self) -> int:
        """How many keys one vector is read from."""
        return self.numbers + self.texts


WIDE = Service("wide", NUMBER_TABLES, TEXT_TABLES)
NARROW = Service("narrow", 4, 1)


@dataclass(frozen=True)
class Question:
    """One request for vectors."""

    service: Service
    entities: tuple[int, ...]
    is_batch: bool
    # Nulls are welcome for what can't be had in time.
    is_lenient: bool = False
    budget_ms: int | None = None

    def request(self, port: int, *, close: bool = False) -> bytes:
        """Give the bytes to send."""
        params: dict[str, Any] = {"workspaceName": WORKSPACE, "featureServiceName": self.service.name}
        keys = [{"joinKeyMap": {"user_id": entity_key(entity)}} for entity in self.entities]
        params |= {"requestData": keys} if self.is_batch else keys[0]
        if self.is_lenient:
            params["allowPartialResults"] = True
            params["metadataOptions"] = {"includeServingStatus": True}
        if self.budget_ms is not None:
            params["requestOptions"] = {"latencyBudgetMs": self.budget_ms}
        path = f"{PATH}-batch" if self.is_batch else PATH
        return post(path, orjson.dumps({"params": params}), port, close=close)

    def judge(self, body: bytes, sent_s: float, done_s: float) -> tuple[str, str, int]:
        """Give what an answer of status 200 is, what is wrong with it, and how many keys were judged."""
        try:
            document = orjson.loads(body)
            result = document["result"]
            rows = [row["features"] for row in result] if self.is_batch else [result["features"]]
            statuses = _statuses(document) if self.is_lenient else None
            unknown = self._check(rows, statuses, int(sent_s) - JOINED_S, int(done_s))
        except WrongAnswer as error:
            return WRONG, str(error), 0
        except (ValueError, TypeError, KeyError, IndexError) as error:
            return WRONG, f"{error!r} in {body[:200]!r}", 0
        reads = len(self.entities) * self.service.keys - unknown
        return (NULLS, f"{unknown} nulls", reads) if unknown else (RIGHT, "", reads)

    def _check(self, rows: list[list[Any]], statuses: list[str] | None, oldest: int, newest: int) -> int:
        """Give how many rows aren't known, as their statuses say. Raises WrongAnswer."""
        service = self.service
        length = service.numbers * _WIDTH + service.texts * 3
        if len(rows) != len(self.entities) or any(len(row) != length for row in rows):
            raise WrongAnswer(f"expected {len(self.entities)} rows of {length}, got {len(rows)}")
        if statuses is not None and len(statuses) != length:
            raise WrongAnswer(f"expected {length} statuses, got {len(statuses)}")
        unknown = self._check_numbers(rows, statuses, oldest, newest)
        for row, entity in zip(rows, self.entities, strict=True):
            for at in range(service.texts):
                start = service.numbers * _WIDTH + 3 * at
                status = None if statuses is None else statuses[start]
                three = row[start : start + 3]
                unknown += _check_text(three, status, NUMBER_TABLES + at, entity, oldest, newest)
        return unknown

    def _check_numbers(
        self, rows: list[list[Any]], statuses: list[str] | None, oldest: int, newest: int
    ) -> int:
        tables = np.arange(self.service.numbers)
        keys = np.array(self.entities)
        shape = (len(rows), len(tables), _WIDTH)
        got = np.array([row[: len(tables) * _WIDTH] for row in rows], np.float64).reshape(shape)
        nulls = np.isnan(got)
        is_null = nulls.all(axis=2)
        _refuse(nulls.any(axis=2) & ~is_null, self, got, "half of a row is null")
        absent = lacking(tables, keys)
        unknown = np.zeros_like(absent)
        if statuses is not None:
            unknown[0] = [status in _UNKNOWN for status in statuses[: got[0].size : _WIDTH]]
            said = np.array([[status == "MISSING_DATA" for status in statuses[: got[0].size : _WIDTH]]])
            _refuse(said & ~absent, self, got, "MISSING_DATA, but there is such a row")
        _refuse(is_null & ~absent & ~unknown, self, got, "null, but there is such a row")
        _refuse(~is_null & (absent | unknown), self, got, "a value where there is none")
        known = np.where(nulls, 0.0, got)
        versions = known[:, :, NUMBERS]
        is_off = ~is_null & ((versions < oldest) | (versions > newest))
        _refuse(is_off, self, got, f"expected a version from {oldest} to {newest}")
        wanted = values(tables, keys, versions)
        _refuse(~is_null & (known[:, :, :NUMBERS] != wanted).any(axis=2), self, got, "values of another row")
        return int((is_null & unknown).sum())


def _refuse(bad: Any, question: Question, got: Any, what: str) -> None:
    if bad.any():
        row, table = np.argwhere(bad)[0]
        where = f"table {table}, {entity_key(question.entities[row])}"
        raise WrongAnswer(f"{int(bad.sum())} x {what}; {where}: {got[row, table].tolist()}")


def _check_text(got: list[Any], status: str | None, table: int, key: int, oldest: int, newest: int) -> int:
    """Give 1 if the row isn't known, as its status says. Raises WrongAnswer."""
    where = f"table {table}, {entity_key(key)}: {got}"
    if got == [None, None, None]:
        if status in _UNKNOWN:
            return 1
        if not is_lacking(table, key):
            raise WrongAnswer(f"null, but there is such a row; {where}")
        return 0
    number, written, version = got
    if is_lacking(table, key) or status in _UNKNOWN or not oldest <= version <= newest:
        raise WrongAnswer(f"a value where there is none, or too old or new; {where}")
    if int(number) != value(table, key, 0, int(version)) or written != text(table, key, int(version)):
        raise WrongAnswer(f"values of another row; {where}")
    return 0


def _statuses(document: dict[str, Any]) -> list[str]:
    return [feature["status"] for feature in document["metadata"]["features"]]


def post(path: str, body: bytes, port: int, *, close: bool = False, headers: str = "") -> bytes:
    """Give the bytes of a POST."""
    more = f"{headers}Connection: close\r\n" if close else headers
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
