"""The plugin: what a failing test has of graphs, policies and inputs is printed as code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli

import scg
from scg.testing.plugin import shown


def coin(**options: object) -> scg.Graph:
    g = scg.Graph("coin")
    x = g.input("x", torch.tensor(0.5))
    g.cost("c", (g.sample("z", Bernoulli, logits=x * g.param("w", 0.5)) - 0.25) ** 2, **options)
    return g


def failing(graph: scg.Graph, **variables: object) -> list[str]:
    """Return what is shown of a test that fails."""

    def test(policy: object = variables.get("policy"), given: object = variables.get("given")) -> None:
        local = graph
        raise AssertionError(local)

    with pytest.raises(AssertionError) as caught:
        test()
    return shown(caught.value)


def test_a_graph_is_shown_with_what_belongs_to_it() -> None:
    policy = {"z": scg.REBAR(temperature=1.0, baseline="self-critical")}
    (text,) = failing(coin(), policy=policy, given={"x": torch.tensor(0.75)})
    assert text.endswith(
        'policy = {"z": scg.REBAR(temperature=1.0, baseline=scg.SelfCritical())}\n'
        'inputs = {"x": torch.tensor(0.75)}'
    )
    space: dict[str, Any] = {}
    exec(text, space)
    g = space["g"]
    assert isinstance(g, scg.Graph) and g.name == "coin"
    scg.compile(g, space["policy"])(seed=0, **space["inputs"]).loss.backward()


def test_what_is_of_another_graph_is_not_shown() -> None:
    (text,) = failing(coin(), policy={"other": "score"}, given={"y": torch.tensor(0.75)})
    assert "policy" not in text and "inputs" not in text


def test_of_several_errors_each_is_shown() -> None:
    def test(graph: scg.Graph) -> None:
        raise AssertionError(graph)

    errors = []
    for _ in range(2):
        with pytest.raises(AssertionError) as caught:
            test(coin())
        errors.append(caught.value)
    assert len(shown(ExceptionGroup("two", errors))) == 2


def test_what_has_no_text_is_told() -> None:
    (text,) = failing(coin(), policy=scg.Score(baseline=nn.Linear(1, 1)))
    assert text.startswith("import scg")
    assert "# as_code cannot write the policy of 'every node': it has a Linear, a module" in text
    g = coin()
    g.cost("d", nn.Identity(), g["z"])
    (text,) = failing(g, policy="score")
    assert text.startswith("# as_code cannot write node 'd'")


def test_nothing_is_shown_without_a_graph() -> None:
    with pytest.raises(AssertionError) as caught:
        raise AssertionError
    assert shown(caught.value) == []
