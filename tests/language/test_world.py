"""The language world: engine and learner agree on every task, groups are whole, and nothing is repeated."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.advantages.confidence import least_likely
from stratagem.errors import InputError
from stratagem.language.chat import ChatFormat
from stratagem.language.solved import demonstrate
from stratagem.recipes.reasoning import progrpo_arm
from stratagem.sampling import Demonstrations, DynamicSampling, EntropyTempering, Rollouts, Segments
from stratagem.tasks import registry
from stratagem.tasks.key_door import KeyDoorTask
from stratagem.tasks.mixture import Mixture
from stratagem.tasks.tool_chain import ToolChainTask
from stratagem.training.companions import Companions

SMALL = Rollouts(prompts_per_step=3, group_size=4)
TASKS = [
    "key_door:max_turns=8",
    "sokoban:max_turns=4",
    "calculator",
    "calculator:max_turns=1",
    "sql:max_turns=2",
    "python:max_turns=2,max_new_tokens=24",
    "proof:max_turns=2,max_new_tokens=24",
    "structured:key_door:max_turns=8",
    "rg:chain_sum",
    "textworld",
    "jsonl",
]


@pytest.fixture
def task_of(tmp_path: Path) -> Any:
    def make(spec: str) -> Any:
        if spec == "textworld" and find_spec("textworld") is None:
            pytest.skip("needs textworld")
        if spec == "jsonl":
            lines = [json.dumps({"prompt": f"Say the letter {letter}.", "answer": letter}) for letter in "aeiotnsr"]
            (tmp_path / "letters.jsonl").write_text("\n".join(lines))
            spec = f"jsonl:{tmp_path / 'letters.jsonl'},verifier=contains,test_share=0.3,max_new_tokens=8"
        return registry.make(spec)

    return make


# ---- engine and learner ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("spec", TASKS)
def test_engine_and_learner_agree_before_and_after_the_weights_move(
    make_world, make_policy, task_of, spec, temperature
):
    world = make_world(task_of(spec), policy=make_policy(context=2048))
    sampler = Rollouts(prompts_per_step=2, group_size=2, temperature=temperature)
    for version in (1, 2):
        world.serve(version)
        x = world.collect(sampler, version).x
        said = world.policy(x, temperature=temperature)
        torch.testing.assert_close(x.behavior_logp, said.logp.detach(), rtol=0, atol=1e-4)
        assert x.version.unique().tolist() == [version]
        with torch.no_grad():
            noise = torch.Generator().manual_seed(version)
            for parameter in world.policy.policy_parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=noise)
            moved = world.policy(x, temperature=temperature).logp
        assert float((moved - x.behavior_logp).abs().max()) > 1e-2


def test_a_batch_at_changing_temperatures_says_what_it_was_sampled_from(make_world, task_of):
    world = make_world(task_of("calculator"))
    world.serve(1)
    tempering = EntropyTempering(0.5, quantile=0.5)
    sampler = Rollouts(prompts_per_step=2, group_size=2, tempering=tempering)
    first = world.collect(sampler, 0).x
    with torch.no_grad():
        entropy = world.policy(first, also={"entropy"}).entropy
    torch.testing.assert_close(first.behavior_logp, world.policy(first).logp.detach(), rtol=0, atol=1e-4)
    tempering.before_steps(first.replace(entropy=entropy))
    x = world.collect(sampler, 1).x
    with torch.no_grad():
        factors = tempering(world.policy(x, also={"entropy"}).entropy)
        said = [world.policy(x, temperature=float(factor)).logp for factor in factors[:4]]
        expected = [float(logp[place]) for place, logp in enumerate(said)]
    assert float(factors[:4].min()) < 0.99 or float(factors[:4].max()) > 1.01
    torch.testing.assert_close(x.behavior_logp[:4], torch.tensor(expected), rtol=0, atol=1e-4)


def test_tasks_of_a_mixture_are_domains_and_parts_of_a_document_are_conversations(make_world, task_of, make_policy):
    world = make_world(task_of("reading:kind=mixed,lines=6,part=3,max_new_tokens=4"), policy=make_policy(context=2048))
    world.serve(1)
    x = world.collect(Rollouts(prompts_per_step=7, group_size=2), 0).x
    assert x.domain_of_group.labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert x.turn_context.tolist() == [0, 1, 2] * 14
    said = world.policy(x).logp.detach()
    torch.testing.assert_close(x.behavior_logp, said, rtol=0, atol=1e-4)


def test_turns_of_a_structured_task_are_labelled_and_its_malformed_ones_counted(make_world, task_of):
    world = make_world(task_of("structured:key_door:max_turns=8"))
    world.serve(0)
    shown = world.collect(Demonstrations(prompts_per_step=2), 0).x
    assert shown.span is not None and shown.segment_start is not None
    for span in (0, 1, 2):
        assert bool((shown.turn_of_token.sum((shown.span == span).long()) > 0).all())
    # A segment for each sub-goal: the key, the door, the goal.
    assert shown.trajectory_of_turn.sum(shown.segment_start.long()).tolist() == [3, 3]
    assert bool(shown.segment_start[shown.trajectory_of_turn.first()].all())
    collected = world.collect(SMALL, 1)
    assert collected.x.span.unique().tolist() == [-1]
    assert collected.metrics["reward/malformed"] == collected.metrics["episodes/mean_turns"]
    assert collected.metrics["reward"] == 0 and float(collected.x.returns.abs().max()) == 0


def test_a_model_s_confidence_in_its_prompts_reaches_the_credit_however_the_batch_is_cut(make_world):
    world = make_world()
    world.serve(0)
    x = world.collect(SMALL, 0).x
    given = progrpo_arm(prompt="policy")
    cut = given.with_values({"optimization.microbatch_tokens": int(x.inputs.lengths.max())})
    whole, pieces = (Companions(world.policy, recipe).complete(recipe, x) for recipe in (given, cut))
    torch.testing.assert_close(whole.prompt_confidence, pieces.prompt_confidence, rtol=1e-4, atol=0)
    said = world.policy.prompt_logp(x.select(torch.tensor([0]))).logp.detach()
    lowest = said.sort().values[: -(-len(said) // 5)]
    assert float(whole.prompt_confidence[0]) == pytest.approx(float(lowest.mean().exp()), rel=1e-4)
    # Answers to one prompt share it, and it is no answer's.
    assert bool((x.group_of_trajectory.max(whole.prompt_confidence) == whole.prompt_confidence[::4]).all())
    whole = whole.replace(reward=torch.ones(x.trajectories))
    shift = given.advantage(whole) - progrpo_arm(prompt=None).advantage(whole)
    usual = whole.group_of_trajectory.mean(least_likely(x, 0.2)[0].exp()).repeat_interleave(4)
    expected = x.trajectory_of_token.spread(0.5 * (whole.prompt_confidence - usual))
    torch.testing.assert_close(shift, expected.to(shift.dtype), rtol=0, atol=1e-5)


def test_the_weights_last_served_act(make_world):
    world = make_world()
    world.serve(0)
    with torch.no_grad():
        for parameter in world.policy.policy_parameters():
            parameter.mul_(0.5)
    stale = world.collect(SMALL, 0).x
    assert float((world.policy(stale).logp.detach() - stale.behavior_logp).abs().max()) > 1e-3
    world.serve(1)
    fresh = world.collect(SMALL, 1).x
    torch.testing.assert_close(fresh.behavior_logp, world.policy(fresh).logp.detach(), rtol=0, atol=1e-4)


def test_how_many_episodes_are_played_side_by_side_changes_nothing(make_world):
    alone, together = (make_world(concurrency=count).collect(SMALL, 0).x for count in (1, 256))
    assert torch.equal(alone.action, together.action)
    torch.testing.assert_close(alone.behavior_logp, together.behavior_logp, rtol=0, atol=1e-5)
    assert torch.equal(alone.reward, together.reward)


# ---- batches --------------------------------------------------------------------------------------------------------


def test_groups_share_a_start_state_and_their_episodes_differ(make_world):
    x = make_world().collect(SMALL, 0).x
    assert x.group_of_trajectory.size().tolist() == [4, 4, 4]
    assert x.task_id.tolist() == [0, 1, 2]
    starts = x.turn_state[x.trajectory_of_turn.first()]
    assert len(x.group_of_trajectory.spread(torch.arange(3)).unique()) == len(starts.unique()) == 3
    said = [actions.tolist() for actions in x.action.split(x.trajectory_of_token.size().tolist())]
    assert all(said[group * 4] != said[group * 4 + 1] for group in range(3))


def test_similar_observations_of_a_group_are_one_state_when_asked(make_world):
    """``heard 1`` and ``heard 2`` differ in one of seven characters; the topic is another text."""
    plain, merged = (make_world().collect(SMALL.replace(similar_states=ratio), 0).x for ratio in (None, 0.8))
    assert torch.equal(plain.action, merged.action)
    position, group = merged.trajectory_of_turn.position(), merged.group_of_turn.labels
    for number in range(3):
        here = group == number
        later = merged.turn_state[here & (position > 0)]
        assert len(later.unique()) == 1 < len(plain.turn_state[here & (position > 0)].unique())
        assert later[0] != merged.turn_state[here & (position == 0)].unique().item()


def test_start_states_are_not_repeated_and_a_resumed_world_goes_on_with_the_next(make_world):
    world = make_world()
    first = world.collect(SMALL, 0).x
    tensors, plain = world.state_dict()
    second = world.collect(SMALL, 1).x
    assert (first.task_id.tolist(), second.task_id.tolist()) == ([0, 1, 2], [3, 4, 5])
    resumed = make_world()
    resumed.load_state_dict(tensors, json.loads(json.dumps(plain)))
    again = resumed.collect(SMALL, 1).x
    assert torch.equal(again.action, second.action) and torch.equal(again.behavior_logp, second.behavior_logp)


def test_metrics_are_those_of_the_episodes(make_world, chatter):
    task = chatter(turns=2, reward_names=("reward", "style"))
    outcome = make_world(task).collect(SMALL, 0)
    x, metrics = outcome.x, outcome.metrics
    assert metrics["reward"] == pytest.approx(float(x.reward[:, 0].mean()))
    assert metrics["reward_std"] == pytest.approx(float(x.reward[:, 0].std(correction=0)))
    assert metrics["reward/style"] == pytest.approx(float(x.reward[:, 1].mean()))
    assert metrics["success"] == pytest.approx(float(x.success.float().mean()))
    assert metrics["completions/mean_length"] == pytest.approx(x.tokens / 12)
    assert metrics["episodes/mean_turns"] == pytest.approx(x.turns / 12)
    assert (metrics["episodes"], metrics["episodes/failed"], metrics["groups/kept"]) == (12, 0, 3)


def test_rejected_groups_are_replaced_as_often_as_the_sampler_allows(make_world, chatter):
    from stratagem.tasks.task import Observation, Step

    def fault(call: str, index: int, turn: int) -> Any:
        """Even start states teach nothing: whatever is said earns 1."""
        return Step(Observation("", 0), 1.0, done=True) if call == "step" and index % 2 == 0 else None

    task = chatter(fault=fault, turns=1)
    outcome = make_world(task).collect(DynamicSampling(prompts_per_step=3, group_size=4, refill_rounds=3), 0)
    assert all(index % 2 == 1 for index in outcome.x.task_id.tolist())
    assert outcome.x.groups == 3 and outcome.metrics["groups/rejected"] >= 2
    never = chatter(fault=lambda call, index, turn: fault(call, 0, turn))
    outcome = make_world(never).collect(DynamicSampling(prompts_per_step=3, group_size=2, refill_rounds=2), 0)
    assert outcome.x.tokens == 0, "nothing to learn from, though nothing was lost"
    assert (outcome.metrics["episodes"], outcome.metrics["groups/rejected"], outcome.metrics["groups/kept"]) == (
        18,
        9,
        0,
    )


def test_a_sampler_for_control_is_refused(make_world):
    wanted = "sampler segments: a language task takes rollouts, windows, candidates or demonstrations"
    with pytest.raises(InputError, match=wanted):
        make_world().collect(Segments(), 0)


# ---- demonstrations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", TASKS)
def test_demonstrations_solve_and_are_written_as_the_policy_would_write(make_world, task_of, tiny_tokenizer, spec):
    task = task_of(spec.split(":")[0] if spec.startswith(("key", "sok")) else spec)
    world = make_world(task)
    outcome = world.collect(Demonstrations(prompts_per_step=3), 0)
    x = outcome.x
    assert outcome.metrics["success"] == 1.0
    assert x.group_of_trajectory.size().tolist() == [1, 1, 1] and x.behavior_logp is None
    turns = [tokens.tolist() for tokens in x.action.split(x.turn_of_token.size().tolist())]
    assert all(tokens[-1] == tiny_tokenizer.eos_token_id for tokens in turns)
    first = [text for _, text in zip(range(1), task.solution("train", 0), strict=False)]
    assert tiny_tokenizer.decode(turns[0], skip_special_tokens=True) == first[0]
    assert bool(torch.isfinite(world.policy(x).logp).all())


def test_a_demonstration_is_read_as_a_rollout_would_be(make_world, tiny_tokenizer):
    """The same words, demonstrated and sampled, are the same conversation."""
    world = make_world(KeyDoorTask())
    episode = demonstrate(KeyDoorTask(), "train", 0, ChatFormat(tiny_tokenizer), world._encode)
    text = tiny_tokenizer.decode([token for turn in episode.turns for token in (*turn.read, *turn.action)])
    assert text.startswith("<|system|>Take the key, open the door") and text.endswith("<|end|>")
    assert text.count("<|assistant|>") == text.count("<|end|>") == text.count("<|user|>") == len(episode.turns)
    assert (episode.success, episode.truncated, episode.reward) == (True, False, 1.0)


def test_a_mixture_is_demonstrated_with_the_system_message_of_each_task(make_world, chatter, tiny_tokenizer):
    tasks = [chatter(system="Be brief."), KeyDoorTask()]
    chat = ChatFormat(tiny_tokenizer)
    world = make_world()
    mixed = [demonstrate(Mixture(tasks), "train", index, chat, world._encode) for index in range(2)]
    alone = [demonstrate(task, "train", 0, chat, world._encode) for task in tasks]
    for one, other in zip(mixed, alone, strict=True):
        assert [turn.read for turn in one.turns] == [turn.read for turn in other.turns]


def test_turns_are_worth_what_the_last_step_says_they_were(make_world, tiny_tokenizer):
    task = ToolChainTask(fewest=2, most=2, max_turns=4)
    first, *rest = task.solution("train", 0)
    guess = first.replace('"}', 'x"}')
    world = make_world(task)
    episode = demonstrate(task, "train", 0, ChatFormat(tiny_tokenizer), world._encode, [guess, first, *rest])
    # The guess was worth something until the right call took its match.
    assert [turn.reward for turn in episode.turns] == [0, 1, 1, 1] and episode.failure is None


def test_a_demonstration_without_end_is_cut(make_world, tiny_tokenizer):
    task = KeyDoorTask(max_turns=8)
    world = make_world(task)
    episode = demonstrate(task, "train", 0, ChatFormat(tiny_tokenizer), world._encode, iter(lambda: "wait", ""))
    assert len(episode.turns) == 8 and episode.truncated and episode.failure is None
    nothing = demonstrate(task, "train", 0, ChatFormat(tiny_tokenizer), world._encode, [])
    assert nothing.failure == "the demonstrator did nothing"


def test_every_group_is_shown_the_solution_of_its_own_start_beside_the_same_rollouts(make_world, chatter):
    class Unsolved(chatter):
        def solution(self, split: str, index: int) -> Any:
            if index == 5:
                raise RuntimeError("no way known")
            return iter([f"solve {index}"] * self.turns)

    sampler = Rollouts(prompts_per_step=3, group_size=2, demonstrations=2, start_states=(4, 5, 6))
    plain = make_world(Unsolved()).collect(sampler.replace(demonstrations=0), 0)
    world = make_world(Unsolved())
    found = world.collect(sampler, 0)
    x, own = found.x, found.x.select(found.x.played())
    assert x.demonstrated.tolist() == [False, False, True, True, False, False, False, False, True, True]
    assert x.task_id.tolist() == [4, 5, 6]
    for field in ("action", "behavior_logp", "seed", "turn_state"):
        assert torch.equal(getattr(own, field), getattr(plain.x, field)), field
    shown = x.select(x.demonstrated)
    turns = [tokens.tolist() for tokens in shown.action.split(shown.turn_of_token.size().tolist())]
    first = [
        world.policy.tokenizer.decode(turns[turn], skip_special_tokens=True)
        for turn in shown.trajectory_of_turn.first()
    ]
    assert first == ["solve 4", "solve 4", "solve 6", "solve 6"]
    assert shown.behavior_logp.tolist() == [0.0] * shown.tokens
    assert len(set(x.episode.tolist())) == len(set(x.seed.tolist())) == x.trajectories
    assert found.metrics["groups/without_demonstration"] == 1
    # They are no rollouts: neither the budget nor any figure of episodes knows of them.
    assert found.tokens == plain.tokens
    assert all(found.metrics[name] == value for name, value in plain.metrics.items() if not name.startswith("timing"))
    assert bool(world.policy(x).logp.isfinite().all())


def test_where_no_solver_succeeds_a_batch_is_rollouts_alone(make_world, chatter):
    class Unsolved(chatter):
        def solution(self, split: str, index: int) -> Any:
            raise RuntimeError("no way known")

    found = make_world(Unsolved()).collect(Rollouts(prompts_per_step=2, group_size=2, demonstrations=1), 0)
    assert found.x.demonstrated is None and found.x.trajectories == 4
    assert found.metrics["groups/without_demonstration"] == 2


def test_held_out_demonstrations_begin_where_neither_training_nor_evaluation_does(make_world, chatter):
    task = chatter()
    world, quiet = make_world(task), make_world(chatter())
    held = world.collect(Demonstrations(prompts_per_step=4, held_out=True), 2)
    seen = {index for _, index, _ in task.calls}
    assert max(seen) < -(2**20), "of the test split, whose numbers this task counts down from -1"
    again = world.collect(Demonstrations(prompts_per_step=4, held_out=True), 3)
    assert not set(held.x.task_id.tolist()) & set(again.x.task_id.tolist())
    assert torch.equal(world.collect(SMALL, 0).x.action, quiet.collect(SMALL, 0).x.action)


@pytest.mark.parametrize("spec", TASKS)
def test_every_task_has_demonstrations_to_hold_out(make_world, task_of, spec):
    world = make_world(task_of(spec.split(":")[0] if spec.startswith(("key", "sok")) else spec))
    outcome = world.collect(Demonstrations(prompts_per_step=2, held_out=True), 2**20)
    assert (outcome.metrics["success"], outcome.metrics["episodes/failed"]) == (1.0, 0.0)


# ---- evaluation -----------------------------------------------------------------------------------------------------


def test_evaluation_plays_held_out_episodes_and_does_not_disturb_training(make_world, chatter):
    task = chatter()
    disturbed, quiet = make_world(task), make_world(chatter())
    evaluation = disturbed.evaluate(5, "sampled")
    assert {index for _, index, _ in task.calls} == {-1, -2, -3, -4, -5}
    assert evaluation.episodes == 5 and 0 <= evaluation.success <= 1
    assert disturbed.evaluate(5, "sampled") == evaluation
    assert torch.equal(disturbed.collect(SMALL, 0).x.action, quiet.collect(SMALL, 0).x.action)


def test_greedy_evaluation_is_the_same_for_every_seed(make_world):
    first, second = (make_world(seed=seed).evaluate(6, "greedy") for seed in (0, 1))
    assert first == second


# ---- start states, seeds and answers --------------------------------------------------------------------------------


def test_a_single_example_is_rolled_out_anew_in_every_group(make_world):
    world = make_world()
    one = Rollouts(prompts_per_step=3, group_size=2, start_states=(7,))
    first, second = world.collect(one, 0).x, world.collect(one, 1).x
    assert first.task_id.tolist() == second.task_id.tolist() == [7, 7, 7]
    assert len(first.turn_state[first.trajectory_of_turn.first()].unique()) == 1
    assert len({*first.episode.tolist(), *second.episode.tolist()}) == 12
    assert len({*first.seed.tolist(), *second.seed.tolist()}) == 12
    said = [
        tuple(tokens.tolist())
        for x in (first, second)
        for tokens in x.action.split(x.trajectory_of_token.size().tolist())
    ]
    assert len(set(said)) > 6, "the groups are not copies of each other"


def test_named_start_states_follow_each_other_across_batches(make_world):
    world = make_world()
    named = Rollouts(prompts_per_step=2, group_size=2, start_states=(5, 0, 9))
    assert [world.collect(named, step).x.task_id.tolist() for step in range(3)] == [[5, 0], [9, 5], [0, 9]]


def test_a_failed_episode_of_a_repeated_example_is_replaced_in_its_own_group(make_world, chatter):
    calls = []

    def fault(call: str, index: int, turn: int) -> Any:
        calls.append(call)
        if call == "reset" and calls.count("reset") == 3:
            raise RuntimeError("the third episode of all")
        return None

    one = Rollouts(prompts_per_step=2, group_size=2, refill_rounds=1, start_states=(4,))
    outcome = make_world(chatter(fault=fault)).collect(one, 0)
    assert outcome.x.group_of_trajectory.size().tolist() == [2, 2]
    assert outcome.metrics["episodes/failed"] == 1


def test_a_trajectorys_seed_follows_from_the_runs_and_from_its_number(make_world):
    first, again, other = (make_world(seed=seed).collect(SMALL, 0).x.seed for seed in (0, 0, 1))
    assert torch.equal(first, again) and not set(first.tolist()) & set(other.tolist())
    assert make_world(KeyDoorTask()).collect(Demonstrations(prompts_per_step=1), 0).x.seed is None


def test_equal_answers_have_equal_keys_and_no_answer_has_none(make_world, chatter):
    class Parity(chatter):
        """Whoever says nothing but spaces has no answer; else it is whether the text is long."""

        def answer(self, text: str) -> str | None:
            return None if len(text) % 3 == 0 else str(len(text) % 3)

    outcome = make_world(Parity(turns=1)).collect(Rollouts(prompts_per_step=8, group_size=4), 0)
    keys = outcome.x.answer.tolist()
    assert len(set(keys)) == 3 and min(keys) == -1


def test_an_episode_cut_by_its_turns_gave_no_answer(make_world):
    x = make_world(KeyDoorTask(max_turns=8)).collect(SMALL, 0).x
    assert bool(x.truncated.all()) and bool((x.answer == -1).all())


def test_a_task_that_cannot_say_what_was_answered_fails_the_episode(make_world, chatter):
    class Broken(chatter):
        def answer(self, text: str) -> str | None:
            raise ValueError("which answer?")

    outcome = make_world(Broken(turns=1)).collect(SMALL, 0)
    assert outcome.x is None and outcome.samples[0]["failure"] == "answer: ValueError: which answer?"


# ---- prompts known by heart -----------------------------------------------------------------------------------------


def test_a_prompt_counts_as_known_when_its_rest_is_what_the_model_writes(make_world, make_policy, chatter):
    from stratagem.language.engine import Request
    from stratagem.language.hf_engine import HFEngine
    from stratagem.language.sampling import SamplingParams
    from stratagem.tasks.task import Environment, Observation

    class Texts(chatter):
        def environment(self, split: Any, index: int) -> Environment:
            environment = super().environment(split, index)
            environment.reset = lambda: Observation(self.texts[index], index)
            return environment

    policy, task = make_policy(), Texts()
    world, engine = make_world(task, policy=policy), HFEngine(policy)
    known, unknown = [], []
    starts = range(20, 120)
    begin = [] if policy.tokenizer.bos_token_id is None else [policy.tokenizer.bos_token_id]
    requests = [
        Request(session, [*begin, first], 0, SamplingParams(1, greedy=True))
        for session, first in zip(engine.open(len(starts)), starts, strict=True)
    ]
    for first, completion in zip(starts, engine.generate(requests), strict=True):
        # Of two tokens one is shown; the model's own next token makes a prompt it knows, the token after that none.
        following = completion.tokens[0]
        for texts, second in ((known, following), (unknown, (following + 1) % 320)):
            text = policy.tokenizer.decode([first, second])
            if policy.tokenizer(text, add_special_tokens=False)["input_ids"] == [first, second]:
                texts.append(text)
    assert min(len(known), len(unknown)) >= 3
    task.texts = [*known[:3], *unknown[:3], "x"]
    assert world.recalled([0, 1, 2]) == 1.0
    assert world.recalled([3, 4, 5]) == 0.0
    assert world.recalled([0, 3, 4, 5]) == 0.25
    task.texts = ["a"]
    assert world.recalled([0]) is None, "a prompt of one token has no rest"
