"""The decompose task and its rewards: hand-worked numbers, the noisy solver, and a solver that is down."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from stratagem.errors import InputError
from stratagem.helpers import HelperError
from stratagem.rewards.decomposition import (
    consistency,
    content_words,
    cosines,
    coverage,
    operations,
    operators,
    proximity,
)
from stratagem.tasks import DecomposeTask, make
from stratagem.tasks.noisy_solver import Chain, NoisySolver, bracketed, effort, error_rate, work

CHAIN = Chain(7, (("+", 5), ("*", 3), ("-", 4)), "shop", "apples")
Q = "A shop has 7 apples. It adds 5, multiplies by 3, subtracts 4. How many apples does the shop have?"


def angles(*cosine: float):
    """An embedding in which text ``a0`` has these cosines with ``b0``, ``c0`` ..., by number."""

    def embed(texts):
        rows = []
        for text in texts:
            c = 1.0 if text[0] == "a" else cosine["bcdefg".index(text[0])]
            rows.append([c, (1 - c * c) ** 0.5])
        return torch.tensor(rows)

    return embed


# ---- rewards --------------------------------------------------------------------------------------------------------


def test_coverage_counts_nouns_missed_and_nouns_brought_in():
    question = {"train", "speed", "time"}
    assert coverage(question, {"train", "speed", "distance"}) == pytest.approx(0.333333, abs=1e-6)
    assert coverage(question, question) == 1.0
    assert coverage(question, set()) == 0.0
    assert coverage({"train"}, {"a", "b", "c"}) == -3.0
    assert coverage(set(), {"train"}) == 1.0


def test_consistency_is_a_quarter_of_each_cosine():
    embed = angles(0.8, 0.4)
    assert consistency([("a0", "b0"), ("a1", "c1")], embed) == pytest.approx(0.3)
    assert consistency([], embed) == 0


def test_proximity_by_the_released_rule_and_by_the_new_one():
    nearer, farther = angles(0.6, 0.9), angles(0.6, 0.5)
    assert proximity(["a"], ["b"], ["c"], nearer) == pytest.approx(0.3)
    assert proximity(["a"], ["b"], ["c"], farther) == pytest.approx(-1.3)
    assert proximity(["a"], ["b"], ["c"], nearer, "new") == pytest.approx(0.45)
    assert proximity(["a"], ["b"], ["c"], farther, "new") == pytest.approx(-0.25)
    # Lines that one of the three has not are none.
    assert proximity(["a", "a", "a"], ["b", "b"], ["c"], nearer) == pytest.approx(0.3)
    assert proximity([], ["b"], ["c"], nearer) == 0


def test_operations_are_compared_place_by_place():
    assert operations(["+", "*", "/"], ["+", "-", "/"]) == pytest.approx(0.5)
    assert operations(["+", "*"], ["+"]) == 0.5
    assert operations([], ["+"]) == 0
    assert operators("7 + 5 = 12\n(12) * 3 - -4 / 2 = -5") == ["+", "*", "-", "/"]


def test_the_cosine_with_a_text_without_words_is_0():
    assert cosines(["", "a b c"], ["x", "a b c"], DecomposeTask.embed) == pytest.approx([0, 1])
    assert cosines([], [], DecomposeTask.embed) == []


def test_content_words_are_words_of_a_rule_that_can_be_told():
    assert content_words(Q) == {"shop", "apple"}
    assert content_words("The trains' speeds; which glass? It is 3!") == {"train", "speed", "glass"}
    assert content_words("") == frozenset()


# ---- the solver -----------------------------------------------------------------------------------------------------


def talk(*texts: str):
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def test_a_chain_is_told_in_words_and_worked_out_in_lines():
    assert CHAIN.text == Q and CHAIN.answer == 32
    assert CHAIN.lines == ["7 + 5 = 12", "12 * 3 = 36", "36 - 4 = 32"]
    assert work(3, ()) == ([], 3)
    assert effort(CHAIN.steps) == 4 and error_rate(CHAIN.steps, 0.05) == pytest.approx(0.8)
    assert error_rate(CHAIN.steps[1:2], 0.05) == 0 and error_rate(CHAIN.steps, 1.0) == 1


def test_the_solver_errs_as_often_as_said_and_always_the_same():
    solver = NoisySolver(0.05)
    said = [solver(talk(Q), seed) for seed in range(4000)]
    assert said == [solver(talk(Q), seed) for seed in range(4000)]
    assert fmean(bracketed(text) == "32" for text in said) == pytest.approx(0.2, abs=0.03)
    assert all(int(bracketed(text)) >= 32 for text in said)


def test_the_solver_goes_on_from_what_it_answered_right_or_wrong():
    solver = NoisySolver(1e-9)
    first = "From 7 apples the shop adds 5, multiplies by 3, how many apples?"
    answered = solver(talk(first), 0)
    assert answered == "7 + 5 = 12\n12 * 3 = 36\nThe answer is [36]."
    assert solver(talk(first, answered, Q), 0) == "7 + 5 = 12\n12 * 3 = 36\n36 - 4 = 32\nThe answer is [32]."
    assert bracketed(solver(talk(first, "so [40].", Q), 0)) == "36"
    second = "From #1 apples the shop subtracts 4, how many apples?"
    transcript = talk(first, answered, second, solver(talk(first, answered, second), 0), Q)
    assert solver(transcript, 0).splitlines() == [*CHAIN.lines, "The answer is [32]."]


@pytest.mark.parametrize(
    "other",
    [
        "From 8 apples the shop adds 5, how many?",
        "From 7 apples the shop adds 6, how many?",
        "From 7 apples the shop multiplies by 3, how many?",
        "How many apples?",
        "From #3 apples the shop adds 5, how many?",
    ],
)
def test_answers_to_another_question_help_nothing(other):
    solver = NoisySolver(1.0)
    alone = solver(talk(Q), 0)
    assert bracketed(alone) != "32"
    assert solver(talk(other, "It is [12].", Q), 0) == alone


@pytest.mark.parametrize("text", ["", "?", "how many?", "#1 adds 5", "adds 5 adds", "From #0 adds 5", "7 apples"])
def test_what_cannot_be_read_is_said_so(text):
    assert NoisySolver()(talk(text), 0) in ("I cannot read this question.", "There is no question.")
    assert NoisySolver()([], 0) == "There is no question."


# ---- episodes -------------------------------------------------------------------------------------------------------


def unsolved(task: DecomposeTask, **asked):
    """An environment whose first attempt is wrong, and its solution."""
    for index in range(100):
        environment = task.environment("train", index)
        observation = environment.reset()
        if not environment.solved_at_once:
            return environment, observation, index
    raise AssertionError("all solved at once")


@pytest.mark.parametrize("task", ["decompose", "decompose:error=0.02,r4_mode=new", "decompose:fewest=2,fewest_steps=2"])
def test_the_task_proves_its_verifier(task):
    report = make(task).check(8)
    assert report.solutions_accepted == 8
    assert make(task).check(4, "test").corruptions_rejected == 4


def test_an_episode_pays_five_rewards_by_name():
    task = DecomposeTask()
    environment, observation, index = unsolved(task)
    chain = environment.chain
    assert observation.text.startswith(f"{chain.text}\nAttempt: ")
    [text] = task.solution("train", index)
    step = environment.step(text)
    assert (step.reward, step.success, step.done) == (1.0, True, True)
    paid = step.components
    assert paid["coverage"] == 1.0
    assert paid["operations"] == 0.5 * len(chain.steps)
    assert 0 < paid["consistency"] < 0.25 * len(chain.steps)
    assert (paid["asked"], paid["unanswered"]) == (len(chain.steps), 0)
    assert set(paid) | {"correct", "solved_at_once"} == set(task.reward_names)
    # All lines but the last were right before, so that none of them came nearer.
    assert paid["proximity"] == pytest.approx(-1.5 * (len(chain.steps) - 1) + 0.5 * _last_cosine(environment))


def _last_cosine(environment) -> float:
    last = len(environment.chain.lines) - 1
    [old] = cosines([environment.chain.lines[last]], [environment._first.splitlines()[last]], DecomposeTask.embed)
    return old


def test_fewer_than_three_sub_questions_are_none():
    task = DecomposeTask()
    environment, _, _ = unsolved(task)
    two = " ".join(environment.chain.part(n, n + 1, n + 1) for n in range(2))
    for text in ("", "no question", two, "? ? ? ?"):
        step = environment.step(text)
        assert not step.success and step.components["asked"] == 0
        assert (step.components["coverage"], step.components["consistency"]) == (0, 0)
    assert task.sub_questions("a? b? c? rest") == ["a?", "b?", "c?"]
    assert len(task.sub_questions("a? " * 50)) == task.most


def test_a_question_solved_at_once_is_noted_and_pays_nothing():
    task = DecomposeTask(error=0.001)
    environment = task.environment("train", 0)
    environment.reset()
    assert environment.solved_at_once
    step = environment.step("anything")
    assert step.success and step.reward == 0 and step.components == {"solved_at_once": 1.0}


def test_the_same_episode_is_the_same_in_every_play_and_splits_share_no_question():
    task = DecomposeTask()
    texts = [task.environment("train", index).reset() for index in range(30)]
    assert texts == [task.environment("train", index).reset() for index in range(30)]
    train = {task.question("train", index).text for index in range(200)}
    assert not train & {task.question("test", index).text for index in range(200)}


def test_splitting_is_as_good_as_the_product_of_its_parts_says():
    task = DecomposeTask(fewest=1, fewest_steps=6, most_steps=6)
    won, expected = [], []
    for index in range(600):
        environment = task.environment("train", index)
        environment.reset()
        if environment.solved_at_once:
            continue
        steps = environment.chain.steps
        text = " ".join(environment.chain.part(n, n + 2, n // 2 + 1) for n in (0, 2, 4))
        won.append(environment.step(text).success)
        odds = 1.0
        for n in (0, 2, 4):
            odds *= 1 - error_rate(steps[n : n + 2], 0.05)
        expected.append(odds)
    assert fmean(won) == pytest.approx(fmean(expected), abs=0.06)


# ---- another solver, and one that is down ---------------------------------------------------------------------------

CALLS: list[int] = []


def down(messages, seed):
    raise ConnectionError("gone")


def down_later(messages, seed):
    """Answers a question wrongly, and no sub-question and nothing after."""
    CALLS.append(len(messages))
    if len(CALLS) > 1:
        raise ConnectionError("gone")
    return "7 + 5 = 13\nThe answer is [-1]."


def register(monkeypatch, function):
    import stratagem.helpers.named as named
    from stratagem.helpers import Counted, Scripted

    CALLS.clear()
    made = Counted(Scripted(function, function.__name__), function.__name__)
    monkeypatch.setattr("stratagem.tasks.decomposition.helper", lambda spec: made)
    assert named.helper
    return made


def test_a_solver_that_is_down_fails_the_episode(monkeypatch):
    made = register(monkeypatch, down)
    with pytest.raises(HelperError, match="down raised ConnectionError: gone"):
        DecomposeTask(solver="python:x:down").environment("train", 0).reset()
    assert (made.asked, made.failed) == (1, 1)


def test_a_solver_that_goes_down_fails_the_episode_or_what_it_would_have_earned(monkeypatch):
    text = "an apple? a shop? what?"
    register(monkeypatch, down_later)
    environment = DecomposeTask(solver="python:x:down").environment("train", 0)
    environment.reset()
    with pytest.raises(HelperError, match="gone"):
        environment.step(text)
    register(monkeypatch, down_later)
    environment = DecomposeTask(solver="python:x:down", when_down="drop").environment("train", 0)
    environment.reset()
    step = environment.step(text)
    assert step.done and not step.success and step.reward == 0
    assert step.components["unanswered"] == 4 and step.components["asked"] == 3
    assert all(value <= 0 for name, value in step.components.items() if name in ("coverage", "consistency"))
    assert "proximity" not in step.components and "operations" not in step.components


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("error=0", "error='0' is not allowed"),
        ("fewest_steps=7", "fewest_steps=7 is not allowed; it should be at most most_steps=6"),
        ("solver=nosy", "helper 'nosy' is malformed"),
        ("solver=endpoint:http://h/v1", "names no model"),
        ("when_down=wait", "when_down='wait' is not allowed"),
        ("r4_mode=old", "r4_mode='old' is not allowed"),
        ("nouns=nltk", "write words or python:module:function"),
        ("nouns=python:os:nothing", "has no attribute 'nothing'"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(options, said):
    with pytest.raises(InputError) as caught:
        make(f"decompose:{options}")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_nouns_may_be_found_by_a_function_of_ones_own():
    task = make("decompose:nouns=python:stratagem.rewards.decomposition:operators")
    assert task.noun_set()("1 + 2") == ["+"]


def test_a_solver_by_name_is_asked_and_has_no_known_solution():
    task = make("decompose:solver=python:builtins:repr")
    with pytest.raises(NotImplementedError):
        next(task.solution("train", 0))
