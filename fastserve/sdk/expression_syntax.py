"""The text of a calculation read into a tree: SQL's arithmetic, comparisons, conditions and calls.

Knows the grammar, neither types nor what a name refers to; `expressions` compiles the tree.

    condition   = conjunction {OR conjunction}
    conjunction = negation {AND negation}
    negation    = [NOT] comparison
    comparison  = sum [operator sum | IS [NOT] NULL | [NOT] IN (condition, …) | [NOT] BETWEEN sum AND sum]
    sum         = product {(+ | -) product}
    product     = factor {(* | / | %) factor}
    factor      = [- | +] (literal | name | name.name | function(condition, …) | CASE … END | (condition))

Invariants
1. A text is read whole or refused with an `ExpressionError` that names the column (from 1).
2. Keywords and functions in any case; names exactly as they are defined. A name in double quotes, or behind a
   dot, is never a keyword.
3. Brackets nest at most `NESTING_MAX` deep and the tree is at most `DEPTH_MAX` deep, so that neither reading
   nor a walk over the tree runs out of stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from fastserve.errors import shown

TEXT_CHARS_MAX: Final = 10_000
NESTING_MAX: Final = 32  # each takes the parser ten frames of Python's thousand
DEPTH_MAX: Final = 200
KEYWORDS: Final = frozenset(
    (
        "AND",
        "OR",
        "NOT",
        "IS",
        "NULL",
        "IN",
        "BETWEEN",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "TRUE",
        "FALSE",
    )
)
COMPARISONS: Final = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![A-Za-z_0-9.])
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"[^"]+")
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign><=|>=|<>|!=|==|[-+*/%=<>(),.])
    |(?P<end>$))""",
    re.VERBOSE | re.ASCII,
)


class ExpressionError(Exception):
    """What is wrong with an expression; its text says what was expected, what came, and the column."""

    def __init__(self, expected: str, got: str, column: int) -> None:
        super().__init__(f"expected {expected}, got {got} at column {column}")


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: int, float, str, bool or None."""

    value: Any
    column: int


@dataclass(frozen=True, slots=True)
class Name:
    """A feature, with its source where that was written."""

    source: str | None
    feature: str
    column: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator (by its sign, ``-x``, ``NOT``, ``IS NULL`` or ``IN``) and its arguments."""

    function: str
    arguments: tuple[Node, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Case:
    """Branches of (condition, value), and the value where none holds; None is null."""

    branches: tuple[tuple[Node, Node], ...]
    otherwise: Node | None
    column: int


Node = Literal | Name | Call | Case


def parse(text: str) -> Node:
    """Return the tree of an expression.

    Raises:
        ExpressionError: it isn't one.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise ExpressionError(f"at most {TEXT_CHARS_MAX} characters", str(len(text)), TEXT_CHARS_MAX + 1)
    parser = _Parser(text)
    tree = parser.condition()
    parser.expect_end()
    if _depth(tree) > DEPTH_MAX:
        raise ExpressionError(f"operators at most {DEPTH_MAX} deep", str(_depth(tree)), 1)
    return tree


def _depth(tree: Node) -> int:
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [part for node in level for part in _parts(node)]
    return depth


def _parts(node: Node) -> Sequence[Node]:
    if isinstance(node, Case):
        parts = [part for branch in node.branches for part in branch]
        return parts if node.otherwise is None else [*parts, node.otherwise]
    return node.arguments if isinstance(node, Call) else ()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int

    @property
    def keyword(self) -> str:
        """What stands there, as keywords and signs are compared."""
        return self.text.upper() if self.kind == "word" else self.text if self.kind == "sign" else ""

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else shown(self.text)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, position)
        if match is None:
            position = len(text) - len(text[position:].lstrip())
            expected = "a name, a number, a 'text' or an operator"
            raise ExpressionError(expected, shown(text[position : position + 20]), position + 1)
        kind = str(match.lastgroup)
        tokens.append(_Token(kind, match[kind], match.start(kind) + 1))
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    # --- tokens

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        if token.kind != "end":
            self._next += 1
        return token

    def _taken(self, *keywords: str) -> _Token | None:
        """Take the next token if it is one of these."""
        return self._take() if self._token.keyword in keywords else None

    def _expect(self, keyword: str) -> _Token:
        token = self._taken(keyword)
        if token is None:
            self._refuse(keyword)
        return token

    def _refuse(self, expected: str) -> NoReturn:
        raise ExpressionError(expected, str(self._token), self._token.column)

    def expect_end(self) -> None:
        """Refuse anything that stands behind the expression."""
        if self._token.kind != "end":
            self._refuse("an operator or the end")

    # --- the grammar, loosest first

    def condition(self) -> Node:
        """Read a whole expression."""
        self._depth += 1
        if self._depth > NESTING_MAX:
            self._refuse(f"at most {NESTING_MAX} brackets around a value")
        tree = self._chain(lambda: self._chain(self._negation, "AND"), "OR")
        self._depth -= 1
        return tree

    def _chain(self, operand: Callable[[], Node], *signs: str) -> Node:
        """Read operands between signs of one precedence, from left to right."""
        tree = operand()
        while (sign := self._taken(*signs)) is not None:
            tree = Call(sign.keyword, (tree, operand()), sign.column)
        return tree

    def _negation(self) -> Node:
        sign = self._taken("NOT")
        if sign is None:
            return self._comparison()
        if self._token.keyword == "NOT":
            self._refuse("a comparison, or brackets")
        return Call("NOT", (self._comparison(),), sign.column)

    def _comparison(self) -> Node:
        left = self._sum()
        sign = self._taken(*COMPARISONS)
        if sign is not None:
            return Call(COMPARISONS[sign.keyword], (left, self._sum()), sign.column)
        sign = self._taken("IS")
        if sign is not None:
            negated = self._taken("NOT")
            self._expect("NULL")
            return self._negated(negated, Call("IS NULL", (left,), sign.column))
        negated = self._taken("NOT")
        sign = self._taken("IN", "BETWEEN")
        if sign is None and negated is not None:
            self._refuse("IN or BETWEEN")
        if sign is None:
            return left
        test = self._options(left, sign) if sign.keyword == "IN" else self._range(left, sign)
        return self._negated(negated, test)

    def _negated(self, sign: _Token | None, test: Node) -> Node:
        return test if sign is None else Call("NOT", (test,), sign.column)

    def _options(self, left: Node, sign: _Token) -> Node:
        self._expect("(")
        return Call("IN", (left, *self._arguments()), sign.column)

    def _range(self, left: Node, sign: _Token) -> Node:
        low = self._sum()
        self._expect("AND")
        above = Call(">=", (left, low), sign.column)
        return Call("AND", (above, Call("<=", (left, self._sum()), sign.column)), sign.column)

    def _sum(self) -> Node:
        return self._chain(lambda: self._chain(self._factor, "*", "/", "%"), "+", "-")

    def _factor(self) -> Node:
        sign = self._taken("-", "+")
        if sign is None:
            return self._primary()
        if self._token.keyword in {"-", "+"}:
            self._refuse("a value, or brackets")
        operand = self._primary()
        if sign.keyword == "+":
            return Call("+", (Literal(0, sign.column), operand), sign.column)
        if isinstance(operand, Literal) and type(operand.value) in (int, float):
            return Literal(-operand.value, sign.column)  # -2^63 is an int64, 2^63 is none
        return Call("-x", (operand,), sign.column)

    def _primary(self) -> Node:
        token = self._token
        if token.kind == "number":
            self._take()
            is_integer = token.text.isdigit()
            return Literal(int(token.text) if is_integer else float(token.text), token.column)
        if token.kind == "text":
            self._take()
            return Literal(token.text[1:-1].replace("''", "'"), token.column)
        if self._taken("("):
            tree = self.condition()
            self._expect(")")
            return tree
        if token.kind == "quoted" or (token.kind == "word" and token.keyword not in KEYWORDS):
            return self._name_or_call()
        return self._keyword()

    def _keyword(self) -> Node:
        token = self._taken("TRUE", "FALSE", "NULL", "CASE")
        if token is None:
            self._refuse("a value")
        if token.keyword == "CASE":
            return self._case(token)
        return Literal({"TRUE": True, "FALSE": False, "NULL": None}[token.keyword], token.column)

    def _case(self, start: _Token) -> Node:
        branches: list[tuple[Node, Node]] = []
        while self._taken("WHEN"):
            condition = self.condition()
            self._expect("THEN")
            branches.append((condition, self.condition()))
        if not branches:
            self._refuse("WHEN")
        otherwise = self.condition() if self._taken("ELSE") else None
        self._expect("END")
        return Case(tuple(branches), otherwise, start.column)

    def _name_or_call(self) -> Node:
        first = self._take()
        if first.kind == "word" and self._taken("("):
            return self._call(first)
        if first.keyword == "TIMESTAMP" and self._token.kind == "text":
            return Call(first.keyword, (self._primary(),), first.column)
        name = first.text.strip('"')
        if not self._taken("."):
            return Name(None, name, first.column)
        second = self._take()
        if second.kind not in {"word", "quoted"}:
            raise ExpressionError("the name of a feature", str(second), second.column)
        return Name(name, second.text.strip('"'), first.column)

    def _call(self, function: _Token) -> Node:
        name = function.text.upper()
        if name == "EXTRACT":  # EXTRACT(unit FROM time)
            unit = self._take()
            if unit.kind not in {"word", "text"}:
                raise ExpressionError("a unit such as HOUR", str(unit), unit.column)
            if self._token.text.upper() != "FROM":
                self._refuse("FROM")
            self._take()
            time = self.condition()
            self._expect(")")
            return Call(name, (Literal(unit.text.strip("'"), unit.column), time), function.column)
        return Call(name, self._arguments(), function.column)

    def _arguments(self) -> tuple[Node, ...]:
        """Read what stands behind an opening bracket, and the closing one."""
        if self._taken(")"):
            return ()
        arguments = [self.condition()]
        while self._taken(","):
            arguments.append(self.condition())
        self._expect(")")
        return tuple(arguments)
