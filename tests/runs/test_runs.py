"""Runs: folders that stay as they were, settings that are held, loops by name, and what is written."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import scg
import scg.runs
from scg.progress import Progress
from scg.runs import board
from tests.runs.loop import SETTINGS, Loop, opened, trained


class TestFolders:
    def test_a_run_is_not_overwritten_unasked(self, tmp_path: Path) -> None:
        trained(tmp_path, 3)
        before = (tmp_path / "run.pt").read_bytes()
        with pytest.raises(scg.RunError) as told:
            opened(tmp_path)
        assert str(told.value) == (
            f"{tmp_path} has run.csv, run.json, run.pt already: go on with it by resume=True "
            "(--resume), choose another folder (--out), or replace what is there by overwrite=True "
            "(--overwrite)"
        )
        assert (tmp_path / "run.pt").read_bytes() == before

    def test_nor_is_a_file_that_would_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "run.csv").write_text("mine")
        with pytest.raises(scg.RunError, match=r"has run.csv already: choose another folder"):
            opened(tmp_path)

    def test_other_files_and_other_runs_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "run.py").write_text("mine")
        trained(tmp_path, 1)
        trained(tmp_path, 1, name="other")
        assert (tmp_path / "run.py").read_text() == "mine"

    def test_overwriting_begins_anew(self, tmp_path: Path) -> None:
        trained(tmp_path, 3)
        (tmp_path / "run_board" / "run").mkdir(parents=True)
        with opened(tmp_path, {"rate": 7}, overwrite=True) as run:
            assert not (tmp_path / "run_board").exists()
            assert not (tmp_path / "run.pt").exists()
            assert list(run.steps(2)) == [0, 1]

    def test_one_of_both(self, tmp_path: Path) -> None:
        with pytest.raises(scg.RunError, match="say one of them"):
            opened(tmp_path, resume=True, overwrite=True)

    def test_nothing_to_resume(self, tmp_path: Path) -> None:
        with pytest.raises(scg.RunError, match=r"there is no .*run.json: leave resume"):
            opened(tmp_path, resume=True)

    def test_what_was_begun_and_not_saved_begins(self, tmp_path: Path) -> None:
        opened(tmp_path)
        assert trained(tmp_path, 2, resume=True).bits == trained(tmp_path / "whole", 2).bits

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(scg.RunError, match="file cannot be written to: it is no folder"):
            opened(tmp_path / "file")

    def test_a_broken_checkpoint_is_named(self, tmp_path: Path) -> None:
        trained(tmp_path, 2)
        (tmp_path / "run.pt").write_bytes(b"half")
        with pytest.raises(scg.RunError, match=r"run.pt is no checkpoint that can be read"):
            opened(tmp_path, resume=True)


class TestSettings:
    def test_other_settings_are_named_with_what_they_were(self, tmp_path: Path) -> None:
        opened(tmp_path, {"rate": 0.1, "control_rate": 1, "widths": (2, 3), "old": True})
        opened(tmp_path, {"rate": 0.1, "control_rate": 1, "widths": [2, 3], "old": True}, resume=True)
        with pytest.raises(scg.RunError) as told:
            opened(tmp_path, {"rate": 0.1, "control_rate": 2, "widths": (2, 4), "new": "x"}, resume=True)
        assert (
            "run of other settings: control-rate 1 -> 2, widths [2, 3] -> [2, 4], old true -> (not there), "
            'new (not there) -> "x". Go on'
        ) in str(told.value)

    def test_settings_are_a_mapping_or_a_dataclass(self, tmp_path: Path) -> None:
        with pytest.raises(scg.RunError, match="settings are a mapping or a dataclass, not a list"):
            opened(tmp_path, [1])
        assert not list(tmp_path.iterdir())


class TestGoingOn:
    @pytest.mark.parametrize("first", [0, 1, 4])
    def test_to_what_would_have_been(self, first: int, tmp_path: Path) -> None:
        trained(tmp_path, first)
        assert trained(tmp_path, 6, resume=True).bits == trained(tmp_path / "whole", 6).bits

    def test_all_that_was_kept_is_given_again(self, tmp_path: Path) -> None:
        trained(tmp_path, 2)
        loop = Loop()
        with opened(tmp_path, resume=True) as run:
            with pytest.raises(scg.RunError, match=r"has no 'other' to go on with; it has net, adam"):
                run.keep(other=loop.net)
            run.keep(net=loop.net)
            with pytest.raises(scg.RunError, match="the checkpoint has adam as well"):
                next(run.steps(3))

    def test_another_model_is_refused_by_name(self, tmp_path: Path) -> None:
        trained(tmp_path, 2)
        with opened(tmp_path, resume=True) as run, pytest.raises(scg.RunError, match="'net' is not what"):
            run.keep(net=nn.Linear(2, 2))

    def test_generators_go_on(self, tmp_path: Path) -> None:
        def drawn(folder: Path, count: int, **options: Any) -> list[float]:
            generator, found = torch.Generator().manual_seed(1), list[float]()
            with opened(folder, **options) as run:
                run.keep(noise=generator)
                found += [float(torch.rand((), generator=generator)) for _ in run.steps(count)]
            return found

        both = drawn(tmp_path / "two", 2) + drawn(tmp_path / "two", 5, resume=True)
        assert both == drawn(tmp_path / "one", 5)

    def test_what_cannot_be_saved_is_refused_at_once(self, tmp_path: Path) -> None:
        with opened(tmp_path) as run, pytest.raises(scg.RunError, match="cannot save 'rate', a float"):
            run.keep(rate=0.1)


class TestParts:
    def run(self, folder: Path, counts: dict[str, int], **options: Any) -> dict[str, list[float]]:
        """Train one net through all loops."""
        found, loop = {}, Loop()
        with opened(folder, **options) as run:
            for name, count in counts.items():
                part = run.part(name)
                part.keep(net=loop.net, adam=loop.adam)
                for step in part.steps(count):
                    part.log(loss=loop.step(step))
                found[name] = loop.bits
        return found

    def test_each_has_steps_and_states_of_its_own(self, tmp_path: Path) -> None:
        wanted = self.run(tmp_path / "whole", {"a": 3, "b": 2, "c": 1})
        self.run(tmp_path, {"a": 3, "b": 1})
        assert self.run(tmp_path, {"a": 3, "b": 2, "c": 1}, resume=True) == wanted
        assert len((tmp_path / "run.csv").read_text().splitlines()) == 7

    def test_one_that_is_not_run_again_is_kept(self, tmp_path: Path) -> None:
        self.run(tmp_path, {"a": 3})
        self.run(tmp_path, {"b": 1}, resume=True)
        assert [*torch.load(tmp_path / "run.pt")["parts"]] == ["a", "b"]

    def test_finish_ends_after_the_step_and_for_good(self, tmp_path: Path) -> None:
        with opened(tmp_path) as run:
            done = []
            for step in run.steps(9):
                done.append(step)
                if step == 3:
                    run.finish()
        assert done == [0, 1, 2, 3]
        with opened(tmp_path, resume=True) as run:
            assert list(run.steps(9)) == []

    def test_break_is_refused_where_it_would_lose_a_step(self, tmp_path: Path) -> None:
        with opened(tmp_path) as run:
            for _ in run.steps(9):
                break
            with pytest.raises(scg.RunError, match=r"left by break: end one by finish\(\)"):
                next(run.steps(9))


class TestWriting:
    def test_what_is_logged(self, tmp_path: Path) -> None:
        with opened(tmp_path) as run:
            run.log(first=2)
            for step in run.steps(3):
                run.log(loss=torch.tensor(0.1 * step), runs=torch.tensor([1.0, 2.0]))
                if step == 2:
                    run.log(bound=-1)
        lines = (tmp_path / "run.csv").read_text().splitlines()
        assert lines[0] == "part,step,seconds,first,loss,runs.0,runs.1,bound"
        assert [line.split(",")[1] for line in lines[1:]] == ["0", "1", "2", "3"]
        assert lines[3].split(",")[3:] == ["", str(float(torch.tensor(0.1))), "1.0", "2.0", ""]
        assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")

    def test_tables_and_pictures_are_there_while_it_runs(self, tmp_path: Path) -> None:
        with opened(tmp_path, every=0) as run:
            for step in run.steps(3):
                assert (tmp_path / "run.csv").exists() == (step > 0)
                assert (tmp_path / "run.png").exists() == (step > 0)
                run.log(loss=step)

    def test_what_has_more_dimensions_is_refused(self, tmp_path: Path) -> None:
        with opened(tmp_path) as run, pytest.raises(scg.RunError, match=r"'loss' has the shape \[2, 2\]"):
            run.log(loss=torch.zeros(2, 2))

    def test_what_is_done_aside_takes_no_time(self, tmp_path: Path) -> None:
        now = [0.0]
        with opened(tmp_path) as run:
            run.clock = lambda: now[0]
            part = run.part("a")
            for _ in part.steps(2):
                now[0] += 1
                with part.aside():
                    now[0] += 100
                part.log(loss=1)
        assert (part.seconds, part.rows[-1]["seconds"]) == (2, 2)

    def test_progress_has_speed_and_what_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sink, now = io.StringIO(), [0.0]
        sink.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(scg.runs.run, "Progress", lambda: Progress(sink))
        monkeypatch.setattr("scg.progress.PAUSE", -1)
        with opened(tmp_path, progress=True) as run:
            run.clock = lambda: now[0]
            for _ in run.steps(100):
                now[0] += 50
                run.log(loss=0.5)
        lines = sink.getvalue().split("\r\x1b[K")
        assert lines[1] == "step 1 of 100, loss 0.5, 0.02 steps/s, 1:22:30 left"
        assert lines[-1] == "step 100 of 100, loss 0.5, 0.02 steps/s\n"

    def test_tensorboard_where_it_is_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written: list[tuple[Any, ...]] = []
        fake = SimpleNamespace(
            SummaryWriter=lambda folder, purge_step: SimpleNamespace(
                add_scalar=lambda *row: written.append((Path(folder).name, *row)),
                flush=lambda: None,
                close=lambda: None,
            )
        )
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
        monkeypatch.setattr(board, "find_spec", lambda name: object())
        with opened(tmp_path, tensorboard=None) as run:
            for _ in run.steps(1):
                run.log(loss=torch.tensor([1.0, 2.0]))
        assert written == [("run", "loss", 1.5, 1)]
        monkeypatch.setattr(board, "find_spec", lambda name: None)
        trained(tmp_path / "none", 1, tensorboard=None)
        with pytest.raises(scg.RunError, match="pip install tensorboard"):
            opened(tmp_path / "wanted", tensorboard=True)


class TestDevices:
    @pytest.mark.parametrize("name", ["cuad", "cuda:99", "meta", ""])
    def test_one_that_is_not_there(self, name: str) -> None:
        with pytest.raises(scg.RunError, match=f"there is no device '{name}'; there are cpu"):
            scg.runs.device(name)

    def test_a_type_that_there_is_not(self) -> None:
        with pytest.raises(scg.RunError, match="there is no dtype 'float'; there are float32"):
            scg.runs.dtype("float")


def test_settings_are_kept_as_text(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    assert scg.runs.read_config.__doc__
    assert '"rate": 0.1' in (tmp_path / "run.json").read_text()
    assert SETTINGS["rate"] == 0.1
