"""Steps in torchrl: the loss of REINFORCE on a recorded episode, with the returns in its place for them."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch.distributions import Categorical
from torchrl.modules import ValueOperator
from torchrl.objectives import ReinforceLoss

from benchmarks.by_hand import episode
from benchmarks.contest import Job


def reinforce(model: episode.Model, *, seen: episode.Record, has_value: bool) -> Job:
    """The step of its loss, whose value is fit on the squared error; without one it counts for nothing."""
    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(model.policy.layers, in_keys=["observation"], out_keys=["logits"]),
        ProbabilisticTensorDictModule(
            in_keys=["logits"], out_keys=["action"], distribution_class=Categorical
        ),
    )
    critic = ValueOperator(model.value, in_keys=["observation"])
    loss = ReinforceLoss(actor, critic, functional=False)
    parameters = tuple(p for p in model.parameters() if p.requires_grad)

    def step() -> None:
        returns = episode.to_go(seen) / episode.DISCOUNT ** torch.arange(seen["reward"].shape[1])
        with torch.no_grad():
            value = critic.module(seen["state"]).squeeze(-1) if has_value else torch.zeros_like(returns)
        data = TensorDict(
            {
                "observation": seen["state"],
                "action": seen["action"],
                "advantage": (returns - value).unsqueeze(-1),
                "value_target": returns.unsqueeze(-1),
            },
            batch_size=returns.shape,
        )
        found = loss(data)
        total = found["loss_actor"] + found["loss_value"] if has_value else found["loss_actor"]
        total.backward()

    return Job(step, parameters)
