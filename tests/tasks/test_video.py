"""Agents with different tools: what each is told, what it hears of whom, how they vote, and what each is paid."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from stratagem.errors import InputError
from stratagem.language.episodes import Episode, Turn, to_experience
from stratagem.recipes.agents.teams import videochat_m1
from stratagem.tasks import registry
from stratagem.tasks.task import Observation, Step
from stratagem.tasks.video import (
    ANSWERS,
    KINDS,
    NOTE,
    Reply,
    Scene,
    VideoEnvironment,
    VideoTask,
    collaboration,
    pay,
    read_plan,
    truth,
    use,
    vote,
)

VIDEO = "B" * 10 + "A" * 3 + "C" + "D" * 50
SUM = Scene(VIDEO, "sum", "A", "C", 0)
"""Three times A and the first C at place 13: even."""

Say = Callable[[int, str, str], str]
"""What an agent says: of its number, the phase and what it reads."""


def phase_of(text: str) -> str:
    for phase, word in {"plan": "You are agent", "note": "Write a note", "talk": "Write `keep`"}.items():
        if word in text:
            return phase
    return "answer"


def played(
    task: VideoTask, scene: Scene, say: Say, present: Sequence[int] | None = None
) -> tuple[list[Observation], Step]:
    """All that was read, and the last step."""
    environment = VideoEnvironment(task, scene, range(len(task.teams)) if present is None else present)
    observation, read = environment.reset(), []
    while True:
        read.append(observation)
        step = environment.step(say(observation.role, phase_of(observation.text), observation.text))
        if step.done:
            return read, step
        observation = step.observation


def honest(number: int, phase: str, text: str) -> str:
    """Asks what it can, passes it on, and always says even."""
    return {
        "plan": "plan: count A" if "`count A`" in text else "plan: first C",
        "note": f"{text.split('.')[0]}, guess: even",
        "talk": "keep",
        "answer": "answer: even 0.8",
    }[phase]


# ---- the task -------------------------------------------------------------------------------------------------------


SPECIFICATIONS = [
    "video",
    "video:tools=count-first-look+order,steps=2",
    "video:communication=false,dropout=0.6",
    "video:tools=look-count+order-first-first",
]


@pytest.mark.parametrize("specification", SPECIFICATIONS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_its_own_solutions_are_accepted_and_wrong_ones_rejected(specification, split):
    assert registry.make(specification).check(20, split).solutions_accepted == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": "count-hear"}, "unknown tool of task 'video' 'hear'"),
        ({"tools": "count-count"}, r"can answer no question; one takes count\+first"),
        ({"dropout": 1.0}, "dropout=1.0 is not allowed"),
        ({"steps": 0}, "steps=0 is not allowed"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(InputError, match=message):
        VideoTask(**options)


def test_tools_tell_what_there_is():
    assert use(VIDEO, "count A", ["count"]) == "A is seen 3 times"
    assert use(VIDEO, "first C", ["first"]) == "the first C is at place 13"
    assert use(VIDEO, "look 0", ["look"]) == f"window 0 shows {VIDEO[:16]}"
    assert use(VIDEO, "order C A", ["order"]) == "A is seen first"
    assert use(VIDEO, "order G H", ["order"]) == "neither is seen"


@pytest.mark.parametrize("call", ["look 0", "count", "count A B", "count Z", "count AB", "", "!!", "look 4"])
def test_a_call_that_makes_no_sense_tells_what_is_wrong(call):
    assert use(VIDEO, call, ["count"]).startswith("error: ")
    assert use(VIDEO, "look 4", ["look"]).startswith("error: ")


def test_plans_are_read_as_they_are_written():
    assert read_plan("plan: count A; first B", 4) == ["count A", "first B"]
    assert read_plan(" plan: count A;; first B ;look 1", 2) == ["count A", "first B"]
    assert read_plan("count A", 2) is None and read_plan("plan: ;", 2) is None


def test_questions_need_two_bits_that_say_nothing_of_each_other():
    task = VideoTask(tools="count-first-look-order")
    found: dict[str, list[tuple[int, ...]]] = {name: [] for name in KINDS}
    for index in range(600):
        scene = task.environment("train", index).scene
        found[scene.kind].append(KINDS[scene.kind].bits(scene))
    for bits in found.values():
        cells = list(itertools.product(range(2), repeat=len(bits[0])))
        shares = [bits.count(cell) / len(bits) for cell in cells]
        assert max(abs(share - 1 / len(cells)) for share in shares) < 0.12


# ---- votes and pay --------------------------------------------------------------------------------------------------


def test_most_votes_win_and_of_equals_the_surer_then_the_first():
    assert vote([Reply("odd", 0.1), Reply("even", 1.0), Reply("odd", 0.2)]) == "odd"
    assert vote([Reply("odd", 0.4), Reply("even", 0.6)]) == "even"
    assert vote([Reply("odd", 0.5), Reply("even", 0.5)]) == "odd"
    assert vote([Reply("even", 0.5), Reply("odd", 0.5)]) == "even"
    assert vote([Reply(None), Reply("odd", 0.0)]) == "odd" and vote([Reply(None)]) is None


def test_three_independent_voters_of_accuracy_0_7_are_right_in_0_784():
    """Exactly, over all eight cases."""
    right = 0.0
    for hits in itertools.product((True, False), repeat=3):
        chance = torch.tensor([0.7 if hit else 0.3 for hit in hits], dtype=torch.float64).prod()
        right += float(chance) * (vote([Reply(ANSWERS[hit], 0.5) for hit in hits]) == ANSWERS[True])
    assert right == pytest.approx(0.784)


def test_a_vote_by_confidence_can_know_more_than_any_voter():
    """Of two bits, each known to one: who sees a 1 is surer, so the vote is an or, right for three of four sums."""
    hits = [
        vote([Reply(ANSWERS[bit], 0.5 + 0.5 * bit) for bit in bits]) == ANSWERS[sum(bits) % 2]
        for bits in itertools.product(range(2), repeat=2)
    ]
    assert sum(hits) == 3


def test_an_agent_is_paid_for_team_self_format_and_collaboration():
    assert pay(True, True, True, 0.5) == pytest.approx(0.95)
    assert pay(True, False, True, 0.0) == pytest.approx(0.6)
    assert pay(False, False, True, 0.5) == pytest.approx(0.15)
    found = {(b, a): collaboration(b, a, "odd") for b in ("odd", "even", None) for a in ("odd", "even", None)}
    assert found[None, "odd"] == found["even", "odd"] == 1 and found["odd", "even"] == found["odd", None] == 0
    assert set(found.values()) == {0, 0.5, 1} and found["odd", "odd"] == found["even", "even"] == 0.5


def test_rewards_stand_on_the_last_turn_of_each_agent():
    def say(number: int, phase: str, text: str) -> str:
        # Agent 1 guesses wrong and is right in the end; agent 0 is right and then wrong.
        said = {"note": ["guess: even", "guess: odd"], "answer": ["answer: odd 0.1", "answer: even 0.9"]}
        return said[phase][number] if phase in said else honest(number, phase, text)

    _, step = played(VideoTask(), SUM, say)
    assert truth(SUM) == "even" and step.success
    assert step.turn_rewards == pytest.approx([0.0] * 6 + [0.5 + 0.1, 0.5 + 0.3 + 0.1 + 0.1])
    assert step.reward == step.turn_rewards[-1]
    assert step.components == {"team": 1.0, "format": 1.0, "collaboration": 0.5, "calls": 2.0}


@pytest.mark.parametrize("plan", ["I would count", "plan: first C", "plan:"])
def test_a_plan_that_cannot_be_read_or_followed_is_a_wrong_format_and_the_agent_still_answers(plan):
    def say(number: int, phase: str, text: str) -> str:
        return plan if (number, phase) == (0, "plan") else honest(number, phase, text)

    read, step = played(VideoTask(), SUM, say)
    note = next(o.text for o in read if o.role == 0 and phase_of(o.text) == "note")
    assert note.startswith("error: " if "first" in plan else "nothing left to do")
    assert step.success and step.turn_rewards[-2:] == pytest.approx([0.85, 0.95])


def test_an_answer_that_cannot_be_read_is_no_vote():
    _, step = played(VideoTask(), SUM, lambda n, p, t: "even!" if (n, p) == (0, "answer") else honest(n, p, t))
    assert step.success and step.turn_rewards[-2:] == pytest.approx([0.5 + 0.0 + 0.0 + 0.0, 0.95])


# ---- who hears what -------------------------------------------------------------------------------------------------


def test_agents_hear_what_others_wrote_in_the_same_step_and_nothing_later():
    def say(number: int, phase: str, text: str) -> str:
        if phase == "talk":
            return f"plan: {'count B' if number == 0 else 'first D'}"
        return honest(number, phase, text)

    read, _ = played(VideoTask(steps=2), SUM, say)
    talks = [o for o in read if phase_of(o.text) == "talk"]
    assert [o.role for o in talks] == [0, 1, 0, 1]
    heard = [o.text.split("\n")[0] for o in talks]
    assert heard[0] == "Agent 1: plan none; note the first C is at place 13, guess: even"
    # Agent 0 has changed its plan by now, but that is not of this step.
    assert heard[1] == "Agent 0: plan none; note A is seen 3 times, guess: even"
    assert heard[2] == "Agent 1: plan none; note the first D is at place 14, guess: even"
    assert heard[3] == "Agent 0: plan none; note B is seen 10 times, guess: even"


def test_another_order_of_agents_is_the_same_talk_under_other_names():
    one, last = played(VideoTask(tools="count-first"), SUM, honest)
    other, other_last = played(VideoTask(tools="first-count"), SUM, honest)
    texts = [{(o.role, o.text.split("\n")[0]) for o in read} for read in (one, other)]
    names = {(1 - role, text.replace("gent 0", "gent X").replace("gent 1", "gent 0").replace("gent X", "gent 1"))
             for role, text in texts[1]}  # fmt: skip
    assert texts[0] == names and last.turn_rewards == other_last.turn_rewards


def test_without_communication_agents_are_asked_nothing_of_others():
    read, step = played(VideoTask(communication=False), SUM, honest)
    assert [phase_of(o.text) for o in read] == ["plan"] * 2 + ["note"] * 2 + ["answer"] * 2
    assert step.components["collaboration"] == 0.5


def test_a_note_that_others_read_is_one_short_line():
    read, _ = played(VideoTask(), SUM, lambda n, p, t: "a\n" * 500 if p == "note" else honest(n, p, t))
    talk = next(o for o in read if phase_of(o.text) == "talk")
    assert len(talk.text.split("\n")[0]) <= NOTE + len("Agent 1: plan none; note ")


def test_what_one_agent_knows_is_half_the_answer_and_both_know_it_all():
    """When each answers by the numbers in its prompts, as sure as the others."""
    task = VideoTask(tools="count-first", dropout=0.0)
    for communication, expected in ((True, 1.0), (False, 0.5)):
        chosen = replace(task, communication=communication)
        hits = [_best(chosen, index) for index in range(400)]
        assert sum(hits) / len(hits) == pytest.approx(expected, abs=0.0 if communication else 0.08)


def _best(task: VideoTask, index: int) -> bool:
    """Whether the team is right when each agent answers from numbers in what it has read and guesses the rest."""
    scene = task.environment("train", index).scene
    known: dict[int, list[int]] = {0: [], 1: []}
    source = random.Random(index)

    def say(number: int, phase: str, text: str) -> str:
        line = text.split("\n")[0]
        if phase in ("note", "talk"):
            known[number] += [int(value) for value in re.findall(r"\b\d+(?= times)|(?<=at place )\d+", line)]
        if phase == "plan":
            return f"plan: count {scene.first}" if "`count A`" in text else f"plan: first {scene.second}"
        if phase == "note":
            return f"{line.rstrip('.')}, guess: even"
        if phase == "talk":
            return "keep"
        total = sum(known[number]) if len(known[number]) == 2 else source.randrange(2)
        return f"answer: {ANSWERS[total % 2]} 0.5"

    return played(task, scene, say)[1].success


# ---- dropout --------------------------------------------------------------------------------------------------------


def test_agents_are_left_out_by_chance_and_one_always_stays():
    task = VideoTask(tools="count-first-look", dropout=0.2)
    there = [task.environment("train", index).present for index in range(1500)]
    assert min(map(len, there)) >= 1
    for agent in range(3):
        # Of all draws but the one in 125 in which nobody stays.
        assert sum(agent in present for present in there) / 1500 == pytest.approx(0.8 / 0.992, abs=0.035)
    assert there[:50] == [task.environment("train", index).present for index in range(50)]
    assert all(len(task.environment("test", index).present) == 3 for index in range(50))
    assert all(len(VideoTask(dropout=0.0).environment("train", index).present) == 2 for index in range(50))


def test_nobody_reads_what_an_agent_that_is_left_out_would_have_said():
    task = VideoTask(tools="count-first-look")

    def say(number: int, phase: str, text: str) -> str:
        return f"{honest(number, phase, text)} secret{number}" if phase == "note" else honest(number, phase, text)

    read, step = played(task, SUM, say, present=(0, 2))
    assert {o.role for o in read} == {o.context for o in read} == {0, 2}
    assert not any("secret1" in o.text or "gent 1" in o.text for o in read) and len(step.turn_rewards or []) == 8
    assert any("secret2" in o.text for o in read if o.role == 0)


def test_an_agent_that_is_left_out_learns_nothing_and_the_others_are_compared_with_themselves():
    """Episodes as a policy would have played them, credited by the recipe."""
    task, groups = VideoTask(dropout=0.0), []
    for present, sure in (((0, 1), "even"), ((0, 1), "odd"), ((0,), "odd")):
        episode = Episode(0, len(groups), seed=len(groups))
        environment = VideoEnvironment(task, SUM, present)
        observation = environment.reset()
        while True:
            phase = phase_of(observation.text)
            text = f"answer: {sure} 1" if phase == "answer" else honest(observation.role, phase, observation.text)
            episode.turns.append(Turn(observation, [1, 2], [3, 4], [-1.0, -1.0], text, 0))
            step = environment.step(text)
            episode.record(step)
            if step.done:
                break
            observation = step.observation
        groups.append(episode)
    x = to_experience([groups], task.reward_names, 3, task.reward_weights)
    prepared = videochat_m1(kl_coefficient=0.0).prepare(x)
    credit = x.turn_of_token.mean(prepared.advantage)
    turns = zip(x.trajectory_of_turn.labels.tolist(), x.turn_role.tolist(), credit.tolist(), strict=True)
    by_role = {(trajectory, role): value for trajectory, role, value in turns}
    assert set(by_role) == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)}
    assert by_role[0, 1] == pytest.approx(0.5**0.5, rel=1e-4) and by_role[1, 1] == pytest.approx(-(0.5**0.5), rel=1e-4)
    # Agent 0 was right once of three times; alone it heard nobody, so that nothing could make it change its mind.
    own = torch.tensor([0.95, 0.1, 0.15])
    expected = (own - own.mean()) / own.std()
    assert [by_role[t, 0] for t in range(3)] == pytest.approx(expected.tolist(), rel=1e-3)
