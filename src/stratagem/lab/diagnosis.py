"""The verdict on a recipe: bias, direction, noise and effect of its expected update, against the exact gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.estimate import Estimate
from stratagem.lab.exact import Exact
from stratagem.lab.game import TokenGame
from stratagem.lab.games import find_game
from stratagem.lab.tree import Tree
from stratagem.lab.updates import BLOCKS, Updates, sample_updates
from stratagem.recipe import Recipe
from stratagem.seeding import generator

Verdict = Literal["not shown biased", "rescaled", "biased", "no update shown"]

LEVEL = 0.001
"""A recipe is convicted below this p-value, so that a table of a hundred innocent verdicts is right in nine of ten."""

ROUNDING = 1e-5
"""Relative error that float32 may leave in an update: no bias below it is one."""

FLIPS = 10_000
"""Random signs tried by the test."""

GROUPS = 65_536
"""Groups drawn when nobody says how many."""


@dataclass(frozen=True)
class Diagnosis:
    """What a recipe's update is worth at one policy of one game. ``u`` is the update, ``g`` the exact gradient.

    recipe, game, seed, drift, stale_steps: what was asked.  group_size: trajectories of a group.
    batch_groups: groups of a batch, which is what normalisers over the whole batch see.  groups: drawn.
    groups_per_second: drawn and learned from.

    expected_return, gradient_norm: ``J`` and ``|g|``, exact.
    verdict: ``not shown biased``; ``rescaled`` (along ``g`` for all that is shown, but of another length); ``biased``
    (not along ``g``); ``no update shown`` (``E u`` may be zero: there is none, or groups are too few to see it).
    bias: ``|E u - g| / |g|``, with ``bias_p``, the p-value of no bias.
    direction: ``min_s |s E u - g| / |g|``, the sine of the angle between the two, which no learning rate can mend, with
    ``direction_p``.  cosine: of that angle.  scale: ``E u . g / |g|^2``.
    noise: ``tr Cov(u) / |E u|^2`` for one group drawn, over the same of REINFORCE on policy, with the expected return
    as its baseline and groups of this size; below 1, fewer groups do.
    step: length of a step in the logits.  gain, exact_gain: rise of ``J`` by a step along ``E u``, and along ``g``.
    entropy_change: of the mean token entropy, in nats, by the step along ``E u``.

    Figures that need an update are None where there is none; intervals are the jackknife's over independent blocks of
    batches.
    """

    recipe: str
    game: str
    seed: int
    drift: float
    group_size: int
    batch_groups: int
    groups: int
    groups_per_second: float
    expected_return: float
    gradient_norm: float
    verdict: Verdict
    bias: Estimate
    bias_p: float
    direction: Estimate | None
    direction_p: float | None
    cosine: Estimate | None
    scale: Estimate
    noise: Estimate | None
    step: float
    gain: float | None
    exact_gain: float
    entropy_change: float | None
    stale_steps: int = 0


def diagnose(
    recipe: Recipe,
    game: TokenGame | str,
    *,
    groups: int = GROUPS,
    batch_groups: int | None = None,
    drift: float = 0.0,
    stale_steps: int = 0,
    seed: int = 0,
    step: float = 0.1,
    logits: Float[Tensor, "nodes vocabulary"] | None = None,
) -> Diagnosis:
    """Judge a recipe's first update on a batch, before optimizer and gradient clipping, against the exact gradient.

    game: one of ``stratagem.lab.GAMES`` by name, or a game.  groups: to draw, at least.
    batch_groups: groups of a batch. By default 512 (fewer when ``groups`` is small), close to the limit of large
    batches; at a trainer's own size, normalisers over the whole batch may be biased.
    drift: standard deviation of a random move of the policy, in logits, since the batch was sampled; the gradient is
    that of the moved policy.  stale_steps: steps of length ``step`` along the exact gradient since then, before the
    random move. With both 0 the ratio is 1.
    logits: the policy that samples; by default standard normal, from the seed. A sampler's temperature divides them;
    what a tempering has seen of earlier batches does not count, so it changes nothing here.
    Recipes judged with one seed see the same policy and, where their samplers agree, the same trajectories.

    Raises :class:`InputError` for an unknown game, a number out of range, a recipe that learns from something else than
    its own rollouts, and a policy at which the exact gradient is zero.
    """
    if groups < 1 or (batch_groups is not None and batch_groups < 1) or drift < 0 or stale_steps < 0 or step <= 0:
        raise InputError(
            "lab: groups and batch_groups must be at least 1, drift and stale_steps at least 0, step above 0"
        )
    tree = Tree.enumerate(find_game(game) if isinstance(game, str) else game)
    behavior = Exact(tree, _logits(tree, seed, logits) / recipe.sampler.policy_temperature)
    policy = behavior
    for _ in range(stale_steps):
        policy = _moved(policy, policy.gradient, step)
    if drift:
        noise = torch.randn(behavior.logits.shape, generator=generator(seed, "drift"), dtype=torch.float64)
        policy = Exact(tree, policy.logits + drift * noise)
    norm = float(policy.gradient.norm())
    if norm == 0:
        raise InputError(f"game {tree.game.name}: the exact gradient is zero at this policy; nothing to compare with")
    size = min(512, max(1, groups // BLOCKS)) if batch_groups is None else batch_groups
    try:
        updates = sample_updates(recipe, policy, behavior, groups, size, seed)
    except InputError as error:
        raise InputError(f"recipe {recipe.name}: the lab cannot judge it: {error}") from None
    return _diagnosis(recipe, policy, updates, drift, stale_steps, seed, step)


def objection(recipe: Recipe, game: str = "corridor") -> str | None:
    """Why :func:`diagnose` would refuse a recipe, in its own words; None when it would not. By a single small batch."""
    tree = Tree.enumerate(find_game(game))
    policy = Exact(tree, _logits(tree, 0, None) / recipe.sampler.policy_temperature)
    try:
        sample_updates(recipe, policy, policy, 1, 1, 0, blocks=1)
    except InputError as error:
        return str(error)
    return None


# ---- figures --------------------------------------------------------------------------------------------------------


def _diagnosis(
    recipe: Recipe, policy: Exact, updates: Updates, drift: float, stale_steps: int, seed: int, step: float
) -> Diagnosis:
    truth, norm = policy.gradient.flatten(), float(policy.gradient.norm())
    blocks, along = updates.blocks.flatten(1), policy.gradient.flatten() / norm
    across = blocks - (blocks @ along).unsqueeze(1) * along
    length = float(blocks.mean(0).norm())
    bias_p = zero_mean_p_value(blocks - truth, ROUNDING * norm, seed)
    across_p = zero_mean_p_value(across, ROUNDING * length, seed)
    update_p = zero_mean_p_value(blocks, 0.0, seed)
    moves = update_p < LEVEL
    reinforce = policy.reinforce_noise(recipe.sampler.group_size) / norm**2
    groups_of_block = updates.groups / len(blocks)

    def bias(rows: Tensor) -> float:
        return _squared_mean(rows - truth) / norm**2

    def sine(rows: Tensor) -> float:
        return _squared_mean(rows - (rows @ along).unsqueeze(1) * along) / _squared_mean(rows)

    def cosine(rows: Tensor) -> float:
        return float(rows.mean(0) @ along) / _root(_squared_mean(rows))

    def noise(rows: Tensor) -> float:
        return groups_of_block * float(rows.var(0).sum()) / _squared_mean(rows) / reinforce

    return Diagnosis(
        recipe=recipe.name,
        game=policy.tree.game.name,
        seed=seed,
        drift=drift,
        group_size=recipe.sampler.group_size,
        batch_groups=updates.batch_groups,
        groups=updates.groups,
        groups_per_second=updates.groups / updates.seconds,
        expected_return=policy.expected_return,
        gradient_norm=norm,
        verdict=_verdict(moves, bias_p, across_p, float(blocks.mean(0) @ along)),
        bias=_jackknife(blocks, bias, _root),
        bias_p=bias_p,
        direction=_jackknife(blocks, sine, _root) if moves else None,
        direction_p=across_p if moves else None,
        cosine=_jackknife(blocks, cosine, lambda value: min(max(value, -1.0), 1.0)) if moves else None,
        scale=_jackknife(blocks, lambda rows: float(rows.mean(0) @ along) / norm),
        noise=_jackknife(blocks, noise) if moves else None,
        step=step,
        gain=_moved(policy, updates.mean, step).expected_return - policy.expected_return if moves else None,
        exact_gain=_moved(policy, policy.gradient, step).expected_return - policy.expected_return,
        entropy_change=_moved(policy, updates.mean, step).entropy - policy.entropy if moves else None,
        stale_steps=stale_steps,
    )


def _verdict(moves: bool, bias_p: float, across_p: float, along: float) -> Verdict:
    if not moves:
        return "no update shown"
    if bias_p >= LEVEL:
        return "not shown biased"
    return "rescaled" if across_p >= LEVEL and along > 0 else "biased"


def _moved(policy: Exact, direction: Float64[Tensor, "nodes vocabulary"], step: float) -> Exact:
    return Exact(policy.tree, policy.logits + step * direction / direction.norm())


def _logits(tree: Tree, seed: int, given: Tensor | None) -> Float64[Tensor, "nodes vocabulary"]:
    if given is None:
        return tree.normal_logits(seed)
    if given.shape != (tree.nodes, tree.game.vocabulary):
        raise InputError(
            f"game {tree.game.name}: logits must be of shape {(tree.nodes, tree.game.vocabulary)}, "
            f"not {tuple(given.shape)}"
        )
    return given.detach().double()


# ---- statistics of independent rows ---------------------------------------------------------------------------------


def zero_mean_p_value(rows: Float64[Tensor, "rows coordinates"], rounding: float, seed: int) -> float:
    """P-value of an expectation of zero, by random signs; 1 for a mean no longer than ``rounding``.

    If the mean is zero and rows are symmetric about it (they are means of many groups), any signs are as likely as
    those seen; so the length of the mean is compared with that under random ones. This is exact whatever the
    covariance, which a normal approximation in more coordinates than rows is not.
    """
    if float(rows.mean(0).norm()) <= rounding:
        return 1.0
    gram = rows @ rows.T
    signs = 2.0 * torch.randint(2, (FLIPS, len(rows)), generator=generator(seed, "signs")).double() - 1
    lengths = ((signs @ gram) * signs).sum(1)
    return (1 + int((lengths >= gram.sum()).sum())) / (1 + FLIPS)


def _squared_mean(rows: Float64[Tensor, "rows coordinates"]) -> float:
    """Unbiased estimate of ``|E row|^2``: the mean product of two different rows. May be negative."""
    count = len(rows)
    return float(rows.sum(0).square().sum() - rows.square().sum()) / (count * (count - 1))


def _root(value: float) -> float:
    return math.sqrt(max(value, 0.0))


def _jackknife(
    rows: Float64[Tensor, "rows coordinates"],
    statistic: Callable[[Tensor], float],
    shown: Callable[[float], float] = float,
) -> Estimate:
    """The statistic and its interval, both as ``shown``, from what it is without each row in turn."""
    from scipy import stats  # takes a second, for which no other use of the lab should wait

    count = len(rows)
    without = np.array([statistic(rows[torch.arange(count) != row]) for row in range(count)])
    error = math.sqrt((count - 1) * without.var())
    value, half = statistic(rows), float(stats.t.ppf(0.975, count - 1)) * error
    return Estimate(shown(value), shown(value - half), shown(value + half))
