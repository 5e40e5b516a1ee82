"""The table of estimators: what is on it, and what the command leaves."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import scg
from scg.__main__ import main
from scg.comparison.comparison import STANDARD
from scg.estimators.registry import registry
from scg.experiments.estimators.candidates import candidates
from scg.experiments.estimators.problems import PROBLEMS


def run(out: Path, *options: str) -> int:
    return main(["run", "estimators", "--quick", "--out", str(out), *options])


def rows(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "estimators.csv").open(encoding="utf-8") as file:
        return {(row["graph"], row["estimator"]): row for row in csv.DictReader(file)}


def test_every_estimator_is_a_candidate() -> None:
    assert registry().keys() <= candidates().keys()
    assert {"arms", "score, moving-average", "score, self-critical"} <= candidates().keys()


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_the_same_whenever_they_are_declared(name: str) -> None:
    one, two = (scg.compile(PROBLEMS[name].make(), "score")(seed=0) for _ in range(2))
    assert one.loss is not None and two.loss is not None
    assert one.loss.item() == two.loss.item()


def test_the_command_leaves_tables_numbers_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a path"
    assert run(out, "--only", "toy", "simulator", "--policy", "straight-through", "enumerate", "score") == 0
    assert sorted(path.name for path in out.iterdir()) == [
        f"estimators.{end}" for end in ("csv", "json", "md", "png")
    ]
    assert run(out, "--only", "toy") == 1
    text = (out / "estimators.md").read_text()
    assert text in capsys.readouterr().out
    found = rows(out)
    toy, simulator = ({name for graph, name in found if graph == own} for own in ("toy", "simulator"))
    assert toy == {"straight-through", "enumerate", "score", STANDARD}
    assert simulator == {"score", STANDARD}
    assert "- straight-through: a Normal cannot be relaxed" in text
    assert "- enumerate: the support of a Normal is not finite" in text
    assert found["toy", "straight-through"]["biased"] == "True"
    assert found["toy", "straight-through"]["bias_is_seen"] == "True"
    assert found["toy", "enumerate"]["variance_seconds"] == "0.0"
    assert found["simulator", STANDARD]["variance_evaluations"] == "1.0"


def test_patterns_choose_estimators(tmp_path: Path) -> None:
    assert run(tmp_path, "--only", "toy", "--policy", "score, *") == 0
    assert {name for _, name in rows(tmp_path)} == {
        STANDARD,
        "score, moving-average",
        "score, self-critical",
    }


@pytest.mark.parametrize(
    "options, told",
    [
        (("--only", "toys"), "there is no graph 'toys': 'toy' is meant? There are toy, decoder"),
        (("--policy", "magic"), "no estimator is called magic; there are "),
    ],
)
def test_what_is_not_there_is_said(
    options: tuple[str, str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *options) == 1
    assert capsys.readouterr().err.startswith(f"scg run estimators: {told}")
