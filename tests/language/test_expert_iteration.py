"""A prover's loop on the proof task: learn one short proof of what is proved now and then, then by reinforcement."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from stratagem import recipes
from stratagem.language.engine import Completion, Request
from stratagem.language.world import LanguageWorld
from stratagem.sampling import DynamicSampling, Rollouts, ShortestSuccess, Windows
from stratagem.tasks.proof import ProofTask, Theorem
from stratagem.tasks.proof_checker import Atom, ProofLine

TASK = ProofTask(steps=1, atoms=3, max_turns=2)
GROUPS = {"prompts_per_step": 4, "group_size": 4}
EXPERT = recipes.rejection_sft().replace(
    sampler=DynamicSampling(refill_rounds=0, **GROUPS), selections=(ShortestSuccess(),)
)


def roundabout(theorem: Theorem) -> str:
    """A proof with a line that leads nowhere."""
    *lines, last = theorem.lines
    idle = ProofLine(last.number, Atom("a"), "assume")
    text = map(str, (*lines, idle, replace(last, number=last.number + 1)))
    return "\n".join([theorem.header, *text, "qed"])


def attempts(group: int, sample: int) -> tuple[str, ...]:
    """What is said in an episode of a group of four.

    Of every four groups, the first is proved at the second attempt, roundabout, straight and never; the next always;
    the next never; and the last once, at the second attempt.
    """
    theorem = TASK.theorem("train", group)
    hole = f"{theorem.header}\n1 {theorem.formula} by sorry\nqed"
    always, late, never = (theorem.proof,), (hole, theorem.proof), (hole, hole)
    said = (
        (late, (roundabout(theorem),), always, never),
        (always, always, always, always),
        (never, never, never, never),
        (never, never, late, never),
    )
    return said[group % 4][sample]


class Scripted:
    """An engine whose policy says what the script says; its log-probabilities mean nothing."""

    def __init__(self, policy: Any) -> None:
        self.tokenizer, self.version, self.turns = policy.tokenizer, 0, list[int]()

    def open(self, count: int) -> list[int]:
        self.turns += [0] * count
        return list(range(len(self.turns) - count, len(self.turns)))

    def close(self, sessions: Sequence[int]) -> None:
        pass

    prefilled = taken_over = 0

    def keeping(self, most: int) -> AbstractContextManager[None]:
        return nullcontext()

    def load_weights(self, policy: Any, version: int) -> None:
        self.version = version

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [self.say(request.session) for request in requests]

    def say(self, session: int) -> Completion:
        text = attempts(*divmod(session, 4))[self.turns[session]]
        self.turns[session] += 1
        ids = [*self.tokenizer(text).input_ids, self.tokenizer.eos_token_id]
        return Completion(ids, [-1.0] * len(ids), "stop", self.version, text)


@pytest.fixture
def world(make_policy):
    policy = make_policy(context=2048)
    world = LanguageWorld(TASK, policy, Scripted(policy), seed=0)
    yield world
    world.close()


def test_the_loop_learns_the_shortest_proof_of_each_theorem_between_never_and_always(world):
    collected = world.collect(EXPERT.sampler, 0)
    assert collected.metrics["groups/kept"] == 2
    x = EXPERT.prepare(collected.x)
    # The first straight proof of theorem 0, and the only one of theorem 3, in two attempts.
    assert x.task_id.tolist() == [0, 3]
    assert x.group_of_trajectory.size().tolist() == [1, 1]
    assert x.trajectory_of_turn.size().tolist() == [1, 2]
    said = [ids.tolist() for ids in x.action.split(x.turn_of_token.size().tolist())]
    tokenizer = world.policy.tokenizer
    expected = [attempts(0, 2)[0], *attempts(3, 2)]
    assert said == [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in expected]
    # It is maximum likelihood on those: minus the mean log-probability of what was said.
    output = world.policy(x)
    torch.testing.assert_close(EXPERT.objective(output, x).loss, -output.logp.mean())


def test_verdicts_are_noted_and_pay_nothing(world):
    collected = world.collect(Rollouts(**GROUPS), 0)
    x = collected.x
    assert x.reward_names == ("reward", "checks", "unchanged", "legal")
    assert x.returns.tolist() == x.success.float().tolist() == x.reward[:, 0].tolist() == x.reward[:, 1].tolist()
    assert x.reward[:, 2:].tolist() == [[1.0, 1.0]] * 16
    assert collected.metrics["reward/checks"] == collected.metrics["success"] == 8 / 16


def test_verdicts_pay_nothing_in_windows_either(world):
    x = world.collect(Windows(prompts_per_step=1, tokens=4096), 0).x
    assert x.reward.tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert x.returns.tolist() == [1.0]


def test_a_batch_makes_the_selected_proofs_likelier(world, make_trainer):
    x = EXPERT.prepare(world.collect(EXPERT.sampler, 0).x)
    with torch.no_grad():
        before = world.policy(x).logp.mean()
    make_trainer(EXPERT, world=world, steps=1).run()
    with torch.no_grad():
        assert world.policy(x).logp.mean() > before


def test_reinforcement_goes_on_from_there_with_all_episodes_of_a_theorem(world):
    recipe = recipes.hispo(length=256).with_values({"sampler": DynamicSampling(refill_rounds=0, **GROUPS)})
    x = world.collect(recipe.sampler, 0).x
    # The script's engine knows no probabilities: let it agree with the policy, but for one whole trajectory.
    with torch.no_grad():
        logp = world.policy(x).logp
    stray = x.trajectory_of_token.labels == 1
    x = recipe.prepare(x.replace(behavior_logp=logp - 0.1 * stray, old_logp=logp))
    assert x.trajectories == 8
    output = world.policy(x)
    gradient = torch.autograd.grad(recipe.objective(output, x).loss, output.logp)[0]
    assert torch.isfinite(gradient).all()
    success, stray = (x.trajectory_of_token.spread(flag) for flag in (x.success, x.episode == 1))
    assert (gradient[success & ~stray] <= 0).all() and (gradient[~success] > 0).all()
    assert (gradient[stray] == 0).all() and (gradient != 0).any()
