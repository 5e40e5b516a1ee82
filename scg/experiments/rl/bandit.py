"""The bandit: one action in a context, a fixed policy, and what trained controls leave of the variance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import scg
from scg.experiments.rl.networks import OfAction, OfState
from scg.experiments.rl.residual import action_variance, baselines, scores
from scg.experiments.stacked import layers
from scg.runs import seed_of

STATE, HIDDEN, BATCH = 4, 64, 64
RATE, LATER_RATE = 3e-3, 5e-4
STATES, DRAWS = 400, 200


@dataclass(frozen=True, eq=False)
class Bandit:
    """A bandit of some actions, whose costs have noise of a scale besides; all of it is drawn by the seed."""

    actions: int
    noise: float
    seed: int
    costs: nn.Module
    policy: nn.Module

    @staticmethod
    def of(actions: int, noise: float, seed: int) -> Bandit:
        """Draw costs, a small network of the state, and a policy."""
        costs = layers((STATE, 32, actions), nn.Tanh, seed_of(seed, "costs")).requires_grad_(False)
        policy = layers((STATE, actions), nn.Tanh, seed_of(seed, "policy")).requires_grad_(False)
        return Bandit(actions, noise, seed, costs, policy)

    def mean_costs(self, state: Tensor) -> Tensor:
        """Return the mean cost of every action."""
        found: Tensor = self.costs(state)
        return -3 * found

    def cost(self, action: Tensor, state: Tensor) -> Tensor:
        """Return a cost of an action."""
        mean = self.mean_costs(state).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)
        return mean + self.noise * torch.randn(mean.shape) if self.noise else mean

    def states(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw states, and return them with the logits of the policy."""
        state = torch.randn(count, STATE)
        return state, self.policy(state)

    def graph(self) -> scg.Graph:
        """Declare one action in every state, with the logits as an input, of which gradients are taken."""
        g = scg.Graph("bandit")
        g.plate("batch", reduce="sum")
        state = g.input("state", plates="batch", example=torch.zeros(3, STATE))
        logits = g.input("logits", plates="batch", example=torch.zeros(3, self.actions))
        action = g.sample("action", Categorical, logits=logits)
        g.cost("loss", self.cost, action, state, differentiable=False)
        return g


def _value(bandit: Bandit) -> scg.Estimator:
    net = layers((STATE, HIDDEN, HIDDEN, 1), nn.ReLU, seed_of(bandit.seed, "control"))
    return scg.Score(baseline=OfState(net, 1.0), context="state")


def _relax(bandit: Bandit) -> scg.Estimator:
    widths = (bandit.actions + STATE, HIDDEN, HIDDEN, 1)
    net = layers(widths, nn.ReLU, seed_of(bandit.seed, "control"))
    return scg.RELAX(net=OfAction(net, 1.0, discrete=True), context="state")


BANDIT_POLICIES: dict[str, Callable[[Bandit], scg.Estimator]] = {
    "score": lambda bandit: scg.Score(),
    "score+value": _value,
    "relax": _relax,
}


def measured(bandit: Bandit, policy: str, updates: int, draws: int = DRAWS) -> float:
    """Train the controls of a policy, and return the variance of its gradient in the logits of a state."""
    program = scg.compile(bandit.graph(), {"action": BANDIT_POLICIES[policy](bandit)})
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(bandit.seed, "training"))
        if any(True for _ in program.control_parameters()):
            _train(program, bandit, updates)
        torch.manual_seed(seed_of(bandit.seed, "states"))
        state, logits = bandit.states(STATES)
        found = torch.stack([_gradient(program, state, logits) for _ in range(draws)])
    return float(found.var(0).sum(-1).mean())


def _train(program: scg.Program, bandit: Bandit, updates: int) -> None:
    """Train on new states in every update, at a lower rate in the last third."""
    optimizer = torch.optim.Adam(program.control_parameters(), lr=RATE)
    for update in range(updates):
        if update == 2 * updates // 3:
            optimizer.param_groups[0]["lr"] = LATER_RATE
        state, logits = bandit.states(BATCH)
        optimizer.zero_grad()
        program(state=state, logits=logits.requires_grad_()).loss.backward()
        optimizer.step()


def _gradient(program: scg.Program, state: Tensor, logits: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    gradient: Any = torch.autograd.grad(program(state=state, logits=leaf).loss, leaf)
    return gradient[0]  # type: ignore[no-any-return]


def exactly(bandit: Bandit) -> dict[str, float]:
    """Return the variance with each baseline, and with the ideal c(s, a), on the states of ``measured``.

    No control variate takes away what the noise of the costs causes.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(bandit.seed, "states"))
        state, logits = bandit.states(STATES)
    p, q = logits.softmax(-1), bandit.mean_costs(state)
    noise = bandit.noise**2 * float((p * scores(p).square().sum(-1)).sum(-1).mean())
    found = {name: float(action_variance(p, q, b).mean()) + noise for name, b in baselines(p, q).items()}
    return {**found, "ideal c(s, a)": noise}
