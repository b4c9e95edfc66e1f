"""Formulas over columns, from text to the tables of ops/formulas: ``flow_kusdt.mean.8 / flow_kusdt.std.128``.

Owns: the language: ``+ - * /``, numbers, names of columns, ``min(x, y)``, ``max(x, y)``, ``abs(x)``,
``sqrt(x)``, parentheses. Each operation has one correct result in float32, so that the bits are the same
everywhere. Never: computes.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence
from typing import Final, final

import numpy as np

from gpuscalp.errors import ConfigError
from gpuscalp.ops.formula_program import STACK, Code, FormulaProgram

_COLUMN: Final = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)+")
_OPERATORS: Final[dict[type[ast.AST], Code]] = {
    ast.Add: Code.ADD,
    ast.Sub: Code.SUBTRACT,
    ast.Mult: Code.MULTIPLY,
    ast.Div: Code.DIVIDE,
    ast.USub: Code.NEGATIVE,
}
_FUNCTIONS: Final = {"min": (Code.MIN, 2), "max": (Code.MAX, 2), "abs": (Code.ABS, 1), "sqrt": (Code.SQRT, 1)}
_LONGEST: Final = 500  # characters; Python's parser recurses
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_KNOWN: Final = "+ - * / ( ), numbers, names of columns, min(x, y), max(x, y), abs(x), sqrt(x)"


@final
class FormulaBuilder:
    """Collects the instructions of one formula after another.

    Parameters
    ----------
    names : the columns that a formula may read, in the order of axis F
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._index = {name: index for index, name in enumerate(names)}
        self._formulas: list[tuple[int, int, int]] = []
        self._code: list[tuple[int, int]] = []
        self._numbers: list[np.float32] = []

    def add(self, column: int, text: str) -> tuple[int, ...]:
        """Compile the formula of a column.

        Returns
        -------
        the columns that it reads, indices on axis F

        Raises
        ------
        ConfigError    it is no formula, reads no column or one that is not there, or nests too deeply
        """
        first = len(self._code)
        read: list[str] = []

        def numbered(found: re.Match[str]) -> str:
            read.append(found[0])
            return f"[{len(read) - 1}]"

        if "[" in text or "#" in text or len(text) > _LONGEST:  # a comment would hide the lines behind it
            raise _error(f"not a formula of at most {_LONGEST} characters", text)
        try:
            tree = ast.parse(_COLUMN.sub(numbered, text).strip(), mode="eval")
            operands = [self._column(name, text) for name in read]
            depth = self._compile(tree.body, operands, text)
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
            raise _error("not a formula", text) from None
        if not read:
            raise _error("a formula that reads no column", text)
        if depth > STACK:
            fix = "write the longer part of a sum or product first"
            raise _error(f"more than {STACK} values wait for each other", text, fix)
        self._formulas.append((column, first, len(self._code)))
        return tuple(sorted(set(operands)))

    def program(self) -> FormulaProgram:
        return FormulaProgram(
            np.array(self._formulas, np.int64).reshape(-1, 3),
            np.array(self._code, np.int64).reshape(-1, 2),
            np.array([*self._numbers, 0.0], np.float32),
        )

    def _column(self, name: str, text: str) -> int:
        if name not in self._index:
            near = difflib.get_close_matches(name, self._index, n=3)
            fix = f"near it: {', '.join(near)}; " if near else ""
            fix += "a column that is dropped or not declared can be added too; no formula reads another one"
            raise _error(f"{name} is not among the columns", text, fix)
        return self._index[name]

    def _compile(self, node: ast.expr, operands: Sequence[int], text: str) -> int:
        """Append the instructions of a part; return how many places of the stack it takes."""
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return self._number(float(node.value), text)  # type: ignore[arg-type]
        if isinstance(node, ast.List):
            self._code.append((Code.COLUMN, operands[ast.literal_eval(node)[0]]))
            return 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._apply(Code.NEGATIVE, [node.operand], operands, text)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return self._apply(_OPERATORS[type(node.op)], [node.left, node.right], operands, text)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            code, count = _FUNCTIONS.get(node.func.id, (Code.ADD, -1))
            if count == len(node.args):
                return self._apply(code, node.args, operands, text)
        raise _error("a formula knows nothing of this kind", text)

    def _apply(self, code: Code, parts: Sequence[ast.expr], operands: Sequence[int], text: str) -> int:
        depths = [waiting + self._compile(part, operands, text) for waiting, part in enumerate(parts)]
        self._code.append((code, 0))
        return max(depths)

    def _number(self, value: float, text: str) -> int:
        if value != 0.0 and not _SMALLEST <= abs(value) <= _LARGEST:
            raise _error("a number that float32 does not hold", text)
        self._code.append((Code.NUMBER, len(self._numbers)))
        self._numbers.append(np.float32(value))
        return 1


def _error(what: str, text: str, fix: str = "") -> ConfigError:
    return ConfigError(what, where="features.add", value=text.strip(), fix=fix or f"there are {_KNOWN}")
