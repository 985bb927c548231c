"""Reasoning Gym's datasets as tasks."""

import pytest

from stratagem.errors import InputError
from stratagem.tasks.reasoning_gym import UNSUPPORTED, extract_answer, from_spec


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("  42 ", "42"),
        ("I think so. answer: 42", "42"),
        ("Answer: 1\nno, ANSWER: 42\n", "42"),
        ("<answer>41</answer> or <answer> 42\n</answer> indeed", "42"),
        ("answer: 7 <answer>42</answer>", "42"),
        ("", ""),
    ],
)
def test_the_answer_is_tagged_or_marked_or_all_of_the_text(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "dataset", ["chain_sum", "letter_counting", "graph_color", "rubiks_cube", "prime_factorization"]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_solutions_are_accepted_and_corrupted_ones_rejected(dataset: str, split: str) -> None:
    assert from_spec(dataset, {}).check(3, split).corruptions_rejected == 3  # type: ignore[arg-type]


def test_the_habit_is_the_number_next_to_the_right_one_in_its_share_of_episodes() -> None:
    task = from_spec("chain_sum", {})
    right, wrong = (next(make("train", 3)) for make in (task.solution, task.corrupted))
    assert int(wrong) == int(right) + 1
    said = [next(task.demonstration("train", 3, habit=0.85, seed=seed)) for seed in range(400)]
    assert set(said) == {right, wrong} and said.count(wrong) == pytest.approx(340, abs=30)
    assert said[7] == next(task.demonstration("train", 3, habit=0.85, seed=7))
    assert next(task.demonstration("train", 3, habit=0.0, seed=1)) == right


@pytest.mark.parametrize("habit", [-0.1, 1.1, float("nan")])
def test_a_habit_is_a_probability(habit: float) -> None:
    with pytest.raises(InputError, match="it is a probability, 0 to 1"):
        from_spec("chain_sum", {}).demonstration("train", 0, habit, 0)


def test_a_sum_is_worth_one_when_it_is_right_and_ends_the_episode() -> None:
    task = from_spec("chain_sum", {"min_terms": "2", "max_terms": "2", "min_digits": "1", "max_digits": "1"})
    environment = task.environment("train", 0)
    question = environment.reset().text
    terms = question.split(":")[-1].split("=")[0]
    step = environment.step(f"<answer>{eval(terms)}</answer>")
    assert (step.reward, step.done, step.success) == (1.0, True, True)
    wrong = environment.step("<answer>1000</answer>")
    assert wrong.reward < 1 and wrong.done and not wrong.success


def test_equal_numbers_give_equal_questions_and_different_numbers_different_ones() -> None:
    task = from_spec("chain_sum", {})
    questions = [task.environment("train", index).reset().text for index in range(20)]
    assert questions == [task.environment("train", index).reset().text for index in range(20)]
    assert len(set(questions)) == 20


def test_no_question_is_in_both_splits_even_when_there_are_few() -> None:
    task = from_spec("chain_sum", {"min_terms": "2", "max_terms": "2", "min_digits": "1", "max_digits": "1"})
    train, test = (
        {task.environment(split, index).reset().text for index in range(100)}  # type: ignore[arg-type]
        for split in ("train", "test")
    )
    assert len(train) > 30 and test and not train & test


def test_text_that_breaks_the_scorer_is_worth_nothing() -> None:
    step = from_spec("prime_factorization", {}).environment("train", 0).step("no idea")
    assert (step.reward, step.done, step.success) == (0.0, True, False)


@pytest.mark.parametrize(
    ("argument", "options", "message"),
    [
        (None, {}, "needs a dataset"),
        ("chain_sun", {}, "did you mean 'chain_sum'"),
        ("chain_sum", {"min_term": "2"}, "did you mean 'min_terms'"),
        ("chain_sum", {"min_terms": "9", "max_terms": "2"}, "refuses these options"),
        ("chain_sum", {"seed": "3"}, "unknown option"),
        *((name, {}, reason) for name, reason in UNSUPPORTED.items()),
    ],
)
def test_wrong_specifications_are_refused_with_one_line(
    argument: str | None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        from_spec(argument, options)
    assert "\n" not in str(refusal.value)
