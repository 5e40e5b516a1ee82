"""Several processes that train one program together, held to one process that has their whole batch."""

from __future__ import annotations

import copy
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal
from torch.multiprocessing.spawn import spawn

import scg
from scg.estimators.parts.memory import Memory, averages, has_ranks
from scg.estimators.registry import registry
from tests.contract.instances import BOUNDED, INSTANCES, stirred
from tests.selection import by_turns
from tests.support.running import grads, pickled

STEPS = 3
X = torch.linspace(-1.0, 1.5, 8).double()
EQUAL, UNEQUAL = (4, 4), (6, 2)


class Case(NamedTuple):
    """An estimator, the elements of each rank, and how a rank runs."""

    instance: str
    sizes: tuple[int, ...] = UNEQUAL
    weighs: bool = True
    """Whether a rank multiplies its loss by its share of the elements."""
    compiles: bool = False


CLAIMED = [name for name, instance in INSTANCES.items() if instance.rank in (None, 0)]
CASES = [
    *(Case(name, sizes) for name, sizes in by_turns(CLAIMED, (UNEQUAL, EQUAL))),
    *(Case(name, weighs=False) for name in ("score+moving-average", "rebar")),
    *(Case(f"score+{name}", compiles=True) for name in ("moving-average", "normalise")),
]
Seen = list[dict[str, Tensor]]


def mixed(x: Tensor, w: Tensor, h: Tensor) -> Tensor:
    return w * x + 0.5 * h


def cost(v: Tensor, h: Tensor) -> Tensor:
    return 3 + 5 * torch.tanh((v - 0.9) / 2) + h * v


def build(name: str) -> scg.Program:
    """An enumerated bit above the node of the estimator, so that its elements have weights."""
    instance, found = INSTANCES[name], None
    for dist in (Bernoulli, Normal):
        g = scg.Graph()
        x = g.input("x", plates="batch", example=X[:3])
        h = g.sample("h", Bernoulli, logits=x + g.param("u", torch.tensor(0.3)))
        theta = g.det("theta", mixed, x, g.param("w", torch.tensor(0.7)), h)
        v = g.sample("v", dist, theta, 1.0) if dist is Normal else g.sample("v", dist, logits=theta)
        g.cost("c", cost, v, h)
        torch.manual_seed(0)
        policy = {"h": "enumerate", "v": instance.make("theta")}
        try:
            found = scg.compile(g, policy, samples=instance.samples)
        except scg.EstimatorError:
            continue
        break
    assert found is not None
    return stirred(found)


def of_rank(rank: int, sizes: tuple[int, ...]) -> Tensor:
    return X.split(list(sizes))[rank]


def step(program: scg.Program, loss: Tensor) -> dict[str, Tensor]:
    """Take a step of gradient descent, and return gradients and averages."""
    loss.backward()
    found = grads(program)
    with torch.no_grad():
        for name, parameter in program.named_parameters():
            if name in found:
                parameter -= 0.1 * found[name]
    program.zero_grad()
    held = {name: buffer.clone() for name, buffer in program.controls.named_buffers()}
    return {**found, **held}


def trained(case: Case, rank: int) -> Seen:
    """Return what one rank sees in each step."""
    program = build(case.instance)
    if case.compiles:
        torch.compiler.reset()
        program.compile(backend="aot_eager")
    parallel: Any = nn.parallel.DistributedDataParallel(program)
    x, factor = of_rank(rank, case.sizes), len(case.sizes) * case.sizes[rank] / len(X)
    seen = []
    for index in range(STEPS):
        noise = program.draw_noise(rank + 10 * index, x=x)
        loss = parallel(x=x, noise=noise).loss
        seen.append(step(program, factor * loss if case.weighs else loss))
    return seen


def whole(case: Case) -> Seen:
    """Return what one process sees that has the elements and the noise of all ranks."""
    program, seen = build(case.instance), []
    dim = 0 if INSTANCES[case.instance].samples is None else 1
    for index in range(STEPS):
        parts = [
            program.draw_noise(rank + 10 * index, x=of_rank(rank, case.sizes))
            for rank in range(len(case.sizes))
        ]
        noise = {name: torch.cat([part[name] for part in parts], dim) for name in parts[0]}
        seen.append(step(program, program(x=X, noise=noise).loss))
    return seen


def after_one_has_read_a_checkpoint() -> Seen:
    """Return averages after one step, where rank 0 alone remembers something."""
    memory = Memory(None, deviates=True)
    if torch.distributed.get_rank() == 0:
        memory.load_state_dict(
            {"first": torch.tensor(3.0), "second": torch.tensor(9.0), "mass": torch.ones(())}
        )
    memory.update(torch.full((3,), 3.0), None)
    return [{"mean": memory.mean(), **memory.state_dict()}]


def run_rank(rank: int, path: str) -> dict[Any, Seen]:
    """Run every case as one of two processes."""
    torch.set_default_dtype(torch.float64)
    meeting, limit = (Path(path) / "meeting").as_uri(), timedelta(minutes=5)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit)
    try:
        assert has_ranks()
        seen: dict[Any, Seen] = {case: trained(case, rank) for case in CASES}
        seen["checkpoint"] = after_one_has_read_a_checkpoint()
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
        torch.set_default_dtype(torch.float32)
    return seen


def run_other(_: int, path: str) -> None:
    """Be the second of two processes, which ends without waiting for threads that torch leaves behind."""
    torch.set_num_threads(1)
    torch.save({tuple(k): v for k, v in run_rank(1, path).items()}, Path(path) / "other.pt")
    os._exit(0)


pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch was built without distributed"
)


@pytest.fixture(autouse=True)
def _doubles() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Seen]]:
    """What each of two processes saw."""
    path = tmp_path_factory.mktemp("ranks")
    context = spawn(run_other, (str(path),), join=False)
    one = run_rank(0, str(path))
    while not context.join():
        pass
    other = torch.load(path / "other.pt")
    return [one, {case: other[tuple(case)] for case in one}]


def close(found: Seen, expected: Seen) -> bool:
    return all(
        one.keys() == other.keys() and all(torch.allclose(one[k], other[k], atol=1e-10) for k in one)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("case", [case for case in CASES if case.weighs], ids=str)
def test_ranks_see_what_one_process_sees(case: Case, ranks: list[dict[Any, Seen]]) -> None:
    """Gradients of the model and of controls, and averages, while all of them are trained."""
    expected = whole(case)
    assert all(close(seen[case], expected) for seen in ranks)


def test_every_estimator_is_among_them() -> None:
    unbiased = {name for name, kind in registry().items() if kind.unbiased}
    assert unbiased - set(BOUNDED) <= {case.instance for case in CASES}


@pytest.mark.parametrize("case", [case for case in CASES if not case.weighs], ids=str)
def test_ranks_that_do_not_weigh_their_loss_count_alike(case: Case, ranks: list[dict[Any, Seen]]) -> None:
    """DistributedDataParallel averages gradients over ranks, whatever the number of their elements."""
    alone = []
    for rank in range(2):
        program, x = build(case.instance), of_rank(rank, case.sizes)
        program(x=x, noise=program.draw_noise(rank, x=x)).loss.backward()
        alone.append(grads(program))
    average = {name: (alone[0][name] + alone[1][name]) / 2 for name in alone[0]}
    for seen in ranks:
        assert all(torch.allclose(seen[case][0][name], value) for name, value in average.items())
    assert not torch.allclose(whole(case)[0]["w"], average["w"])
    assert close(
        [{k: v for k, v in seen[case][0].items() if k not in average} for seen in ranks],
        [{k: v for k, v in whole(case)[0].items() if k not in average}] * 2,
    )


def test_a_rank_that_remembers_nothing_counts_nothing(ranks: list[dict[Any, Seen]]) -> None:
    found = [seen["checkpoint"][0] for seen in ranks]
    assert all(float(state["mean"]) == pytest.approx(3.0) for state in found)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_averages_are_in_the_state_and_not_broadcast() -> None:
    program = build("score+normalise")
    names = [f"controls.{name}" for name in averages(program.controls)]
    assert names == ["controls.v.first", "controls.v.second", "controls.v.mass"]
    for other in (program, copy.deepcopy(program), pickled(program)):
        assert set(names) <= set(other.state_dict())
        assert other._ddp_params_and_buffers_to_ignore == names
    assert all(program.float().get_buffer(name).dtype == torch.float32 for name in names)


def test_nothing_is_shared_where_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(torch.distributed, "all_reduce", refuse)
    assert not has_ranks()
    whole(Case("score+moving-average"))
