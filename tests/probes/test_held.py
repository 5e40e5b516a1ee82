"""What functions hold is moved and comes back: storages, versions and ties, whatever happens in between."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from scg.probes.held import holding, moved, moved_parameters, parameters_of


def tied() -> nn.Module:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = one.weight
    return nn.Sequential(one, other)


MODULES = {
    "zeros": lambda: nn.Linear(3, 3).apply(lambda m: nn.init.zeros_(m.weight)),
    "tied": tied,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
    "recurrent": lambda: nn.GRU(3, 3),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("scale", [1.0, -12.0])
def test_parameters_are_moved_and_put_back_after_an_error(name: str, scale: float) -> None:
    module = MODULES[name]()
    parameters = parameters_of([module, module])
    before = [(p.data_ptr(), p._version, p.detach().clone()) for p in parameters]
    pending = module(torch.ones(2, 3))
    pending = (pending if isinstance(pending, torch.Tensor) else pending[0]).square().sum()
    expected = torch.autograd.grad(pending, parameters, retain_graph=True)
    moves = moved_parameters([*parameters, *parameters], 0, scale)
    with holding(moves):
        for p, (_, _, value) in zip(parameters, before, strict=True):
            assert not torch.isclose(p, value).any() and p.isfinite().all()
    with suppress(KeyError), holding(moves):
        raise KeyError
    for p, (place, version, value) in zip(parameters, before, strict=True):
        assert p.data_ptr() == place and p._version == version and torch.equal(p, value)
    found = torch.autograd.grad(pending, parameters)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("scale", [1.0, -1.0, 12.0])
def test_numbers_are_moved_away_from_0_and_integers_stay_in_range(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    assert bool((moved(torch.zeros(100), generator, scale).abs() >= 0.5 * abs(scale)).all())
    index = torch.tensor([2, 5, 3])
    assert bool(torch.isin(moved(index, generator, scale), torch.arange(2, 6)).all())
    assert bool(moved(torch.zeros(100, dtype=torch.bool), generator, scale).any())
