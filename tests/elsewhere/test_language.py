"""Language models: answers of two tokens and three words, all of which are gone through, and RLOO by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import scg

WORDS, START = 3, 3
REWARD = torch.tensor([[0.3, 1.0, -0.2], [0.7, 0.1, 0.5], [-0.4, 0.9, 0.2]], dtype=torch.float64)
PLATES = ("question", "answer", "time")


class Words(nn.Module):
    """A language model that remembers one word."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(WORDS + 1, WORDS, dtype=torch.float64, generator=generator))

    def forward(self, before: Tensor) -> Categorical:
        return Categorical(logits=self.table[before])

    def of_answers(self) -> Tensor:
        """log p of every answer, [first word, second word]."""
        logits = self.table.log_softmax(-1)
        return logits[START][:, None] + logits[:WORDS]


def record_of(answers: Tensor, sampler: Words) -> dict[str, Tensor]:
    """Record answers [question, answer, 2]; their reward comes with the last word."""
    before = torch.cat((torch.full_like(answers[..., :1], START), answers[..., :1]), -1)
    reward = torch.stack((torch.zeros_like(answers[..., 0]), REWARD[answers[..., 0], answers[..., 1]]), -1)
    with torch.no_grad():
        log_prob = sampler(before).log_prob(answers)
    return {"state": before, "action": answers, "reward": reward, "log_prob": log_prob}


def groups(size: int) -> Iterator[Tensor]:
    """Yield every group of answers to one question, [1, size, 2]."""
    every = torch.cartesian_prod(torch.arange(WORDS), torch.arange(WORDS))
    yield from (torch.stack(several)[None] for several in itertools.product(every, repeat=size))


def mean_gradient(program: scg.Program, policy: Words, sampler: Words, size: int) -> Tensor:
    """Return the mean gradient over every group of answers that a sampler may give."""
    log_prob, total = sampler.of_answers().detach(), torch.zeros(WORDS + 1, WORDS, dtype=torch.float64)
    for answers in groups(size):
        policy.zero_grad()
        program(noise=record_of(answers, sampler)).loss.backward()
        assert policy.table.grad is not None
        total += log_prob[answers[..., 0], answers[..., 1]].sum().exp() * policy.table.grad
    return total


def graph_of(policy: Words, size: int, **options: str) -> tuple[scg.Graph, scg.Node]:
    g = scg.Graph()
    g.plate("time", ordered=True, reduce="sum")
    example = record_of(torch.zeros(1, size, 2, dtype=torch.long), policy)
    ep = g.rollout("words", lambda policy: example, policy, plates=PLATES, **options)
    return g, ep


def exact(objective: Callable[[Tensor], Tensor], policy: Words) -> Tensor:
    return torch.autograd.grad(objective(policy.of_answers()), policy.table)[0]


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda log: -log,
    "k2": lambda log: 0.5 * log**2,
    "k3": lambda log: log.exp() - 1 - log,
}
"""Estimates of KL(p || reference) for the logarithm of reference / p at a draw of p."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_token", [True, False])
def test_estimates_of_a_divergence_as_costs(kind: str, by_token: bool) -> None:
    """The gradient is that of the expectation of what was declared: for k1 and k3 that of the divergence."""
    policy, reference = Words(0), Words(1).requires_grad_(False)
    g, ep = graph_of(policy, 1)
    log = g.log_prob(reference, ep, ep.parents[0]) - g.log_prob(ep)
    if by_token:
        g.cost("kl", KINDS[kind](log))
    else:
        g.cost("kl", lambda log: KINDS[kind](log.sum(-1)), log, plates=PLATES[:2])
    found = mean_gradient(scg.compile(g, "score"), policy, policy, 1)

    def divergence(log_p: Tensor) -> Tensor:
        return (log_p.exp() * (log_p - reference.of_answers())).sum()

    def declared(log_p: Tensor) -> Tensor:
        if not by_token:
            return (log_p.exp() * KINDS[kind](reference.of_answers() - log_p)).sum()
        steps = [(model.table.log_softmax(-1)) for model in (policy, reference)]
        first, second = KINDS[kind](steps[1] - steps[0]).split([WORDS, 1])
        return (log_p.exp() * (second[0][:, None] + first)).sum()

    assert torch.allclose(found, exact(declared, policy), atol=1e-12)
    if kind != "k2":
        assert torch.allclose(found, exact(divergence, policy), atol=1e-12)


@pytest.mark.parametrize("estimator", ["score", scg.Score(baseline=scg.LeaveOneOut("answer"))])
def test_answers_to_one_question(estimator: object) -> None:
    policy = Words(0)
    g, ep = graph_of(policy, 2)
    g.cost("reward", -ep["reward"])
    found = mean_gradient(scg.compile(g, estimator), policy, policy, 2)  # type: ignore[arg-type]
    wanted = exact(lambda log_p: -(log_p.exp() * REWARD).sum(), policy)
    assert torch.allclose(found, wanted, atol=1e-12)


def test_one_right_answer_of_several_is_enough() -> None:
    """pass@2: all answers to a question share its cost, and none may be the baseline of another."""
    policy = Words(0)
    g, ep = graph_of(policy, 2)

    def fails(reward: Tensor) -> Tensor:
        return (reward.sum(-1) < 0.6).double().prod(-1)

    g.cost("fails", fails, ep["reward"], plates="question")
    with pytest.raises(scg.EstimatorError, match="costs below join"):
        scg.compile(g, scg.Score(baseline=scg.LeaveOneOut("answer")))
    found = mean_gradient(scg.compile(g, "score"), policy, policy, 2)
    wanted = exact(lambda log_p: (log_p.exp() * (REWARD < 0.6)).sum() ** 2, policy)
    assert torch.allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2])
def test_answers_of_another_model(size: int) -> None:
    policy, sampler = Words(0), Words(2)
    g, ep = graph_of(policy, size, behaviour="log_prob")
    g.cost("reward", -ep["reward"])
    g.cost("length", ep["reward"] * 0 + 0.1 * (ep == 1))
    estimator = scg.Score(baseline=scg.LeaveOneOut("answer")) if size > 1 else scg.Score()
    found = mean_gradient(scg.compile(g, estimator), policy, sampler, size)

    def objective(log_p: Tensor) -> Tensor:
        ones = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        return (log_p.exp() * (0.1 * (ones + ones[:, None]) - REWARD)).sum()

    assert torch.allclose(found, exact(objective, policy), atol=1e-12)


class Reader(nn.Module):
    """A recurrent language model of any leading dimensions."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words, self.memory = nn.Embedding(words, 16), nn.GRU(16, 16, batch_first=True)
        self.after = nn.Linear(16, words)

    def forward(self, tokens: Tensor) -> Categorical:
        read = self.memory(self.words(tokens.flatten(0, -2)))[0]
        return Categorical(logits=self.after(read).unflatten(0, tokens.shape[:-1]))


def test_leave_one_out_by_hand() -> None:
    """With answers that end early, and a divergence that charges the words before."""
    torch.manual_seed(0)
    count, prompt, length, end = 4, 3, 6, 0
    model, reference = Reader(9), Reader(9).requires_grad_(False)
    tokens = torch.randint(0, 9, (5, count, prompt + length))
    answer = tokens[..., 1:]
    ended = (answer[..., prompt - 1 :] == end).long()
    mask = torch.zeros_like(answer, dtype=torch.bool)
    mask[..., prompt - 1 :] = ended.cumsum(-1) - ended == 0
    reward = torch.where(mask, (answer == 7).float(), torch.nan)
    record = {
        "state": tokens[..., :-1],
        "action": answer.masked_fill(~mask, -100),
        "reward": reward,
        "mask": mask,
    }

    g = scg.Graph()
    g.plate("time", ordered=True, reduce="sum")
    ep = g.rollout("words", lambda model: record, model, plates=PLATES)
    g.cost("reward", -ep["reward"])
    g.cost("kl", 0.05 * (g.log_prob(ep) - g.log_prob(reference, ep, ep.parents[0])))
    program = scg.compile(g, scg.Score(baseline=scg.LeaveOneOut("answer")))
    program(noise=record).loss.backward()
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    log = model(tokens[..., :-1]).log_prob(answer)
    ratio = log - reference(tokens[..., :-1]).log_prob(answer)
    cost = torch.where(mask, -(answer == 7).float() + 0.05 * ratio.detach(), 0)
    to_go = cost.flip(-1).cumsum(-1).flip(-1)
    advantage = to_go - (to_go.sum(1, keepdim=True) - to_go) / (count - 1)
    surrogate = torch.where(mask, advantage * log + 0.05 * ratio, 0).sum(-1).mean()
    wanted = torch.cat([part.flatten() for part in torch.autograd.grad(surrogate, list(model.parameters()))])
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()
