"""Code: a graph as the text of a Python file that builds it again."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from scg.choosing.policy import Policy
from scg.errors import GraphError
from scg.graph import Graph
from scg.nodes.ir import IR
from scg.nodes.trees import tree_leaves
from scg.testing.text.lines import Lines, variable
from scg.testing.text.literals import called
from scg.testing.text.options import policy_row
from scg.testing.text.surroundings import Surroundings

WIDE = 100
"""The length of a line that is broken where it has arguments."""


def as_code(graph: Graph, *, policy: Policy | None = None, inputs: Mapping[str, Any] | None = None) -> str:
    """Return a ``graph`` as Python text which, pasted into a file, builds the same graph as ``g``.

    A ``policy`` and ``inputs`` follow under these names. Functions of nodes are written by their source,
    those of libraries by their name; what has neither, as a module or a function that was typed in, is
    refused with the name of the node.

    >>> import scg, torch
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.5))
    >>> c = g.cost("c", (b - 0.25) ** 2)
    >>> print(as_code(g))
    import scg
    import torch
    from torch.distributions import Bernoulli
    <BLANKLINE>
    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.5))
    b = g.sample("b", Bernoulli, logits=theta)
    sub_1 = b - 0.25
    pow_1 = sub_1 ** 2
    g.cost("c", pow_1)
    """
    ir = graph.freeze()
    around = Surroundings({"scg", "torch", "g", "policy", "inputs", *(variable(name) for name in ir)})
    around.imports["scg"] = "scg", ""
    lines = list(Lines(ir, around, "g").all())
    named = [] if graph.name == "graph" else [ast.Constant(graph.name)]
    start = ast.Assign([ast.Name("g", ast.Store())], called("scg.Graph", *named))
    rest = [] if policy is None else [policy_row(policy, around)]
    if inputs is not None:
        rest.append(_inputs(inputs, around))
    text = f"{_head(around)}{_body([start, *lines])}"
    _check(ir, text)
    return "\n".join([text, *map(_statement, map(ast.fix_missing_locations, rest))])


def _inputs(inputs: Mapping[str, Any], around: Surroundings) -> ast.stmt:
    """Return the statement that gives inputs their name."""
    around.need_torch()
    keys: list[ast.expr | None] = [ast.Constant(name) for name in inputs]
    return ast.Assign(
        [ast.Name("inputs", ast.Store())], ast.Dict(keys, [*map(around.example, inputs.values())])
    )


def _head(around: Surroundings) -> str:
    """Return imports, values and functions, apart from each other as in files of Python."""
    blocks = [_body(around.head())]
    for row in around.rows:
        is_function = isinstance(row, ast.FunctionDef)
        blocks.append(("\n" if is_function else "") + _body([row]))
    gap = "\n\n\n" if around.rows and isinstance(around.rows[-1], ast.FunctionDef) else "\n\n"
    return "\n\n".join(blocks) + gap


def _body(rows: Sequence[ast.stmt]) -> str:
    return "\n".join(_statement(ast.fix_missing_locations(row)) for row in rows)


def _statement(row: ast.stmt) -> str:
    """Return a statement, its arguments on lines of their own where it is long."""
    text = _quoted(ast.unparse(row))
    value = row.value if isinstance(row, (ast.Assign, ast.Expr)) else None
    if len(text) <= WIDE or not isinstance(value, ast.Call):
        return text
    target = f"{ast.unparse(row.targets[0])} = " if isinstance(row, ast.Assign) else ""
    several = [*map(ast.unparse, value.args)]
    several += [f"{word.arg}={ast.unparse(word.value)}" for word in value.keywords]
    inside = "".join(f"    {_quoted(item)},\n" for item in several)
    return f"{target}{ast.unparse(value.func)}(\n{inside})"


def _quoted(text: str) -> str:
    """Put strings in double quotes, as far as they have none."""
    rows = [list(row) for row in text.splitlines(keepends=True)]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        plain = token.type == tokenize.STRING and token.start[0] == token.end[0]
        if plain and token.string[0] == "'" and '"' not in token.string and token.string[:3] != "'''":
            row = rows[token.start[0] - 1]
            row[token.start[1]] = row[token.end[1] - 1] = '"'
    return "".join("".join(row) for row in rows)


def _check(ir: IR, text: str) -> None:
    """Raise where a text builds another graph than it was written for."""
    space: dict[str, Any] = {"__name__": "as_code"}
    exec(compile(text, "<as_code>", "exec", dont_inherit=True), space)
    again = space["g"].freeze()
    for one, other in zip(_told(ir), _told(again), strict=False):
        if one != other:
            raise GraphError(
                f"as_code cannot write the graph '{one[0]}' is in: {one} would be {other} in its text. "
                "Declare that node with a name of its own, as in g.det(...)"
            )
    assert len(ir) == len(again)


def _told(ir: IR) -> Iterator[tuple[Any, ...]]:
    """Yield what tells graphs apart, node by node, and then by parameter."""
    for record in ir.records():
        options = [getattr(record, key, None) for key in ("differentiable", "mixes", "value", "of")]
        yield record.name, type(record), record.parents, ir.layout[record.name], *options
    yield "plates", tuple(ir.plates.values())
    for several in (ir.store.tensors, ir.store.examples):
        for name, value in several.items():
            yield name, *(tuple(_bits(leaf)) for leaf in tree_leaves(value))


def _bits(leaf: Any) -> Iterator[Any]:
    """Yield what tells two values apart; NaN is what it is."""
    yield type(leaf)
    if isinstance(leaf, Tensor):
        yield from (leaf.dtype, tuple(leaf.shape), leaf.requires_grad, str(leaf.detach().cpu().tolist()))
    else:
        yield leaf
