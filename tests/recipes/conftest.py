"""Batches in which a recipe finds all it reads, and derivatives taken twice: by autograd and by differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import pytest
import torch
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import AnswerHead
from stratagem.parts import past_policies
from stratagem.recipe import Recipe
from stratagem.rewards import CostPenalty
from stratagem.sampling import Resampled

OUTPUTS = (
    "entropy",
    "value",
    "median",
    "mean_logp",
    "direction",
    "log_probs",
    "hidden_square",
    "score_square",
    "score_variance",
    "embedding",
    "value_after",
    "next_value",
    "action_values",
    "code_logp",
    "task_logp",
)
"""What a policy can say of a token beside its log-probability."""

WIDE = ("hidden", "top_id", "top_probability")
"""What it can say without gradients, in several numbers."""


@dataclass(frozen=True)
class Said:
    """What a policy says of the tokens of a batch, by name, ``logp`` first: float64 [tokens] each.

    wide: what has no gradient, [tokens, columns] each.
    """

    figures: dict[str, Tensor]
    wide: dict[str, Tensor] = field(default_factory=dict)

    def output(self) -> PolicyOutput:
        """As an objective gets it."""
        return PolicyOutput(**self.figures, **self.wide)

    def at(self, rows: Tensor) -> Said:
        """Of these tokens, in this order."""
        return Said(*({name: v[rows] for name, v in said.items()} for said in (self.figures, self.wide)))

    def leaves(self) -> Said:
        """Copies that collect gradients."""
        return Said(
            {name: values.detach().clone().requires_grad_() for name, values in self.figures.items()}, self.wide
        )

    def moved(self, step: float, along: Said) -> Said:
        """``figures + step * along``."""
        return Said({name: values + step * along.figures[name] for name, values in self.figures.items()}, self.wide)

    def like(self, source: torch.Generator) -> Said:
        """Random directions."""
        return Said({n: torch.randn(v.shape, generator=source, dtype=torch.float64) for n, v in self.figures.items()})


def fabricate(recipe: Recipe, seed: int = 0, spread: float = 0.3) -> tuple[Experience, Said]:
    """A credited batch of four groups, some trajectories with two turns, and what a policy says of it.

    spread: standard deviation of the log-ratios between all policies; 0: they agree.
    """
    source = torch.Generator().manual_seed(seed)
    size = max(recipe.sampler.group_size, 2)
    groups, trajectories = 4, 4 * size
    turns = [1 + number % 2 for number in range(trajectories)]
    lengths = [1 + (3 * number + number // 5) % 6 for number in range(sum(turns))]
    tokens = sum(lengths)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape or (tokens,), generator=source, dtype=torch.float64)

    behavior = -1.5 + 0.5 * noise()
    old = behavior + spread * noise()
    success = torch.rand(trajectories, generator=source) < 0.4
    # No group may be all alike, or its credit is zero.
    success[::size], success[1::size] = True, False
    x = Experience.from_lengths(
        lengths,
        turns,
        [size] * groups,
        behavior_logp=behavior,
        old_logp=old,
        reward=success.double(),
        success=success,
        truncated=torch.zeros(trajectories, dtype=torch.bool),
        finished=torch.ones(trajectories, dtype=torch.bool),
        episode=torch.arange(trajectories),
        task_id=torch.arange(groups),
        version=torch.zeros(tokens, dtype=torch.int64),
        action=torch.arange(tokens),
        turn_state=torch.arange(sum(turns)) % 5,
    )
    if getattr(recipe.sampler, "demonstrations", 0):
        # The last of every group; and one group of which all rollouts fail.
        demonstrated = torch.arange(trajectories) % size == size - 1
        success[:size] = False
        x = x.replace(demonstrated=demonstrated, success=success | demonstrated)
        x = x.replace(reward=x.success.double().unsqueeze(1))
    if isinstance(recipe.sampler, Resampled):
        # One success of every group, in the place of a failure that trains nothing.
        place = torch.arange(trajectories) % size
        x = x.replace(resampled=place == 0, mask=x.to_tokens(trajectory=place != 1))
    own = {"ref_logp": old + spread * noise(), "value": 0.3 * noise(), "entropy": 1 + 0.1 * noise()}
    if "confidence" in recipe.experience_needs():
        own["confidence"] = torch.rand(tokens, generator=source, dtype=torch.float64)
    needs = recipe.experience_needs()
    x = x.replace(**{name: values for name, values in own.items() if name in needs})
    if "previous_logp" in recipe.needs():
        x = x.replace(previous_logp=old + spread * noise())
    if "past_logp" in recipe.needs():
        x = x.replace(past_logp=old.unsqueeze(1) + spread * noise(tokens, past_policies(recipe)))
    of_turns = {"turn_progress": (), "turn_value": (2,), "turn_action_value": (2,)}
    x = x.replace(**{n: 0.5 * noise(sum(turns), *shape) for n, shape in of_turns.items() if n in needs})
    if "old_mean_logp" in recipe.needs():
        x = x.replace(old_mean_logp=-2 + 0.1 * noise())
    if "ref_direction" in needs:
        x = x.replace(ref_direction=noise(tokens, 3), latent=torch.arange(tokens) % 3 == 0)
    if any(isinstance(reward, CostPenalty) for reward in recipe.rewards):
        cost = 0.1 * torch.rand(trajectories, generator=source, dtype=torch.float64)
        x = x.replace(
            reward=torch.stack([x.returns.double(), cost], 1),
            reward_names=("reward", "cost"),
            reward_weights=(1.0, 0.0),
        )
    if "ref_log_probs" in needs:
        x = x.replace(ref_log_probs=-1 + 0.3 * noise(tokens, 3))
    if "span" in needs:
        # Turns of switch, sub-goal and action, shorter ones of what comes last; every third one keeps its sub-goal.
        from_end = torch.cat([torch.arange(length).flip(0) for length in lengths])
        x = x.replace(span=from_end.clamp(max=2), segment_start=torch.arange(sum(turns)) % 3 != 0)
        if "segment_start" not in needs:
            # Of single turns: a thought, then the action.
            x = x.replace(span=torch.where(from_end > 0, 3, 0))
    if "answer" in needs:
        # Right answers agree, wrong ones are of three kinds or cannot be read.
        x = x.replace(answer=torch.where(success, 9, torch.arange(trajectories) % 4 - 1))
    if "planning" in needs:
        x = x.replace(planning=torch.arange(tokens) % 3 == 1)
    if "step_start" in needs:
        x = x.replace(step_start=torch.arange(tokens) % 3 == 2)
    if "turn_role" in needs:
        x = x.replace(turn_role=x.trajectory_of_turn.position() % 2)
    if "seed" in needs:
        x = x.replace(seed=7919 * torch.arange(trajectories), turn_context=x.trajectory_of_turn.position())
    missing = x.missing(needs)
    assert not missing, f"the battery does not know how to fabricate {missing}"
    said = {"logp": old + spread * noise()}
    lacking = recipe.output_needs() - {*OUTPUTS, *WIDE}
    assert not lacking, f"the battery does not know how to fabricate {lacking}"
    shape = dict.fromkeys(("direction", "log_probs", "action_values", "code_logp"), (tokens, 3))
    if isinstance(recipe.view, AnswerHead):
        shape["embedding"] = (tokens, recipe.view.dims)
    said |= {n: 0.5 + 0.3 * noise(*shape.get(n, ())) for n in OUTPUTS if n in recipe.output_needs()}
    wide = {
        "hidden": torch.randn(tokens, 3, generator=source),
        "top_id": torch.randint(9, (tokens, 4), generator=source),
        "top_probability": torch.randn(tokens, 4, generator=source).softmax(1),
    }
    wide = {name: values for name, values in wide.items() if name in recipe.output_needs()}
    prepared = recipe.prepare(x)
    # Each action is a number of its own, so what a selection dropped is missed here.
    return prepared, Said(said, wide).at(prepared.action)


@pytest.fixture(name="fabricate")
def _fabricate() -> Callable[..., tuple[Experience, Said]]:
    return fabricate


def gradients(recipe: Recipe, x: Experience, said: Said) -> dict[str, Tensor]:
    """Of the loss by everything the policy says."""
    leaves = said.leaves()
    loss = recipe.objective(leaves.output(), x).loss
    if not loss.requires_grad:
        return {name: torch.zeros_like(values) for name, values in said.figures.items()}
    loss.backward()
    return {n: torch.zeros_like(v) if v.grad is None else v.grad for n, v in leaves.figures.items()}


@contextmanager
def detached_values_held() -> Iterator[Callable[[], None]]:
    """Whatever is detached inside keeps the value it had when that line ran first; the result starts it over.

    So differences of a loss with stopped gradients agree with its derivative.
    """
    first: list[Tensor] = []
    place = 0
    plain = Tensor.detach

    def detach(self: Tensor) -> Tensor:
        nonlocal place
        if place == len(first):
            first.append(plain(self).clone())
        place += 1
        return first[place - 1]

    def restart() -> None:
        nonlocal place
        place = 0

    with mock.patch.object(Tensor, "detach", detach):
        yield restart
