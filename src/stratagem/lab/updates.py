"""What a recipe would do to the logits: its first update on many independent batches of exactly known odds."""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass
from functools import cache, partial

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.draw import collect
from stratagem.lab.exact import Exact, demonstrator, led_policy
from stratagem.lab.policy import NodeInputs, TabularPolicy
from stratagem.lab.tree import Tree, added
from stratagem.parts import past_policies
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.seeding import generator, seed_torch

BLOCKS = 128
"""Independent means of batches from which intervals are made."""

ESTIMATED = frozenset({"turn_value", "turn_action_value", "turn_progress"})
"""Fields of a batch that estimators fill in."""


@dataclass(frozen=True, eq=False)
class Updates:
    """Minus the gradient of a recipe's loss by the logits, batch by batch.

    blocks: means over equally many batches.  groups: drawn in all of them, those the sampler rejected included.
    batch_groups: asked for in each batch.  seconds: it took.
    """

    blocks: Float64[Tensor, "blocks nodes vocabulary"]
    groups: int
    batch_groups: int
    seconds: float

    @property
    def mean(self) -> Float64[Tensor, "nodes vocabulary"]:
        """The expected update."""
        return self.blocks.mean(0)


def sample_updates(
    recipe: Recipe, policy: Exact, behavior: Exact, groups: int, batch_groups: int, seed: int, blocks: int = BLOCKS
) -> Updates:
    """Updates of ``policy`` on what ``behavior`` did: at least ``groups`` groups in batches of ``batch_groups``.

    blocks: means of which the updates are given; at least a batch for each.

    Batches are made as the trainer makes them: sampler (with its rejections and refills), rewards, selections, credit,
    objective. Critic and estimator are exact, and critic, reference and previous policy are those of ``behavior``; so
    is ``old_logp`` where the two policies differ. What parts remember is warmed up on one batch more; the recipe given
    is left as it is. Nothing is replayed.

    Raises :class:`InputError` for a recipe that learns from something else, or reads what a tree does not have, and
    for an update that is not finite.
    """
    if recipe.architecture is not None:
        raise InputError(f"architecture {recipe.architecture.part_name()}: its policy is none of the lab's")
    recipe = copy.deepcopy(recipe)
    leaves = _with_tables(recipe, policy, behavior)
    sampler = recipe.sampler.replace(prompts_per_step=batch_groups)
    if isinstance(sampler, Rollouts):
        # The exact gradient is over the game's own starts.
        sampler = sampler.replace(curriculum=None)
    table, entropies = policy.logp.float(), policy.node_entropy.float()
    rounds = max(1, -(-groups // (batch_groups * blocks)))
    by_logp = torch.zeros(blocks, *policy.logp.shape, dtype=torch.float64)
    by_entropy = torch.zeros(blocks, policy.tree.nodes, dtype=torch.float64)
    by_logits = torch.zeros_like(by_logp)
    simple = recipe.view is None and recipe.output_needs() <= {"entropy", "value"}
    solver, guide = partial(_demonstrated, policy.tree), cache(partial(_guided, behavior))
    drawn, clock = 0, time.perf_counter()
    for number in range(-1, rounds * blocks):
        source = partial(generator, seed, "batch", number)
        batch = collect(leaves, behavior.leaf_probability, sampler, source, solver=solver, guide=guide)
        x = recipe.prepare(batch.kept)
        if number >= 0:
            drawn += batch.groups
            block = number % blocks
            if simple:
                _add_update(recipe, x, table, entropies, by_logp[block], by_entropy[block])
            else:
                seed_torch(seed, "update", number)
                by_logits[block] -= _gradient(recipe, x, policy.logits, behavior.median)
    updates = policy.through_softmax(by_logp) + by_entropy.unsqueeze(-1) * policy.entropy_slope + by_logits
    if not bool(updates.isfinite().all()):
        raise InputError("its update is not finite")
    return Updates(updates / rounds, drawn, batch_groups, time.perf_counter() - clock)


def _with_tables(recipe: Recipe, policy: Exact, behavior: Exact) -> Experience:
    """The leaves with what the recipe reads of a policy. Raises :class:`InputError` for what no policy can say."""
    tree = policy.tree
    logp = tree.chosen(behavior.logp).float()
    known = {"ref_logp": logp, "previous_logp": logp, "value": behavior.value[tree.node].float()}
    known["entropy"] = behavior.node_entropy[tree.node].float()
    known["past_logp"] = logp.unsqueeze(1).expand(-1, past_policies(recipe))
    needs = recipe.experience_needs()
    if needs & ESTIMATED:
        known |= _of_turns(tree, behavior)
    leaves = tree.leaves.replace(behavior_logp=logp, **{name: known[name] for name in known if name in needs})
    if policy is not behavior:
        leaves = leaves.replace(old_logp=logp)
    missing = leaves.missing(needs - {"seed"})  # A trajectory has one when it is drawn.
    if missing:
        raise InputError(f"it reads {', '.join(missing)}, which a tree does not have")
    if recipe.optimization.shuffle == "turns":
        raise InputError("it learns from single turns")
    return leaves


def _of_turns(tree: Tree, behavior: Exact) -> dict[str, Tensor]:
    """What estimators say once they are exact: ``V`` and ``Q`` of turns, and how far each moved the expected return.

    Contributions add up to the return but for what the game leaves to chance after the last turn.
    """
    x, turns, by = tree.leaves, tree.leaves.turn_of_token, tree.leaves.trajectory_of_turn
    value = behavior.value[tree.node][turns.first()]
    action_value = tree.chosen(behavior.action_value)[turns.last()]
    earned = x.turn_rewards().double()
    expected = by.discounted_scan(earned).neg() + by.spread(by.sum(earned)) + action_value
    before = torch.where(by.position() == 0, 0.0, expected.roll(1))
    twins = {"turn_value": value, "turn_action_value": action_value}
    return {
        **{name: values.float().unsqueeze(1).expand(-1, 2) for name, values in twins.items()},
        "turn_progress": (expected - before).float(),
    }


def _demonstrated(tree: Tree) -> Float64[Tensor, " leaves"]:
    """Probability of every leaf when it is demonstrated."""
    return demonstrator(tree).leaf_probability


def _guided(behavior: Exact, choices: tuple[int, ...]) -> Float64[Tensor, " leaves"]:
    """Probability of every leaf when the first tokens of each start are the best ones."""
    return led_policy(behavior, choices).leaf_probability


def _gradient(recipe: Recipe, x: Experience, logits: Tensor, median: Tensor) -> Tensor:
    """Of the loss by the logits, through a policy that can be asked anything; the critic is the exact one."""
    assert isinstance(x.inputs, NodeInputs)
    policy = TabularPolicy(logits)
    needs = recipe.output_needs()
    exact = {"value": x.value, "median": median[x.inputs.node].float()}
    out = policy(x, also=needs, view=recipe.view)
    loss = recipe.objective(dataclasses.replace(out, **{name: exact[name] for name in needs & exact.keys()}), x).loss
    if not loss.requires_grad:
        return torch.zeros_like(policy.logits)
    loss.backward()
    return torch.zeros_like(policy.logits) if policy.logits.grad is None else policy.logits.grad


def _add_update(
    recipe: Recipe, x: Experience, table: Tensor, entropies: Tensor, by_logp: Tensor, by_entropy: Tensor
) -> None:
    """Add minus the derivatives of the loss by ``log pi(a | n)`` and by the entropy of ``n``."""
    assert isinstance(x.inputs, NodeInputs) and x.action is not None
    node, needs = x.inputs.node, recipe.output_needs()
    places = node * table.shape[1] + x.action
    logp = table.view(-1)[places].requires_grad_()
    entropy = entropies[node].requires_grad_() if "entropy" in needs else None
    loss = recipe.objective(PolicyOutput(logp, entropy, x.value if "value" in needs else None), x).loss
    if not loss.requires_grad:
        return
    loss.backward()
    if logp.grad is not None:
        by_logp -= added(places, logp.grad, table.numel()).view_as(table)
    if entropy is not None and entropy.grad is not None:
        by_entropy -= added(node, entropy.grad, len(entropies))
