"""DynamoDB's expressions as far as the stand-in speaks them: conditions, updates and projections.

Knows no tables and no requests. Attributes are top-level ones: a document path such as `a.b` or `a[0]` is
refused, and so is every function that isn't listed in `_FUNCTIONS`.

Invariants:
1. A name or value that an expression uses must be defined, one that is defined must be used, as the service
   demands.
2. A comparison with an absent attribute, or of two types, is false; `<>` of them is true.
3. An expression that can't be read is a DynamoError, never taken for true.
"""

from __future__ import annotations

import operator
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Any, TypeAlias

from perf.load.dynamo_error import DynamoError, validation

Item: TypeAlias = Mapping[str, Any]
Value: TypeAlias = dict[str, Any]
Test: TypeAlias = Callable[[Item], bool]
Operand: TypeAlias = Callable[[Item], Value | None]

_TOKEN = re.compile(r"\s*(?:(<=|>=|<>|[=<>(),+\-])|([#:]?[A-Za-z0-9_]+))")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FUNCTIONS = ("attribute_exists", "attribute_not_exists", "begins_with", "size")
_SECTIONS = ("SET", "REMOVE", "ADD")
# The service calculates with 38 digits.
_ARITHMETIC = Context(prec=38)


class Names:
    """The names and values that one request defines for its expressions."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._names: Mapping[str, str] = request.get("ExpressionAttributeNames") or {}
        self._values: Mapping[str, Value] = request.get("ExpressionAttributeValues") or {}
        self._used: set[str] = set()

    def attribute(self, token: str) -> str:
        """Give the attribute that a token names. Raises DynamoError."""
        if not token.startswith("#"):
            return token
        if token not in self._names:
            raise validation(
                f"Invalid expression: An expression attribute name used in the document path is not "
                f"defined; attribute name: {token[:64]}"
            )
        self._used.add(token)
        return self._names[token]

    def value(self, token: str) -> Value:
        """Give the value that a token names. Raises DynamoError."""
        if token not in self._values:
            raise validation(
                f"Invalid expression: An expression attribute value used in expression is not defined; "
                f"attribute value: {token[:64]}"
            )
        self._used.add(token)
        return self._values[token]

    def finish(self) -> None:
        """Refuse what was defined and not used. Raises DynamoError."""
        for kind, defined in (("Names", self._names), ("Values", self._values)):
            unused = sorted(set(defined) - self._used)
            if unused:
                raise validation(
                    f"Value provided in ExpressionAttribute{kind} unused in expressions: "
                    f"keys: {{{unused[0]}}}"
                )


class _Reader:
    """Tokens of one expression, read from left to right."""

    def __init__(self, kind: str, text: str, names: Names) -> None:
        self.names = names
        self._kind = kind
        self._tokens = self._cut(text)
        self._at = 0

    def _cut(self, text: str) -> list[str]:
        tokens: list[str] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._syntax(text[at : at + 16])
            tokens.append(match.group().strip())
            at = match.end()
        return tokens

    def _syntax(self, near: str) -> DynamoError:
        return validation(f'Invalid {self._kind}: Syntax error; token: "{near}"')

    @property
    def next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def is_word(self, word: str) -> bool:
        return self.next.upper() == word

    def take(self, expected: str | None = None) -> str:
        token = self.next
        if not token or (expected is not None and token.upper() != expected):
            raise self._syntax(token or "<EOF>")
        self._at += 1
        return token

    def maybe(self, expected: str) -> bool:
        if not self.is_word(expected):
            return False
        self._at += 1
        return True

    def end(self) -> None:
        if self.next:
            raise self._syntax(self.next)

    def path(self) -> str:
        token = self.take()
        if not re.fullmatch(r"#?[A-Za-z0-9_]+", token):
            raise self._syntax(token)
        return self.names.attribute(token)

    def operand(self) -> Operand:
        if self.next.startswith(":"):
            value = self.names.value(self.take())
            return lambda _item: value
        if self.is_word("SIZE"):
            path = self._call()
            return lambda item: None if path not in item else {"N": str(_size(item[path]))}
        path = self.path()
        return lambda item: item.get(path)

    def _call(self) -> str:
        self.take()
        self.take("(")
        path = self.path()
        self.take(")")
        return path


# --- conditions -------------------------------------------------------------------------------------------


def condition(text: str, names: Names, kind: str = "ConditionExpression") -> Test:
    """Read a condition.

    Raises:
        DynamoError: it isn't one, or uses what the stand-in doesn't speak.
    """
    reader = _Reader(kind, text, names)
    test = _either(reader)
    reader.end()
    return test


def _either(reader: _Reader) -> Test:
    tests = [_both(reader)]
    while reader.maybe("OR"):
        tests.append(_both(reader))
    return lambda item: any(test(item) for test in tests)


def _both(reader: _Reader) -> Test:
    tests = [_not(reader)]
    while reader.maybe("AND"):
        tests.append(_not(reader))
    return lambda item: all(test(item) for test in tests)


def _not(reader: _Reader) -> Test:
    if reader.maybe("NOT"):
        test = _not(reader)
        return lambda item: not test(item)
    if reader.maybe("("):
        test = _either(reader)
        reader.take(")")
        return test
    return _function(reader) if reader.next in _FUNCTIONS[:3] else _comparison(reader)


def _function(reader: _Reader) -> Test:
    name = reader.take()
    reader.take("(")
    path = reader.path()
    if name == "begins_with":
        reader.take(",")
        start = reader.operand()
        reader.take(")")
        return lambda item: _begins(item.get(path), start(item))
    reader.take(")")
    if name == "attribute_exists":
        return lambda item: path in item
    return lambda item: path not in item


def _begins(value: Value | None, start: Value | None) -> bool:
    if value is None or start is None or list(value) != list(start):
        return False
    whole, part = _comparable(value)[1], _comparable(start)[1]
    return bool(whole[: len(part)] == part)


def _comparison(reader: _Reader) -> Test:
    left = reader.operand()
    if reader.maybe("BETWEEN"):
        low = reader.operand()
        reader.take("AND")
        high = reader.operand()
        return lambda item: _holds(">=", left(item), low(item)) and _holds("<=", left(item), high(item))
    sign = reader.take()
    if sign not in _COMPARISONS:
        raise validation(f'Invalid ConditionExpression: Syntax error; token: "{sign[:16]}"')
    right = reader.operand()
    return lambda item: _holds(sign, left(item), right(item))


def _holds(sign: str, left: Value | None, right: Value | None) -> bool:
    if left is None or right is None:
        return sign == "<>"
    left_kind, left_value = _comparable(left)
    right_kind, right_value = _comparable(right)
    if left_kind != right_kind:
        return sign == "<>"
    return _COMPARISONS[sign](left_value, right_value)


def _comparable(value: Value) -> tuple[str, Any]:
    (kind, content), *_ = value.items()
    if kind == "N":
        return kind, Decimal(content)
    if kind == "B":
        return kind, b64decode(content)
    return kind, content


def _size(value: Value) -> int:
    return len(_comparable(value)[1])


# --- updates ----------------------------------------------------------------------------------------------


def update(text: str, names: Names, key: Mapping[str, Value]) -> Callable[[Value], Value]:
    """Read an update; what comes back makes the new item out of the old one.

    Raises:
        DynamoError: it isn't one, changes the key, or uses what the stand-in doesn't speak. Applying it
            raises DynamoError, too, where an operand is absent or isn't a number.
    """
    reader = _Reader("UpdateExpression", text, names)
    actions: dict[str, Operand | None] = {}
    seen: set[str] = set()
    while reader.next:
        section = reader.take().upper()
        if section not in _SECTIONS or section in seen:
            raise validation(f'Invalid UpdateExpression: Syntax error; token: "{section[:16]}"')
        seen.add(section)
        _read_section(reader, section, actions, key)
    if not actions:
        raise validation("Invalid UpdateExpression: The expression can not be empty;")

    def apply(item: Value) -> Value:
        made = dict(item)
        for path, operand in actions.items():
            if operand is None:
                made.pop(path, None)
                continue
            value = operand(item)
            if value is None:
                raise validation(
                    "The provided expression refers to an attribute that does not exist in the item"
                )
            made[path] = value
        return made

    return apply


def _read_section(
    reader: _Reader, section: str, actions: dict[str, Operand | None], key: Mapping[str, Value]
) -> None:
    while True:
        path = reader.path()
        if path in key:
            raise validation(
                f"One or more parameter values were invalid: Cannot update attribute {path[:64]}. "
                "This attribute is part of the key"
            )
        if path in actions:
            raise validation("Invalid UpdateExpression: Two document paths overlap with each other;")
        if section == "SET":
            reader.take("=")
            actions[path] = _sum(reader)
        elif section == "ADD":
            actions[path] = _added(path, reader.operand())
        else:
            actions[path] = None
        if not reader.maybe(","):
            return


def _sum(reader: _Reader) -> Operand:
    left = _assigned(reader)
    if reader.next not in {"+", "-"}:
        return left
    sign = reader.take()
    right = _assigned(reader)
    return lambda item: _calculated(left(item), right(item), sign)


def _assigned(reader: _Reader) -> Operand:
    if not reader.is_word("IF_NOT_EXISTS"):
        return reader.operand()
    reader.take()
    reader.take("(")
    path = reader.path()
    reader.take(",")
    otherwise = reader.operand()
    reader.take(")")
    return lambda item: item[path] if path in item else otherwise(item)


def _added(path: str, amount: Operand) -> Operand:
    return lambda item: _calculated(item.get(path, {"N": "0"}), amount(item), "+")


def _calculated(left: Value | None, right: Value | None, sign: str) -> Value | None:
    if left is None or right is None:
        return None
    if list(left) != ["N"] or list(right) != ["N"]:
        raise validation("An operand in the update expression has an incorrect data type")
    method = _ARITHMETIC.add if sign == "+" else _ARITHMETIC.subtract
    result = method(Decimal(left["N"]), Decimal(right["N"]))
    return {"N": format(result.normalize(), "f")}


# --- projections ------------------------------------------------------------------------------------------


def projection(text: str, names: Names) -> tuple[str, ...]:
    """Read a projection: the names of the attributes to be given.

    Raises:
        DynamoError: it isn't a list of names.
    """
    reader = _Reader("ProjectionExpression", text, names)
    paths = [reader.path()]
    while reader.maybe(","):
        paths.append(reader.path())
    reader.end()
    if len(set(paths)) != len(paths):
        raise validation("Invalid ProjectionExpression: Two document paths overlap with each other;")
    return tuple(paths)
