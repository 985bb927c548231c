"""EAPO through its recipe: rounds as samples of their own, in a workspace that holds nothing earlier."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from stratagem import recipes
from stratagem.claims.agents.rounds import (
    ANSWER,
    BUDGET,
    FIRST,
    FOUND,
    ITEMS,
    KNOWN,
    LAST,
    NOISE,
    NOTE,
    REPORT,
    SEARCH,
    SECOND,
    beginning,
    played,
    rounds_of_success,
    success_by_round,
)  # fmt: skip
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode, to_experience
from stratagem.language.hf_engine import HFEngine
from stratagem.language.rollout import play
from stratagem.language.sampling import SamplingParams
from stratagem.language.world import LanguageWorld
from stratagem.objectives import GeometricMeanRatio
from stratagem.sampling import Demonstrations
from stratagem.seeding import generator
from stratagem.tasks.research import ResearchEnvironment, ResearchTask
from stratagem.tasks.task import Split, Step
from stratagem.watched import Watch

# ---- the recipe -----------------------------------------------------------------------------------------------------


def rounds(lengths: list[int], rewards: list[float], **fields: Any) -> Experience:
    """One group of trajectories of so many rounds, each of two tokens."""
    return Experience.from_lengths(
        [2] * sum(lengths), lengths, [len(lengths)], reward=rewards, seed=torch.arange(len(lengths)) * 7919, **fields
    )


def credit(recipe: Any, x: Experience) -> torch.Tensor:
    """Of every round; both its tokens have it."""
    advantage = recipe.prepare(x).advantage.view(-1, 2)
    assert torch.equal(advantage[:, 0], advantage[:, 1])
    return advantage[:, 0]


def test_rounds_of_the_shorter_success_earn_more():
    x = rounds([2, 1], [1.0, 1.0])
    # r = (0.5, 1) and (1): mean 0.833333, deviation 0.288675.
    found = credit(recipes.iterresearch(discount=0.5), x)
    torch.testing.assert_close(found, torch.tensor([-1.154701, 0.577350, 0.577350]), atol=1e-5, rtol=0)


def test_where_all_rollouts_fail_nothing_is_learned():
    recipe = recipes.iterresearch()
    x = recipe.prepare(rounds([3, 1, 5], [0.0, 0.0, 0.0]))
    assert x.advantage.tolist() == [0.0] * 18 and not recipe.objective.has_signal(x)


def test_without_a_discount_and_with_rollouts_as_long_as_each_other_it_is_a_trajectorys_advantage_in_every_round():
    rewards = [1.0, 0.0, 0.0, 1.0, 0.0]
    x = rounds([4] * 5, rewards)
    values = torch.tensor(rewards).repeat_interleave(4)
    expected = (values - values.mean()) / (values.std() + 1e-6)
    torch.testing.assert_close(credit(recipes.iterresearch(discount=1.0), x), expected)
    # GRPO's, but for the deviation: squares of 20 rounds over 19, where GRPO has those of 5 trajectories over 4.
    grpo = recipes.grpo().prepare(x).advantage.view(-1, 2)[:, 0]
    torch.testing.assert_close(expected * (16 / 19) ** 0.5, grpo)


def test_a_round_that_was_not_well_formed_earns_nothing_whatever_comes_of_it():
    form = torch.tensor([True, False, True, True])
    found = credit(recipes.iterresearch(discount=0.5), rounds([3, 1], [1.0, 0.0], turn_well_formed=form))
    worth = torch.tensor([0.25, 0.0, 1.0, 0.0])
    torch.testing.assert_close(found, (worth - worth.mean()) / (worth.std() + 1e-6))


def test_a_rounds_ratio_is_the_geometric_mean_over_its_own_tokens():
    x = rounds([2], [1.0], old_logp=torch.full((4,), -1.0))
    out = PolicyOutput(torch.tensor([0.1, -0.1, 0.2, 0.4]) - 1)
    recipe = recipes.iterresearch()
    assert recipe.objective.ratio == GeometricMeanRatio("turn")
    expected = torch.tensor([1.0, 1.0, math.exp(0.3), math.exp(0.3)])
    torch.testing.assert_close(recipe.objective.ratio(out, x), expected)


def test_every_round_weighs_the_same_in_the_loss_however_long_its_text_or_its_rollout():
    x = Experience.from_lengths(
        [4, 1, 2], [2, 1], [2], reward=[1.0, 0.0], seed=torch.tensor([1, 2]), old_logp=-torch.ones(7)
    )
    recipe = recipes.iterresearch(discount=1.0, clip_low=0.5, clip_high=0.5)
    x = recipe.prepare(x)
    log_ratio = torch.tensor([0.1, 0.1, 0.1, 0.1, -0.2, 0.3, 0.1])
    loss = recipe.objective(PolicyOutput(log_ratio - 1), x).loss
    by_round = x.advantage[torch.tensor([0, 4, 5])]
    expected = -(torch.tensor([0.1, -0.2, 0.2]).exp() * by_round).mean()
    torch.testing.assert_close(loss, expected)


def test_its_bounds_are_gspos_and_stop_single_rounds():
    x = rounds([1, 1], [1.0, 0.0], old_logp=torch.full((4,), -1.0))
    recipe = recipes.iterresearch()
    x = recipe.prepare(x)
    logp = (torch.tensor([5e-4, 5e-4, -2e-4, -2e-4]) - 1).requires_grad_()
    gradient = torch.autograd.grad(recipe.objective(PolicyOutput(logp), x).loss, logp)[0]
    assert (gradient != 0).tolist() == [False, False, True, True]


def test_fewer_rounds_train_than_were_played_and_all_are_compared():
    x = rounds([7, 6, 8], [1.0, 0.0, 1.0])
    all_of_them = recipes.iterresearch(divisor=1).prepare(x)
    some = recipes.iterresearch(divisor=8).prepare(x)
    assert int(all_of_them.learnable_tokens) == 42 and int(some.learnable_tokens) == 32
    assert torch.equal(some.advantage, all_of_them.advantage)


def test_numbers_out_of_range_are_refused():
    for wrong, said in (
        ({"discount": 1.1}, r"standardized_turn_return\.discount = 1\.1"),
        ({"divisor": 0}, r"divisible_turns\.divisor = 0"),
        ({"each": "token"}, r"standardized_turn_return\.each"),
    ):
        with pytest.raises(InputError, match=said):
            recipes.iterresearch(**wrong)


# ---- with a language policy -----------------------------------------------------------------------------------------

SCRIPT = ("report: looks at ana\nlook: ana", "look: ben", "report:   two\n  lines \nlook: nobody", "hello", "answer: x")
"""A report kept, one missing, a look at nobody, nothing to do."""


class _Scripted(ResearchEnvironment):
    """Takes the script's turns, whatever the policy says."""

    script: tuple[str, ...] = SCRIPT

    def step(self, action: str) -> Step:
        return super().step(self.script[self._turns])


@dataclass(frozen=True)
class _ScriptedResearch(ResearchTask):
    def environment(self, split: Split, index: int) -> ResearchEnvironment:
        return _Scripted(self.query(split, index), self)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        yield from SCRIPT


@pytest.fixture
def rolled(make_policy: Any) -> Any:
    """``rolled(task, count)``: a group of episodes of a random policy, the experience they are, and the policy."""

    def run(task: ResearchTask, count: int = 3) -> tuple[list[Episode], Experience, Any]:
        policy = make_policy(context=2048)
        engine, chat, watch = HFEngine(policy), ChatFormat(policy.tokenizer), Watch(5.0)
        episodes = [Episode(7, sample, seed=sample) for sample in range(count)]
        play(task, "train", episodes, engine, chat, SamplingParams(4, stop_token_ids=chat.end_token_ids), watch)
        watch.close()
        assert [episode.failure for episode in episodes] == [None] * count
        return episodes, to_experience([episodes], task.reward_names, 1, task.reward_weights), policy

    return run


def test_a_round_reads_the_instruction_the_question_the_report_and_the_last_result_and_no_more(rolled, tiny_tokenizer):
    task = _ScriptedResearch()
    episodes, x, _ = rolled(task)
    question = f"Question: {task.query('train', 7)}"
    facts = "; ".join(f"{relation} {who}" for relation, who in task.facts(task.query("train", 7).world, "ben").items())
    read = [tiny_tokenizer.decode(turn.read) for turn in episodes[0].turns]
    shown = [text.removeprefix(f"<|system|>{task.system}<|user|>").removesuffix("<|assistant|>") for text in read]
    assert shown[0] == f"{question}\nReport: none\nResult: none"
    assert shown[2] == f"{question}\nReport: looks at ana\nResult of look ben: {facts}"
    assert shown[3] == f"{question}\nReport: two lines\nResult of look nobody: error: nobody has this name"
    assert shown[4] == f"{question}\nReport: two lines\nResult: error: write look: or answer:"
    assert x.turn_context.view(3, 5).tolist() == [[0, 1, 2, 3, 4]] * 3
    assert len(x.inputs.context_lengths) == 15


def test_a_token_is_as_likely_to_the_learner_as_it_was_in_its_round(rolled):
    _, x, policy = rolled(_ScriptedResearch())
    with torch.no_grad():
        torch.testing.assert_close(policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)


def test_the_learner_is_told_which_rounds_were_well_formed(rolled):
    _, x, _ = rolled(_ScriptedResearch())
    assert x.turn_well_formed.view(3, 5).tolist() == [[True, False, True, False, False]] * 3
    assert x.named_reward("format").tolist() == pytest.approx([0.4] * 3)
    assert bool((x.returns == 0).all())  # The format counts nothing.
    paid = x.replace(reward=torch.tensor([[1.0, 0.4], [0.0, 0.4], [0.0, 0.4]]), turn_reward=None)
    prepared = recipes.iterresearch(discount=0.5, divisor=1).prepare(paid)
    by_round = prepared.advantage[x.turn_of_token.first()]
    worth = torch.tensor([2.0**-4, 0, 2.0**-2, 0, 0] + [0.0] * 10)
    torch.testing.assert_close(by_round, (worth - worth.mean()) / (worth.std() + 1e-6))


def test_demonstrations_are_rounds_too(make_policy):
    policy = make_policy(context=2048)
    world = LanguageWorld(ResearchTask(hops=2), policy, HFEngine(policy), 0)
    x = world.collect(Demonstrations(prompts_per_step=3), 0).x
    world.close()
    assert bool(x.success.all()) and x.turn_context.tolist() == [0, 1, 2] * 3 and bool(x.turn_well_formed.all())


@dataclass(frozen=True)
class _Lenient(ResearchTask):
    """Pays an answer of any name, so that a random policy, whose turns the script is, has something to compare."""

    def environment(self, split: Split, index: int) -> ResearchEnvironment:
        return _Paying(self.query(split, index), self)


class _Paying(ResearchEnvironment):
    def step(self, action: str) -> Step:
        turn = "report: so far\nlook: ana" if len(action) % 3 else f"report: done\nanswer: {self._gold}"
        return super().step(turn)


def test_a_run_learns_from_rounds(make_policy, make_world, make_trainer, small):
    world = make_world(_Lenient(hops=1, max_turns=4, max_new_tokens=4), policy=make_policy(context=2048))
    before = {name: weight.clone() for name, weight in world.policy.state_dict().items()}
    trainer = make_trainer(small("iterresearch"), world=world)
    metrics = [trainer.step() for _ in range(2)]
    assert all(math.isfinite(value) for row in metrics for value in row.values())
    assert metrics[0]["episodes/mean_turns"] > 1 and 0 < metrics[0]["reward"] <= 1
    assert any(not torch.equal(weight, before[name]) for name, weight in world.policy.state_dict().items())


# ---- the claim's search ---------------------------------------------------------------------------------------------


def best(writes: bool) -> torch.Tensor:
    """Note a fact, keep it, and answer when the other one is read."""
    logits = torch.full((ITEMS * ITEMS, 3), -50.0, dtype=torch.float64)
    facts = (LAST == FIRST) | (LAST == SECOND)
    logits[:, SEARCH if writes else NOTE] = 0.0
    noting = facts & ~((REPORT == FIRST) | (REPORT == SECOND))
    logits[noting, SEARCH], logits[noting, NOTE] = -50.0, 0.0
    logits[KNOWN] = torch.tensor([-50.0, -50.0, 0.0], dtype=torch.float64)
    return logits


def test_the_claims_exact_success_is_that_of_waiting_for_both_facts():
    by_round = success_by_round(best(True))
    # Round n + 1 answers when the second fact came in search n, the first in one of those before.
    searches = torch.arange(BUDGET, dtype=torch.float64)
    expected = 2 * FOUND * ((1 - FOUND) ** (searches - 1) - (1 - 2 * FOUND) ** (searches - 1)) * (searches > 0)
    torch.testing.assert_close(by_round, expected.clamp(min=0), atol=1e-9, rtol=1e-9)
    assert 2 < rounds_of_success(by_round) < BUDGET
    # A window needs them in two searches in a row.
    assert float(success_by_round(best(False)).sum()) < 0.5 < float(by_round.sum())


def test_the_claims_episodes_succeed_as_often_as_the_exact_figure_says():
    for logits in (best(True), beginning(True), beginning(False)):
        exact = success_by_round(logits)
        episodes = played(logits, 4096, generator(1000, "test"))
        assert float(episodes.right.double().mean()) == pytest.approx(float(exact.sum()), abs=0.03)
        rows = episodes.place >= 0
        ended = (episodes.decision == ANSWER).any(1)
        assert bool((rows.sum(1) == BUDGET)[~ended].all())
        assert bool((episodes.decision[rows] >= 0).all()) and bool((episodes.decision[~rows] == -1).all())
        assert bool((LAST[episodes.place[:, 1:][rows[:, 1:]]] >= NOISE).all())
