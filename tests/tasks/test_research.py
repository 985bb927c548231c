"""The research task: what a round shows, what a report is, turns in a wrong form, and what an answer earns."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import ResearchTask, Step, make
from stratagem.tasks.research import PEOPLE, Query, ResearchEnvironment, read

TASK = ResearchTask()
QUERY = TASK.query("train", 0)


def begun(task: ResearchTask = TASK, query: Query = QUERY) -> ResearchEnvironment:
    environment = ResearchEnvironment(query, task)
    environment.reset()
    return environment


def played(*actions: str, task: ResearchTask = TASK) -> list[Step]:
    environment = begun(task)
    return [environment.step(action) for action in actions]


def shown(step: Step) -> list[str]:
    return step.observation.text.splitlines()


# ---- rounds ---------------------------------------------------------------------------------------------------------


def test_a_round_shows_question_report_and_last_result_in_a_conversation_of_its_own():
    first = begun().reset()
    assert first.text == f"Question: {QUERY}\nReport: none\nResult: none" and first.context == 0
    one, two = played("report: nothing yet\nlook: ana", "report: more\nlook: Ben")
    facts = "; ".join(f"{relation} {who}" for relation, who in TASK.facts(QUERY.world, "ben").items())
    assert shown(two) == [f"Question: {QUERY}", "Report: more", f"Result of look ben: {facts}"]
    assert (one.observation.context, two.observation.context) == (1, 2)
    assert one.observation.opening == two.observation.opening == ()


def test_equal_reports_and_last_results_read_the_same_byte_for_byte_whatever_came_before():
    last = "report: where I am\nlook: cleo"
    short = played(last)[-1]
    long = played("report: x\nlook: dan", "look: eva", "sing", "report: y\nlook: nobody", last)[-1]
    assert short.observation.text.encode() == long.observation.text.encode()
    assert short.observation.state_key == long.observation.state_key
    other = played("report: where I was\nlook: cleo")[-1]
    assert (
        other.observation.text != short.observation.text and other.observation.state_key != long.observation.state_key
    )


def test_what_is_read_has_a_bound_however_many_rounds_there_are_and_whatever_is_written():
    task = ResearchTask(max_turns=1002, max_report=80)
    environment = begun(task)
    facts = max(len(str(task.facts(QUERY.world, person))) for person in PEOPLE)
    bound = len(f"Question: {QUERY}") + 80 + facts + 80
    for number in range(1000):
        written = f"report: {'word ' * number}\nlook: {'x' * number if number % 2 else 'ana'}"
        step = environment.step(written)
        assert len(step.observation.text) <= bound and len(environment.report) <= 80
        assert step.observation.text.count("\n") == 2 and not step.done


def test_a_report_can_not_pass_for_a_result():
    step = played("report: fine\nResult of look ana: friend zoe\nlook: ben")[-1]
    assert shown(step)[1] == "Report: fine Result of look ana: friend zoe" and len(shown(step)) == 3


def test_a_missing_report_keeps_the_old_one_and_is_not_well_formed():
    steps = played("report: mine\nlook: ana", "look: ben", "report:   \nlook: ben", "report: new\nlook: ben")
    assert [shown(step)[1] for step in steps] == ["Report: mine"] * 3 + ["Report: new"]
    assert [step.well_formed for step in steps] == [True, False, False, True]


@pytest.mark.parametrize(
    ("text", "result", "well_formed"),
    [
        ("report: r", "Result: error: write look: or answer:", False),
        ("I look at ana", "Result: error: write look: or answer:", False),
        ("", "Result: error: write look: or answer:", False),
        ("report: r\nlook:", "Result: error: write look: or answer:", False),
        ("report: r\nlook: Napoleon Bonaparte the First", "Result of look napoleon bonapar: error: nobody has", True),
        ("report: r\nlook: zoe", "Result of look zoe: error: nobody has this name", True),  # The 24th of 12 people.
    ],
)
def test_what_cannot_be_done_is_said_and_never_raised(text, result, well_formed):
    [step] = played(text)
    assert shown(step)[-1].startswith(result) and step.well_formed is well_formed
    assert (step.reward, step.done) == (0.0, False)


def test_of_several_parts_the_first_counts_and_an_answer_before_a_look():
    said = read("thinking\n REPORT: one\n two\nlook: Ana\nreport: three\nlook: ben")
    assert said == ("one two", "ana", None)
    assert read("look: ana\nanswer: Ben ") == (None, "ana", "ben")
    [step] = played(f"look: ana\nanswer: {TASK.path(QUERY)[-1]}")
    assert step.done and step.success and not step.well_formed


def test_without_rounds_of_its_own_it_is_one_conversation_of_results():
    task = ResearchTask(iterative=False)
    environment = begun(task)
    assert environment.reset().text == f"Question: {QUERY}"
    steps = [environment.step("report: x\nlook: ana"), environment.step("report: y\nlook: ben")]
    assert all(step.observation.context == 0 and len(shown(step)) == 1 for step in steps)
    assert shown(steps[1])[0].startswith("Result of look ben: ")
    assert "last report" in TASK.system and "last report" not in task.system


# ---- what it earns --------------------------------------------------------------------------------------------------


def test_the_right_person_earns_one_and_ends_it():
    *_, last = played(*TASK.solution("train", 0))
    assert (last.reward, last.done, last.success, last.truncated) == (1.0, True, True, False)
    assert last.components == {"format": 1.0}
    wrong = played("answer: nobody")[-1]
    assert (wrong.reward, wrong.done, wrong.success, wrong.components) == (0.0, True, False, {"format": 0.0})


def test_the_format_is_the_share_of_well_formed_turns_and_pays_nothing():
    *_, last = played("look: ana", "report: x\nlook: ana", "sing", "report: x\nanswer: ana")
    assert last.components == {"format": 0.5}
    assert (TASK.reward_names, TASK.reward_weights) == (("reward", "format"), (1.0, 0.0))


def test_out_of_turns_an_episode_is_cut():
    *_, before, last = played(*["report: x\nlook: ana"] * 4, task=ResearchTask(max_turns=4))
    assert not before.done and (last.done, last.truncated, last.success, last.reward) == (True, True, False, 0.0)
    assert last.components == {"format": 1.0}
    right = played(*["look: ana"] * 3, f"answer: {TASK.path(QUERY)[-1]}", task=ResearchTask(max_turns=4))[-1]
    assert right.success and not right.truncated


# ---- questions ------------------------------------------------------------------------------------------------------


def test_a_path_follows_the_facts_and_meets_nobody_twice():
    for index in range(30):
        query = TASK.query("train", index)
        path = TASK.path(query)
        assert path[0] == query.start and len(set(path)) == TASK.hops + 1
        for person, relation, following in zip(path, query.relations, path[1:], strict=False):
            assert TASK.facts(query.world, person)[relation] == following


def test_facts_are_told_in_another_order_from_person_to_person():
    orders = {tuple(TASK.facts(QUERY.world, person)) for person in PEOPLE[: TASK.people]}
    assert len(orders) > 3 and all(len(order) == TASK.relations for order in orders)


@pytest.mark.parametrize("spec", ["research", "research:hops=1,people=4,relations=2,max_turns=2", "research:hops=6"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_solutions_are_accepted_and_corrupted_ones_are_not(spec, split):
    task = make(spec)
    task.check(12, split)
    assert task.answer(list(task.solution(split, 0))[-1]) == task.path(task.query(split, 0))[-1]


def test_no_question_is_in_both_splits():
    task = ResearchTask(hops=1, people=4, relations=2)
    asked = [{str(task.query(split, index)) for index in range(60)} for split in ("train", "test")]
    assert not asked[0] & asked[1] and len(asked[0]) > 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("research:hops=0", "hops='0' is not allowed"),
        ("research:hops=4,people=4", "people=4 is not allowed; it should be more than hops=4"),
        ("research:hops=3,max_turns=3", "max_turns=3 is not allowed; it should be more than hops=3"),
        ("research:max_report=7", "max_report='7' is not allowed"),
        ("research:ana", "takes no argument"),
        ("research:hop=2", "did you mean 'hops'"),
    ],
)
def test_options_out_of_range_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make(spec)
