"""Episodes sampled under a perturbed prompt and learned from under the clean one, in text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from stratagem import recipes
from stratagem.language.episodes import Episode, to_experience
from stratagem.language.hf_engine import HFEngine
from stratagem.language.perturbed import play_perturbed, preceded
from stratagem.language.rollout import reading, reset
from stratagem.language.world import LanguageWorld
from stratagem.sampling import Resampled, Rollouts
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


class Later(Environment):
    """Two turns in one conversation; only from the fourth environment of an episode on it can be solved."""

    def __init__(self, index: int, number: int) -> None:
        self.index, self.number, self.turn = index, number, 0

    def reset(self) -> Observation:
        self.turn = 0
        return self._observation()

    def step(self, action: str) -> Step:
        self.turn += 1
        done, solved = self.turn == 2, self.index == 0 and self.number > 3 and self.number % 2 == 0
        return Step(self._observation(), float(done and solved), done=done, success=done and solved)

    def _observation(self) -> Observation:
        return Observation(f"room {self.index}", state_key(self.index, self.turn))


@dataclass
class SolvedLater(Task):
    """Episode 0 fails three times; later every other attempt succeeds. Episode 1 always fails."""

    name, description, max_new_tokens, max_turns = "later", "try again", 4, 3
    system = "be brief"

    def __post_init__(self) -> None:
        self.begun: dict[int, int] = {}

    def environment(self, split: Split, index: int) -> Environment:
        self.begun[index] = self.begun.get(index, 0) + 1
        return Later(index, self.begun[index])

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(["word"] * 2)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([])


@pytest.fixture
def world(make_policy: Any) -> Any:
    made = []

    def make(task: Task) -> LanguageWorld:
        policy = make_policy(context=512)
        made.append(LanguageWorld(task, policy, HFEngine(policy), 1000))
        made[-1].serve(1)
        return made[-1]

    yield make
    for one in made:
        one.close()


AGAIN = Resampled(prompts_per_step=2, group_size=3, resamples=4, fewest=3, most=6, boundary="answer.")


def test_failed_groups_are_sampled_again_under_nonsense_and_read_without_it(world):
    place = world(SolvedLater())
    got = place.collect(AGAIN, 0)
    x = got.x
    assert {name: got.metrics[name] for name in got.metrics if "resampled" in name or "groups" in name} == {
        "groups/kept": 2,
        "groups/rejected": 0,
        "groups/failed": 2,
        "groups/rescued": 1,
        "resampled/trajectories": 8,
        "resampled/swapped": 2,
        "resampled/success": 0.25,
        "resampled/failed": 0,
    }
    assert x.group_of_trajectory.size().tolist() == [7, 3]
    assert got.tokens > x.tokens  # the group that failed again was paid for, too
    assert got.metrics["success"] == 0  # that of the prompt as it is
    assert len(x.episode.unique()) == len(x.seed.unique()) == x.trajectories
    with torch.no_grad():
        clean = place.policy(x).logp
    first = x.turn_of_token.spread(x.trajectory_of_turn.position() == 0)
    again = x.trajectory_of_token.spread(x.resampled)
    torch.testing.assert_close(clean[~again], x.behavior_logp[~again], atol=1e-5, rtol=1e-4)
    assert float((clean - x.behavior_logp)[again & first].abs().min()) > 1e-4


def test_without_nonsense_it_is_sampling_again(world):
    place = world(SolvedLater())
    x = place.collect(AGAIN.replace(words=None), 0).x
    assert bool(x.resampled.any())
    with torch.no_grad():
        torch.testing.assert_close(place.policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)


def test_plain_rollouts_are_the_same_whether_or_not_failures_are_sampled_again(world):
    plain = world(SolvedLater()).collect(Rollouts(prompts_per_step=2, group_size=3), 0).x
    x = world(SolvedLater()).collect(AGAIN, 0).x
    assert x.select(~x.resampled).action.tolist() == plain.action.tolist()


def play(
    place: LanguageWorld, nonsense: list[str], longest: int | None = None
) -> tuple[list[Episode], list[list[int]]]:
    """Episodes played under nonsense, and the prompts that were read."""
    episodes = [Episode(5, number, number) for number in range(len(nonsense))]
    before = AGAIN.before
    play_perturbed(
        place.task,
        "train",
        episodes,
        nonsense,
        before,
        longest,
        place._stage.engine,
        place._stage.chat,
        place._stage.params(1.0),
        place._stage.watch,
    )
    opened = reset(place.task.environment("train", 5))
    read = [reading(place.task, preceded(opened, before(words)), [], place._stage.chat) for words in nonsense]
    return episodes, read


def test_what_was_sampled_is_as_likely_as_noted_under_the_prompt_that_was_read(world):
    place = world(SolvedLater())
    episodes, read = play(place, ["lorem ipsum", "dolor sit amet lorem"])
    x = to_experience([episodes], ("reward",), 2)
    assert episodes[0].turns[0].read == episodes[1].turns[0].read != read[0]
    for episode, tokens in zip(episodes, read, strict=True):
        episode.turns[0].read = tokens
    perturbed = to_experience([episodes], ("reward",), 2)
    with torch.no_grad():
        torch.testing.assert_close(place.policy(perturbed).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)


def test_words_are_left_out_until_the_prompt_fits(world):
    place = world(SolvedLater())
    words = " ".join(["lorem"] * 40)
    [episode], [whole] = play(place, [words])
    clean, room = len(episode.turns[0].read), 60
    seen: list[int] = []
    generate = place._stage.engine.generate

    def noting(requests: Any) -> Any:
        seen.append(len(requests[0].tokens))
        return generate(requests)

    place._stage.engine.generate = noting
    play(place, [words], clean + room)
    assert clean < seen[0] <= clean + room < len(whole)
    assert seen[0] > clean + room - 15  # no more than a word or so is left out in vain


def test_nonsense_stands_before_the_first_question():
    asked = Observation("question", 1)
    assert preceded(asked, "lorem\n\n") == replace(asked, text="lorem\n\nquestion")
    opening = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "question"})
    found = preceded(Observation("question", 1, opening=opening), "lorem\n\n")
    assert [message["content"] for message in found.opening] == ["be brief", "lorem\n\nquestion"]
    assert opening[1]["content"] == "question"


def test_the_recipe_learns_from_such_a_batch(world):
    place = world(SolvedLater())
    recipe = recipes.lope(resamples=4, group_size=3).replace(sampler=AGAIN)
    x = recipe.prepare(place.collect(recipe.sampler, 0).x)
    out = place.policy(x)
    loss = recipe.objective(out, x).loss
    assert bool(loss.isfinite()) and loss.requires_grad
    assert (x.advantage[x.mask & x.trajectory_of_token.spread(x.resampled)] > 0).all()
