"""The demonstration: right gradients of five graphs, equal values, and a page that has all of the tour."""

from __future__ import annotations

import base64
import importlib.util
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import scg
from scg.__main__ import main
from scg.demo import graphs, tour
from scg.demo.graphs import POLICIES, Row, beside, compared, formatted
from scg.demo.page import Code, Stop, as_html, page
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
    row = Row("g", "theta", "score", "", exact=0.0, mean=0.5, error=0.0)
    assert row.z == float("inf")
    assert Row("g", "theta", "score", "", exact=0.1, mean=0.5, error=0.1).z == pytest.approx(4.0)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a tour of a few steps and two graphs."""
    monkeypatch.setattr(graphs, "RUNS", 4)
    monkeypatch.setattr(graphs, "SCHULMAN", SCHULMAN[:2])
    monkeypatch.setattr(tour, "TOY_WORDS", ("--steps", "3", "--seeds", "2", "--t", "0.45"))
    few = ("--steps", "2", "--seeds", "1", "--rates", "0.01", "--layers", "1", "--latents", "3")
    monkeypatch.setattr(tour, "VAE_WORDS", (*few, "--policy", "score"))
    monkeypatch.setattr(tour, "CARTPOLE_WORDS", ("--seeds", "1", "--episodes", "2"))
    few = ("--seeds", "1", "--updates", "2", "--actions", "2", "--policy", "score+value")
    monkeypatch.setattr(tour, "BANDIT_WORDS", few)


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Have the tour find some packages missing."""
    monkeypatch.setattr(
        tour, "find_spec", lambda name: None if name in missing else importlib.util.find_spec(name)
    )


class Read(HTMLParser):
    """What a page has: tags that are open, those that were closed out of order, addresses, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.usefixtures("short")
def test_the_command_leaves_a_page_that_has_everything_in_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a path"
    assert main(["demo", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    for name in ("toy", "vae", "cartpole", "gradients"):
        assert (out / f"{name}.md").read_text().strip() in printed.out
    assert [line.split()[1] for line in printed.err.splitlines()[-2:]] == ["schulman_1:", "schulman_2:"]
    found = Read((out / "index.html").read_text())
    assert (found.open, found.crossed) == ([], [])
    assert all(address.startswith(("#", "data:image/")) for address in found.addresses)
    pictures = [base64.b64decode(a.partition(",")[2]) for a in found.addresses if a.startswith("data:")]
    own = ("schulman_1.svg", "schulman_2.svg", "toy.png", "vae.png", "cartpole.png")
    assert pictures == [(out / name).read_bytes() for name in own]
    assert found.tags.count("table") >= 4
    assert scg.compile(SCHULMAN[0](), policy="score").code.strip() in found.text
    assert f"scg run toy --steps 3 --seeds 2 --t 0.45 --seed 1 --out '{out}'" in found.text


@pytest.mark.usefixtures("short")
def test_commands_on_the_page_make_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "tour")]) == 0
    lines = Read((tmp_path / "tour" / "index.html").read_text()).text.splitlines()
    commands = [line for line in lines if line.startswith("scg run toy")]
    assert len(commands) == 1
    words = shlex.split(commands[0])[1:-1]
    assert main([*words, str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "toy.md").read_text() == (tmp_path / "tour" / "toy.md").read_text()


@pytest.mark.usefixtures("short")
def test_without_optional_packages_it_says_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "gymnasium", "sklearn")
    assert main(["demo", "--out", str(tmp_path)]) == 0
    text = Read((tmp_path / "index.html").read_text()).text
    assert "CartPole is left out: it needs gymnasium" in text
    assert "The images are bars" in text
    assert f"--data {tmp_path / 'bars.npz'}" in text
    assert (tmp_path / "bandit.png").exists() and not (tmp_path / "cartpole.md").exists()


@pytest.mark.usefixtures("short")
def test_a_tour_is_not_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
    assert main(["demo", "--out", str(tmp_path), "--overwrite"]) == 0


def test_bars_are_images_of_whole_rows_and_columns(tmp_path: Path) -> None:
    images = np.load(tour.draw_bars(tmp_path / "bars.npz", 1))["images"].astype(bool)
    assert 0.2 < images.mean() < 0.6
    rows, columns = images.all(2), images.all(1)
    assert (images == rows[:, :, None] | columns[:, None, :]).all()


def test_text_is_escaped() -> None:
    stop = Stop("a < b", "told & told", "run <x>", "| a<i> |\n| - |\n| <i>d |", (), (Code("x < y", "p & q"),))
    found = Read(page("t", "u", [stop]))
    assert (found.open, found.crossed) == ([], [])
    for text in ("a < b", "told & told", "run <x>", "a<i>", "<i>d", "x < y", "p & q"):
        assert text in found.text


def test_tables_titles_and_paragraphs_are_told_apart() -> None:
    found = as_html("# T\n\none\ntwo\n\n| a | b |\n| - | -: |\n| x | 1 |")
    assert found.splitlines()[:2] == ["<h3>T</h3>", "<p>one two</p>"]
    assert '<td>x</td><td class="number">1</td>' in found


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
