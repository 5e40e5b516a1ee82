"""The five graphs of Schulman et al. (2015): right gradients, equal values, and a demonstration that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import scg
from scg import demo
from scg.__main__ import main
from scg.demo import POLICIES, beside, compared, formatted
from scg.examples import SCHULMAN
from scg.graph import Graph

BY_HAND = {"schulman_4": 2 * torch.tensor(0.8).exp().item(), "schulman_5": 0.2 - 0.224 + 0.2}


@pytest.fixture(params=SCHULMAN, ids=lambda build: build.__name__)
def graph(request: pytest.FixtureRequest) -> Graph:
    build: Callable[[], Graph] = request.param
    return build()


def test_estimates_agree_with_exact_gradients(graph: Graph) -> None:
    rows = list(compared(graph))
    assert {"score", "auto"} <= {row.policy for row in rows}
    for row in rows:
        assert abs(row.z) < 4.5, row
        assert row.exact == pytest.approx(BY_HAND.get(row.graph, row.exact), abs=1e-5)
        assert row.policy != "enumerate" or row.error == 0.0


def test_values_do_not_depend_on_the_policy(graph: Graph) -> None:
    inputs = graph.freeze().store.examples
    runs = []
    for policy in POLICIES:
        try:
            runs.append(scg.compile(graph, policy=policy)(seed=3, **inputs))
        except scg.EstimatorError:
            continue
    for run in runs[1:]:
        assert torch.equal(run.loss, runs[0].loss)
        for name, value in run.samples.items():
            assert torch.equal(value, runs[0].samples[name])
    assert len(runs) >= 2


def test_rows_line_up(graph: Graph) -> None:
    lines = formatted(list(compared(graph))).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) >= 4


def test_a_wrong_gradient_is_conspicuous() -> None:
    row = demo.Row("g", "theta", "score", "", exact=0.0, mean=0.5, error=0.0)
    assert row.z == float("inf")
    assert demo.Row("g", "theta", "score", "", exact=0.1, mean=0.5, error=0.1).z == pytest.approx(4.0)


def test_the_command_leaves_pictures_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "RUNS", 4)
    monkeypatch.setattr(demo, "SCHULMAN", SCHULMAN[:2])
    monkeypatch.setattr(demo, "STEPS", 3)
    assert main(["demo", "--out", str(tmp_path / "a path")]) == 0
    found = sorted(path.name for path in (tmp_path / "a path").iterdir() if path.is_file())
    drawings = [f"schulman_{n}.{kind}" for n in (1, 2) for kind in ("png", "svg")]
    own = [f"toy.{suffix}" for suffix in ("csv", "json", "md", "png", "pt")]
    panels = [f"toy_0.45_{name}.png" for name in ("log_variance", "loss", "relaxation")]
    assert found == ["gradients.md", *drawings, *own, *panels]
    assert main(["demo", "--out", str(tmp_path / "a path"), "--overwrite"]) == 0
    printed = capsys.readouterr()
    for table in ("toy.md", "gradients.md"):
        assert (tmp_path / "a path" / table).read_text() in printed.out
    assert [line.split()[1] for line in printed.err.splitlines()[-2:]] == ["schulman_1:", "schulman_2:"]


def test_a_failure_is_one_line_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith("scg demo: ")


def test_a_picture_has_the_program_beside_it(graph: Graph, tmp_path: Path) -> None:
    graph.draw(tmp_path / "alone.png")
    code = scg.compile(graph, policy="score").code
    both = beside(tmp_path / "alone.png", code)
    size = [int.from_bytes(both[start : start + 4], "big") for start in (16, 20)]
    alone = (tmp_path / "alone.png").read_bytes()
    assert size[0] > int.from_bytes(alone[16:20], "big") + 400
    assert size[1] >= int.from_bytes(alone[20:24], "big")
    assert both == beside(tmp_path / "alone.png", code)
