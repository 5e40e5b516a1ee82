"""What runs survive: being killed, a disk that fills, Ctrl-C; and that they end as they would have."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import scg
import scg.runs
from tests.runs.killed import STEPS, TRIALS
from tests.runs.loop import Loop, trained

ROOT = Path(scg.__file__).parent.parent


def rows(folder: Path) -> list[dict[str, Any]]:
    state = torch.load(folder / "run.pt", weights_only=True)["parts"][""]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in state["rows"]]


def test_killed_at_random_moments_it_ends_bit_by_bit_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.runs.killed", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    whole, *killed = told["found"]
    assert len(killed) == TRIALS
    assert whole["step"] == len(whole["losses"]) == STEPS
    assert all(found == whole for found in killed)
    assert told["early"] >= TRIALS / 4, "hardly any was killed before it was over"
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("point", ["open", "write", "fsync", "replace"])
def test_killed_while_a_checkpoint_is_written(point: str, tmp_path: Path) -> None:
    """The process ends at each call that writing the checkpoint after step 4 makes."""
    child = os.fork() if hasattr(os, "fork") else pytest.skip("forks")
    if not child:
        try:
            trained(tmp_path, 6, lambda step: _die_at(point) if step == 3 else None, every=0)
        finally:
            os._exit(3)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert torch.load(tmp_path / "run.pt")["parts"][""]["step"] == 3 + (point == "replace")
    found = trained(tmp_path, 6, every=0, resume=True)
    assert found.bits == trained(tmp_path / "whole", 6).bits
    assert rows(tmp_path) == rows(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


class Dying(io.FileIO):
    """A file that dies when half of what it is given is written."""

    def write(self, content: Any) -> int:
        super().write(content[: len(content) // 2])
        _die()
        return 0


def _die(*unused: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(point: str) -> None:
    """Have the next call of this kind be the last, for which the process is a fork."""
    opened, replaced = Path.open, Path.replace

    def then_die(path: Path, *arguments: Any) -> None:
        (opened if point == "open" else replaced)(path, *arguments)
        _die()

    if point == "fsync":
        os.fsync = _die
    elif point == "write":
        Path.open = lambda path, mode: Dying(path, mode)  # type: ignore[assignment,method-assign]
    else:
        setattr(Path, point, then_die)


class Growing(Loop):
    """Has what becomes larger than the disk."""

    size = 1

    @property
    def kept(self) -> dict[str, Any]:
        return {**super().kept, "big": self}

    def state_dict(self) -> dict[str, Any]:
        return {"numbers": torch.zeros(self.size)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.size = len(state["numbers"])


class TestFullDisk:
    def test_the_last_good_checkpoint_stays_and_the_error_names_the_file(self, tmp_path: Path) -> None:
        """Files may be of 20,000 bytes from step 3 on: what is then written does not fit."""
        loop = Growing()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        def fill(step: int) -> None:
            if step == 3:
                loop.size = 20_000
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

        try:
            with pytest.raises(scg.RunError) as told:
                trained(tmp_path, 9, fill, loop=loop, every=0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(told.value).startswith(f"{tmp_path / 'run.pt'} could not be written: File too large")
        assert "the one before is whole" in str(told.value)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run.csv", "run.json", "run.pt"]
        assert torch.load(tmp_path / "run.pt")["parts"][""]["step"] == 3
        found = trained(tmp_path, 9, loop=Growing(), resume=True)
        assert found.bits == trained(tmp_path / "whole", 9).bits

    @pytest.mark.parametrize("suffix", [".pt", ".csv"])
    def test_no_space_left(self, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The disk is full from step 3 on, and empty again when the run goes on."""
        fsync, full = os.fsync, [False]

        def filled(handle: int) -> None:
            if full[0] and os.readlink(f"/proc/self/fd/{handle}").endswith(f"{suffix}.part"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        def fill(step: int) -> None:
            full[0] = step == 3

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", filled)
            with pytest.raises(scg.RunError, match=f"run{suffix} could not be written: No space left"):
                trained(tmp_path, 6, fill, every=0)
        assert not list(tmp_path.glob(".*"))
        found = trained(tmp_path, 6, resume=True)
        assert found.bits == trained(tmp_path / "whole", 6).bits
        assert rows(tmp_path) == rows(tmp_path / "whole")


class TestEnding:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_saves_after_the_step_and_says_how_to_go_on(
        self, number: signal.Signals, tmp_path: Path
    ) -> None:
        handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
        with pytest.raises(scg.runs.Stopped) as told:
            trained(tmp_path, 6, lambda step: signal.raise_signal(number) if step == 2 else None)
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert str(told.value) == (
            f"stopped after step 3 of 6; saved in {tmp_path / 'run.pt'}: go on with --resume (resume=True)"
        )
        found = trained(tmp_path, 6, resume=True)
        assert found.bits == trained(tmp_path / "whole", 6).bits
        assert rows(tmp_path) == rows(tmp_path / "whole")

    def test_the_second_ctrl_c_ends_at_once(self, tmp_path: Path) -> None:
        def twice(step: int) -> None:
            signal.raise_signal(signal.SIGINT)
            for _ in range(100):  # signals are handled between steps of a loop, and two at once are one
                pass
            signal.raise_signal(signal.SIGINT)

        # What is started in the background ignores the signal, and goes on to once it is handed back.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt) as told:
                trained(tmp_path, 6, twice)
        finally:
            signal.signal(signal.SIGINT, before)
        assert not isinstance(told.value, scg.runs.Stopped)

    def test_an_error_in_a_step_saves_nothing_of_it(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            trained(tmp_path, 6, lambda step: 1 / (3 - step), every=0)
        assert trained(tmp_path, 6, resume=True).bits == trained(tmp_path / "whole", 6).bits
