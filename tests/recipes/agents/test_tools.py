"""MatchTIR and TAPO through their recipes: numbers worked by hand, identities, and what tool output cannot touch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.language.episodes import Episode, Turn, to_experience
from stratagem.objectives import PolicyGradient
from stratagem.tasks.task import Observation
from stratagem.tasks.tool_chain import ToolChainTask
from stratagem.tasks.toolbox import ToolboxTask


def gradient(recipe, x: Experience, logp: Tensor) -> Tensor:
    """Of the loss by every log-probability."""
    logp = logp.detach().clone().requires_grad_()
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), x).loss, logp)[0]


# ---- matchtir -------------------------------------------------------------------------------------------------------


def turns_of(rewards: list[list[float]]) -> Experience:
    """A group of trajectories with these turn rewards, of two tokens a turn."""
    flat = [reward for trajectory in rewards for reward in trajectory]
    return Experience.from_lengths([2] * len(flat), [len(r) for r in rewards], [len(rewards)], turn_reward=flat)


def test_matchtir_is_the_mean_of_a_trajectorys_and_a_turns_level_worked_by_hand():
    # Sums 1.5, 0.5 and 1: mean 1, deviation 0.5. Returns of turns (1.31, 0.9, 1), (0.5) and (1, 0).
    x = turns_of([[0.5, 0.0, 1.0], [0.5], [1.0, 0.0]])
    trajectory = torch.tensor([1.0, 1.0, 1.0, -1.0, 0.0, 0.0])
    first = torch.tensor([1.31, 0.5, 1.0])
    first = (first - first.mean()) / first.std()
    second = math.sqrt(0.5)  # Of two values, each is half their gap from the mean, and the deviation is gap / sqrt(2).
    turn = torch.tensor([first[0], second, 1.0, first[1], first[2], -second])  # The third turn has none beside it.
    expected = ((trajectory + turn) / 2).repeat_interleave(2)
    assert recipes.matchtir().advantage(x) == pytest.approx(expected, abs=1e-5)
    assert recipes.matchtir("trajectory").advantage(x) == pytest.approx(trajectory.repeat_interleave(2), abs=1e-5)
    assert recipes.matchtir("turn").advantage(x) == pytest.approx(turn.repeat_interleave(2), abs=1e-5)


def test_matchtir_on_single_turns_is_grpo():
    x = Experience.from_lengths([2, 1, 3, 1], [1] * 4, [4], reward=[1.0, 0.0, 0.5, 0.0])
    credit = recipes.grpo().advantage(x)
    for levels in ("both", "trajectory", "turn"):
        assert recipes.matchtir(levels).advantage(x) == pytest.approx(credit, abs=1e-6)
    bare = recipes.matchtir(kl_coefficient=0, entropy_weight=0)
    assert bare.objective == recipes.grpo().objective


def test_matchtir_gives_nothing_to_a_group_that_earned_alike():
    assert recipes.matchtir().advantage(turns_of([[0.5, 1.0], [0.5, 1.0], [0.5, 1.0]])).tolist() == [0.0] * 12


def test_a_penalty_of_no_weight_needs_no_reference():
    assert "ref_logp" in recipes.matchtir().needs()
    assert "ref_logp" not in recipes.matchtir(kl_coefficient=0).needs()
    assert "output.entropy" not in recipes.matchtir(entropy_weight=0).needs()


def test_matchtir_credits_the_calls_of_its_task_as_they_were_matched_in_the_end():
    task = ToolChainTask(fewest=2, most=2, max_turns=4)
    right = list(task.solution("train", 0))
    episodes = [played(task, 0, actions) for actions in (right, [*right[:1], *right], [right[0], "answer: ?"])]
    x = to_experience([episodes], task.reward_names, 3, task.reward_weights)
    # The second calls the same twice: only the first of the two is matched.
    assert x.turn_reward.tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 0]
    assert x.returns.tolist() == [3, 3, 1]
    credit = recipes.matchtir(group_size=3).prepare(filled(x)).advantage
    # The tokens of its second turn earn less than those of the same turn elsewhere.
    assert credit[x.turn_of_token.first()][4] < credit[x.turn_of_token.first()][1]


# ---- tapo -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "penalty"), [(900, 0), (1024, 0), (1536, -0.5), (2048, -1)])
def test_tapo_charges_for_length_worked_by_hand(length, penalty):
    x = Experience.from_lengths([length, 1], [1, 1], [2], reward=[1.0, 1.0], success=[True, True])
    read = x.replace(turn_observation_length=torch.tensor([5000, 0]))
    for batch in (x, read):
        assert recipes.tapo().shape(batch).returns.tolist() == [1 + penalty, 1]


def test_tapo_pays_minus_one_for_a_wrong_format_and_nothing_for_calls():
    task = ToolboxTask(kind="product")
    product = task.question("train", 0)
    answer = f"<answer>{product.answer}</answer>"
    talks = ([answer], [*product.calls, answer], [f"{answer} I think"], [product.answer])
    x = to_experience(
        [[played(task, 0, actions) for actions in talks]], task.reward_names, len(talks), task.reward_weights
    )
    assert recipes.tapo().shape(x).returns.tolist() == [1, 1, -1, -1]
    assert x.success.tolist() == [True, True, False, False]


def test_tapo_drops_groups_that_are_equally_right_whatever_their_score():
    x = Experience.from_lengths(
        [1] * 12,
        [1] * 12,
        [4, 4, 4],
        reward=[1.0, 1, 1, 1, 0, 0.8, 0, 0, 1, 0, 1, 1],
        success=[True] * 4 + [False] * 4 + [True, False, True, True],
    )
    assert recipes.tapo().sampler.keep(x).tolist() == [False, False, True]
    assert recipes.tapo(judged_by="reward").sampler.keep(x).tolist() == [False, True, True]


def test_tapo_without_tools_format_and_great_length_is_dapo_with_a_dual_clip():
    x = Experience.from_lengths([2, 3, 1, 2], [1] * 4, [4], reward=[1.0, 0, 0, 1], success=[True, False, False, True])
    old = torch.linspace(-2, -0.5, x.tokens)
    batches = [recipe.prepare(x.replace(old_logp=old)) for recipe in (recipes.tapo(), recipes.dapo())]
    assert batches[0].advantage.equal(batches[1].advantage)
    near = old + torch.linspace(-1, 1, x.tokens)
    assert gradient(recipes.tapo(), batches[0], near).equal(gradient(recipes.dapo(), batches[1], near))
    # At a ratio above 10 a bad token's gradient stops, which plain DAPO lets through.
    far = old + 3.0
    bad = batches[0].advantage < 0
    assert gradient(recipes.tapo(), batches[0], far)[bad].tolist() == [0.0] * int(bad.sum())
    assert (gradient(recipes.dapo(), batches[1], far)[bad] > 0).all()


def test_what_tools_say_has_no_rows_and_changes_neither_loss_nor_length():
    short, long = (batch_with_tool_output(tokens) for tokens in ([7], [7, 8, 9] * 500))
    assert short.tokens == long.tokens == 5
    # The rows are exactly the positions of what the policy wrote.
    for x in (short, long):
        written = x.inputs.token_ids[x.inputs.action_positions]
        assert written.equal(x.action) and not set(written.tolist()) & {7, 8, 9}
    recipe = recipes.tapo(overlong_limit=8, overlong_buffer=8, group_size=2)
    assert recipe.shape(short).returns.equal(recipe.shape(long).returns)
    logp = torch.linspace(-1, -0.2, 5)
    grads = [gradient(recipe, recipe.prepare(x.replace(old_logp=logp)), logp) for x in (short, long)]
    assert grads[0].equal(grads[1]) and bool(grads[0].any())


# ---- both -----------------------------------------------------------------------------------------------------------


def test_choices_that_there_are_not_are_refused():
    with pytest.raises(InputError, match="levels of matchtir"):
        recipes.matchtir("token")
    with pytest.raises(InputError, match="judged_by of tapo"):
        recipes.tapo("taste")


def test_published_defaults():
    matchtir, tapo = recipes.matchtir().flat(), recipes.tapo().flat()
    assert matchtir["sampler.group_size"] == 16 and matchtir["advantage.terms.1.term.discount"] == 0.9
    assert (tapo["objective.gate.low"], tapo["objective.gate.high"], tapo["objective.gate.dual"]) == (0.2, 0.28, 10)
    assert tapo["rewards.overlong_penalty.limit"] == 2 * tapo["rewards.overlong_penalty.buffer"] == 2048
    assert tapo["sampler.group_size"] == 4 and tapo["sampler.refill_rounds"] == 9
    assert isinstance(recipes.tapo().objective, PolicyGradient) and recipes.tapo().objective.regularizer is None


def played(task, index: int, actions: list[str]) -> Episode:
    """An episode with these actions, of two tokens each, at a log-probability of -1."""
    environment, episode = task.environment("train", index), Episode(index, 0, 0)
    observation = environment.reset()
    for action in actions:
        episode.turns.append(Turn(observation, [1, 2, 3], [4, 5], [-1.0, -1.0], action))
        step = environment.step(action)
        episode.record(step)
        observation = step.observation
    assert episode.turns[-1].done
    return episode


def filled(x: Experience) -> Experience:
    """With what a regularized objective reads beside."""
    return x.replace(ref_logp=x.behavior_logp, old_logp=x.behavior_logp)


def batch_with_tool_output(output: list[int]) -> Experience:
    """Two trajectories; the first calls a tool that says this, and answers."""
    seen = Observation("", 0)
    called = Episode(
        0, 0, 0, [Turn(seen, [1], [2, 3], [-1.0, -1.0], ""), Turn(seen, output, [4], [-1.0], "", reward=1.0)]
    )
    plain = Episode(0, 1, 0, [Turn(seen, [1], [5, 6], [-1.0, -1.0], "")])
    called.success = True
    return to_experience([[called, plain]], ("reward",), 2)
