"""Lines: the declaration of every node of a graph, as the statement of Python that makes it."""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from scg.errors import GraphError
from scg.export.spelling import is_method, spelled
from scg.nodes.arguments import Ref
from scg.nodes.ir import IR
from scg.nodes.plates import Plate
from scg.nodes.records import (
    Bound,
    Constant,
    Cost,
    Det,
    Function,
    Input,
    LogProb,
    Param,
    Record,
    Sample,
    attribute,
    identity,
    part,
)
from scg.testing.text.literals import NoTextError, called, of_tensor
from scg.testing.text.surroundings import Surroundings

INFIX: Mapping[Any, ast.operator | ast.unaryop | ast.cmpop] = MappingProxyType(
    {
        operator.add: ast.Add(), operator.sub: ast.Sub(), operator.mul: ast.Mult(),
        operator.truediv: ast.Div(), operator.floordiv: ast.FloorDiv(), operator.mod: ast.Mod(),
        operator.pow: ast.Pow(), operator.matmul: ast.MatMult(), operator.and_: ast.BitAnd(),
        operator.or_: ast.BitOr(), operator.xor: ast.BitXor(), operator.neg: ast.USub(),
        operator.pos: ast.UAdd(), operator.invert: ast.Invert(), operator.lt: ast.Lt(),
        operator.le: ast.LtE(), operator.gt: ast.Gt(), operator.ge: ast.GtE(), operator.eq: ast.Eq(),
        operator.ne: ast.NotEq(),
    }
)  # fmt: skip


@dataclass
class Lines:
    """The statements of a graph, whose variable is called ``graph``, in the order of declaration."""

    ir: IR
    around: Surroundings
    graph: str

    def all(self) -> Iterator[ast.stmt]:
        """Yield the declaration of every plate, where one is more than a name, and of every node."""
        if any(plate != Plate(plate.name) for plate in self.ir.plates.values()):
            yield from map(self._plate, self.ir.plates.values())
        waiting = list(self.ir.records())
        while waiting:
            record = waiting.pop(0)
            parts = self._parts(record, waiting)
            if isinstance(record, Constant):
                continue
            del waiting[: len(parts)]
            try:
                made = self._declared(record, parts)
            except NoTextError as error:
                raise GraphError(
                    f"as_code cannot write node '{record.name}' ({record.where}): it has {error}. Give a "
                    "function of a file, a lambda of one, or one of torch"
                ) from None
            names = [record.name] if not parts else [one.name for one in parts]
            is_read = any(True for name in names for _ in self.ir.children(name))
            yield self._assigned(names, made) if is_read else ast.Expr(made)

    def _assigned(self, names: Sequence[str], made: ast.expr) -> ast.stmt:
        """Give what declares nodes variables of their names, as far as those are free."""
        targets: list[ast.expr] = [ast.Name(variable(name), ast.Store()) for name in names]
        if all(variable(name) == "_" for name in names):
            return ast.Expr(made)
        return ast.Assign([targets[0] if len(targets) == 1 else ast.Tuple(targets, ast.Store())], made)

    def _plate(self, plate: Plate) -> ast.stmt:
        standard = Plate(plate.name)
        options = {
            key: self.around.write(getattr(plate, key))
            for key in ("size", "reduce", "ordered", "discount")
            if getattr(plate, key) != getattr(standard, key)
        }
        return ast.Expr(self._call("plate", ast.Constant(plate.name), **options))

    def _parts(self, record: Record, later: Sequence[Record]) -> list[Record]:
        """Return the nodes that were declared with one, as the parts of its value in a tuple of names."""
        found: list[Record] = []
        for other in later:
            is_part = isinstance(other, Det) and other.fn.call is part
            if not is_part or other.arguments.args != (Ref(record.name), len(found)):
                break
            found.append(other)
        return found if "_".join(one.name for one in found) == record.name else []

    def _declared(self, record: Record, parts: Sequence[Record]) -> ast.expr:
        name: ast.expr = ast.Constant(record.name)
        if parts:
            name = ast.Tuple([ast.Constant(one.name) for one in parts], ast.Load())
        plates = self._plates(record)
        match record:
            case Param():
                return self._call("param", name, self._leaf(record.name), **plates)
            case Input():
                examples = self.ir.store.examples
                given = [self._leaf(record.name)] if record.name in examples else []
                return self._call("input", name, *given, **plates)
            case LogProb():
                return self._log_prob(record)
            case Sample():
                return self._call("sample", name, self._function(record.dist), *self._args(record), **plates)
            case Bound():
                return self._call("bound", name, *self._args(record), over=ast.Constant(record.over))
            case Cost() if record.fn.call is identity:
                return self._call("cost", name, *self._args(record), **plates, **self._options(record))
            case Det():
                if record.fn.label == record.name and not parts:
                    return self._derived(record)
                word = "cost" if isinstance(record, Cost) else "det"
                given = [self._function(record.fn), *self._args(record)]
                return self._call(word, name, *given, **plates, **self._options(record))
        raise NoTextError(f"a record of kind {type(record).__name__}")

    def _call(self, word: str, *args: ast.expr, **kwargs: ast.expr) -> ast.Call:
        keywords = {key: value for key, value in kwargs.items() if not isinstance(value, ast.keyword)}
        several = [item for item in args if not isinstance(item, ast.keyword)]
        named = [item for item in args if isinstance(item, ast.keyword)]
        made = called(f"{self.graph}.{word}", *several, **keywords)
        made.keywords = [*named, *made.keywords]
        return made

    def _args(self, record: Record) -> list[Any]:
        """Return the arguments of a node, those with a name as keywords."""
        args = [self._template(item) for item in record.arguments.args]
        return [*args, *(ast.keyword(k, self._template(v)) for k, v in record.arguments.kwargs.items())]

    def _template(self, item: Any) -> ast.expr:
        """Return nested arguments, with every node by its variable."""
        if isinstance(item, Ref):
            return self._node(item.name)
        if type(item) in (tuple, list, dict, slice):
            return self._nested(item)
        return self.around.write(item)

    def _nested(self, item: Any) -> ast.expr:
        if isinstance(item, slice):
            return called("slice", *map(self._template, (item.start, item.stop, item.step)))
        if isinstance(item, dict):
            keys = [self.around.write(key) for key in item]
            return ast.Dict([*keys], [self._template(value) for value in item.values()])
        several = [self._template(one) for one in item]
        return ast.Tuple(several, ast.Load()) if isinstance(item, tuple) else ast.List(several, ast.Load())

    def _node(self, name: str) -> ast.expr:
        """Return a node as it is read: by its variable, a constant as the tensor it is."""
        if isinstance(self.ir[name], Constant):
            tensor = self.ir.store.tensors[name]
            is_shared = len(list(self.ir.children(name))) > 1 or id(tensor) in self.around.held
            self.around.need_torch()
            return self.around.write(tensor, name) if is_shared else of_tensor(tensor)
        if variable(name) == "_":
            return ast.Subscript(ast.Name(self.graph, ast.Load()), ast.Constant(name), ast.Load())
        return ast.Name(name, ast.Load())

    def _leaf(self, name: str) -> ast.expr:
        """Return the value of a parameter or the example of an input."""
        value: Any = {**self.ir.store.tensors, **self.ir.store.examples}[name]
        if id(value) in self.around.held:
            return self.around.write(value)
        self.around.need_torch()
        if isinstance(value, nn.Parameter):
            made = of_tensor(value)
            assert isinstance(made, ast.Call)
            return made.args[0] if value.requires_grad and value.is_floating_point() else made
        return self.around.example(value)

    def _plates(self, record: Record) -> dict[str, ast.expr]:
        declared = record.plates
        if declared is None or (not declared and isinstance(record, (Param, Input))):
            return {}
        return {"plates": self.around.write(declared[0] if len(declared) == 1 else tuple(declared))}

    def _options(self, record: Det) -> dict[str, ast.expr]:
        found: dict[str, ast.expr] = {}
        if record.differentiable is not None:
            found["differentiable"] = ast.Constant(record.differentiable)
        if record.relaxed is not None:
            found["relaxed"] = self.around.function(record.relaxed, f"{record.name}_relaxed")
        if record.mixes:
            mixes = sorted(record.mixes)
            found["mixes"] = self.around.write(mixes[0] if len(mixes) == 1 else tuple(mixes))
        return found

    def _function(self, fn: Function) -> ast.expr:
        if fn.owner is not None:
            return self.around.function(self.ir.store.modules[fn.owner])
        assert fn.call is not None
        return self.around.function(fn.call)

    def _log_prob(self, record: LogProb) -> ast.expr:
        value = self._node(record.value)
        if record.of is not None:
            return self._call("log_prob", value)
        assert record.dist is not None
        arguments = self._args(record)
        return self._call("log_prob", self._function(record.dist), value, *arguments)

    def _derived(self, record: Det) -> ast.expr:
        """Return an operation on nodes as it was written."""
        fn, args = record.fn.call, self._args(record)
        sign = INFIX.get(fn)
        if fn is operator.getitem:
            return ast.Subscript(args[0], args[1], ast.Load())
        if fn in (attribute, getattr) and record.arguments.args[1].isidentifier():
            return ast.Attribute(args[0], record.arguments.args[1], ast.Load())
        if isinstance(sign, ast.operator):
            return ast.BinOp(args[0], sign, args[1])
        if isinstance(sign, ast.unaryop):
            return ast.UnaryOp(sign, args[0])
        if isinstance(sign, ast.cmpop):
            return ast.Compare(args[0], [sign], [args[1]])
        several = [item for item in args if not isinstance(item, ast.keyword)]
        named = [item for item in args if isinstance(item, ast.keyword)]
        if is_method(fn) and record.arguments.args and isinstance(record.arguments.args[0], Ref):
            return ast.Call(ast.Attribute(several[0], spelled(fn), ast.Load()), several[1:], named)
        return ast.Call(self._function(record.fn), several, named)


def variable(name: str) -> str:
    """Return the variable of a node: its name, unless that would hide a builtin or a module."""
    return "_" if hasattr(builtins, name) or name in ("scg", "g", "policy", "inputs") else name
