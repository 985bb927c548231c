"""Experts behind text: names, what a call is told and costs, the format of a transcript, and the task built on them."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from stratagem.errors import InputError
from stratagem.tasks import ExpertRegistry, ExpertsTask, Model, Skill, make
from stratagem.tasks.experts import EXPERT_ERROR, NAME_ERROR, Call, read_call, well_formed
from stratagem.tasks.orchestration import ACCURACY, DOMAINS, KINDS, ExpertsEnvironment, Question, SimulatedExpert
from stratagem.watched import Watch

MODELS = (Model("A", "knows", 0.5, aliases=("alpha",)), Model("Bert", "guesses"))
SKILLS = (Skill("s1", "first", "does one thing"), Skill("s2", "second", "does another"))


class Flaky:
    """Fails so many times, then echoes."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def __call__(self, text: str) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise TimeoutError("too slow")
        return text


def registry(expert=str.upper, **options) -> ExpertRegistry:
    return ExpertRegistry(MODELS, SKILLS, {("A", "s1"): expert, ("A", "s2"): expert, ("Bert", "s1"): expert}, **options)


# ---- calls ----------------------------------------------------------------------------------------------------------


def test_a_call_is_split_at_the_first_colon_behind_the_models_name():
    assert read_call(" A@@s1: at 10:30: what? ") == Call("A", "s1", "at 10:30: what?")
    assert read_call("A:1@@s1:q") == Call("A:1", "s1", "q")
    assert read_call("A@@s1 q") is read_call("A: q") is read_call("") is None


def test_names_are_looked_up_as_written_then_among_aliases_and_fuzzily_only_on_request():
    def find(name, **options):
        return registry(**options).find(Call(name, "s1", "q"))

    assert find("A") == find("alpha") == ("A", "s1")
    assert find("a") is find("ber") is find("Alpha") is find("") is None
    assert find("ber", fuzzy=True) == ("Bert", "s1")
    # Part of a name and of an alias of another: nobody is meant. So is an empty name.
    assert find("", fuzzy=True) is None
    both = ExpertRegistry((Model("Ann", ""), Model("Anna", "")), SKILLS, {("Ann", "s1"): str}, fuzzy=True)
    assert both.find(Call("ann", "s1", "")) is None and both.find(Call("Ann", "s1", "")) == ("Ann", "s1")


def test_what_is_not_there_is_a_name_error_and_so_is_a_skill_the_model_lacks():
    for call in (Call("C", "s1", "q"), Call("A", "s3", "q"), Call("Bert", "s2", "q")):
        assert registry().ask(call) == (NAME_ERROR, 0.0, False)


def test_an_output_is_cut_to_its_last_characters_and_paid_for_as_a_whole():
    told = registry(lambda text: "start " + "x" * 1000, tokens=len).ask(Call("A", "s1", "q"))
    assert told == ("x" * 1000, 0.5 * 1006, True)
    assert registry().ask(Call("A", "s1", "two words")) == ("TWO WORDS", 1.0, True)
    assert registry().ask(Call("Bert", "s1", "free")).cost == 0


def test_an_expert_that_fails_is_asked_twice_more():
    assert registry(Flaky(2)).ask(Call("A", "s1", "q")).text == "q"
    failing = Flaky(3)
    assert registry(failing).ask(Call("A", "s1", "q")) == (EXPERT_ERROR, 0.0, False)
    assert failing.failures == 0
    assert registry(Flaky(1), retries=0).ask(Call("A", "s1", "q")).text == EXPERT_ERROR


def test_an_expert_that_hangs_costs_its_own_episode_and_no_other():
    released = threading.Event()
    watch = Watch(0.1)
    calls = [
        partial(ExpertsEnvironment(Question("s1", "?", "Q"), registry(expert)).step, "<search>A@@s1: q</search>")
        for expert in (lambda text: str(released.wait(5)), str.upper)
    ]
    hung, fine = watch.run(calls)
    released.set()
    watch.close()
    assert hung.hung and fine.value is not None
    assert fine.value.observation.text == "<information>Q</information>"


def test_the_text_of_a_registry_tells_cards_domains_and_who_has_a_skill():
    assert registry().text.splitlines() == [
        "Models:",
        "- A: knows",
        "- Bert: guesses",
        "Skills:",
        "- first",
        "  - s1: does one thing",
        "- second",
        "  - s2: does another (A)",
    ]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ExpertRegistry((*MODELS, Model("alpha", "")), SKILLS, {}), "model 'alpha' is there twice"),
        (lambda: ExpertRegistry(MODELS, SKILLS, {("A", "s9"): str}), "A@@s9 must be of a listed"),
        (lambda: registry(retries=-1), "retries = -1"),
        (lambda: registry(longest=0), "longest = 0"),
        (lambda: Model("a@@b", ""), "must not be empty, hold '@@'"),
        (lambda: Skill("a:b", "", ""), "hold ':'"),
        (lambda: Skill("", "", ""), "must not be empty"),
        (lambda: Model("a", "", price=-1), "price = -1"),
    ],
)
def test_registries_that_cannot_be_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


# ---- format ---------------------------------------------------------------------------------------------------------

GOOD = "<search>A@@s1: q</search><information>x</information><answer>3</answer>"


@pytest.mark.parametrize(
    ("transcript", "formed"),
    [
        (GOOD, True),
        (f"so <think>a</think> {GOOD} done", True),
        (f"opened in the prompt</think>{GOOD}", True),
        (f"{GOOD}<answer>3</answer>", False),
        ("<answer>3</answer>", False),
        ("", False),
        (GOOD.replace("s1: q", ": q"), False),
        (GOOD.replace("s1: q", "s1:"), False),
        (GOOD.replace("s1", "s3"), False),
        (GOOD.replace("A@@", "C@@"), False),
        (GOOD.replace("@@", " "), False),
        (GOOD.replace("</information>", ""), False),
        (GOOD.replace("<information>", ""), False),
        (GOOD.replace("<answer>", ""), False),
        (GOOD.replace(": q", ": your input"), False),
        (GOOD.replace(">3<", ">...<"), False),
        (f"<think>{GOOD}</think>", False),
        ("<search>A@@s1: q</search><information>x</information>", False),
    ],
)
def test_the_format_of_a_transcript(transcript, formed):
    assert well_formed(transcript, registry()) is formed


def test_an_answer_without_a_call_is_well_formed_where_none_is_required():
    assert well_formed("<answer>3</answer>", registry(), require_call=False)
    assert not well_formed("<search>C@@s1: q</search><answer>3</answer>", registry(), require_call=False)


# ---- episodes -------------------------------------------------------------------------------------------------------


def played(*actions: str, **options):
    environment = ExpertsEnvironment(Question("s1", "?", "Q"), registry(), **options)
    environment.reset()
    return [environment.step(action) for action in actions]


CALL = "<search>A@@s1: q</search>"


@pytest.mark.parametrize(
    ("actions", "reward", "formed"),
    [
        ([CALL, "<answer>Q</answer>"], 1, 1),
        ([CALL, "<answer>R</answer>"], 0, 1),
        (["<answer>Q</answer>"], 1, 0),
        ([CALL, "<answer>Q</answer><answer>R</answer>"], 1, 0),
        ([f"{CALL}<answer>Q</answer>", "<answer>Q</answer>"], 1, 0),
        (["<search>C@@s1: q</search>", "<answer>Q</answer>"], 1, 0),
        # A policy that writes information itself, or opens a tag in one turn and closes it in the next.
        ([f"{CALL}<information>Q</information>", "<answer>Q</answer>"], 1, 0),
        ([CALL, "<answer>", "</answer>", "<answer>Q</answer>"], 1, 0),
    ],
)
def test_the_answer_pays_and_the_format_is_noted(actions, reward, formed):
    *_, last = played(*actions)
    assert (last.reward, last.success, last.done, last.truncated) == (reward, bool(reward), True, False)
    assert last.components["format"] == formed
    assert list(last.components) == list(ExpertsTask.reward_names[1:])


def test_calls_errors_and_costs_are_counted():
    *_, last = played(CALL, CALL, "<search>nobody</search>", "<answer>Q</answer>")
    assert last.components == {"format": 0, "calls": 2, "errors": 1, "cost": 1.0}


def test_turns_are_answered_with_information_or_with_what_to_write():
    first, second, third = played(CALL, "hm", "<search>C@@s1: q</search>")
    assert first.observation.text == "<information>Q</information>"
    assert second.observation.text.startswith("error: write <search>")
    assert third.observation.text == f"<information>{NAME_ERROR}</information>"
    assert len({step.observation.state_key for step in (first, second, third)}) == 3


def test_an_episode_without_an_answer_runs_out_of_turns_and_of_format():
    *_, last = played(*[CALL] * 4)
    assert (last.done, last.truncated, last.reward, last.components["format"]) == (True, True, 0, 0)
    assert last.components["calls"] == 4


# ---- the task -------------------------------------------------------------------------------------------------------


def test_the_task_proves_its_verifier():
    assert make("experts").check(24).corruptions_rejected == 24
    assert make("experts:max_turns=2,require_call=false,newcomer=true").check(12, "test").solutions_accepted == 12


def test_a_solution_is_well_formed():
    task = ExpertsTask()
    for index in range(len(KINDS)):
        environment = task.environment("train", index)
        environment.reset()
        *_, last = [environment.step(action) for action in task.solution("train", index)]
        assert last.components["format"] == 1 and last.components["calls"] == 1 and last.components["cost"] > 0


@pytest.mark.parametrize(
    ("skill", "text", "answer"),
    [
        ("multiply", "what is 384*972?", "373248"),
        ("divide", "What is the remainder of 3841 divided by 97?", "58"),
        ("reverse", "Write planet backwards.", "tenalp"),
        ("sort", "Sort the letters of planet.", "aelnpt"),
        ("weekday", "Which day is 100 days after tuesday?", "Thursday"),
        ("month", "Which month is 31 months after March?", "October"),
    ],
)
def test_experts_solve_the_questions_of_their_skill_and_can_err(skill, text, answer):
    assert SimulatedExpert("A", skill, 1.0)(f"Please: {text}") == f"The answer is {answer}."
    wrong = SimulatedExpert("A", skill, 0.0)(text)
    assert wrong.startswith("The answer is ") and answer not in wrong
    assert SimulatedExpert("A", skill, 1.0)("Who?") == f"{skill}: no question of this kind"


def test_an_expert_is_right_as_often_as_its_accuracy_says_and_keeps_to_its_word():
    expert = SimulatedExpert("A", "multiply", 0.7, seed=1000)
    right = [f" {n * 13}." in expert(f"{n}*13") for n in range(2000)]
    assert sum(right) / 2000 == pytest.approx(0.7, abs=0.04)
    assert [expert(f"again, {n} * 13") for n in range(20)] == [expert(f"{n}*13") for n in range(20)]
    other = SimulatedExpert("A", "multiply", 0.7, seed=1001)
    assert [f" {n * 13}." in other(f"{n}*13") for n in range(2000)] != right


def test_the_registry_has_two_tiers_and_the_newcomer_only_on_request():
    task = ExpertsTask()
    assert [skill.name for skill in task.registry().skills_of("words")] == ["reverse", "sort"]
    assert len(task.registry().experts) == len(ACCURACY) * len(KINDS)
    assert "Polyglot" not in task.system and "words 0.95" in ExpertsTask(newcomer=True).system
    assert {kind.domain for kind in KINDS.values()} == set(DOMAINS)


def test_an_answer_is_what_its_tag_holds():
    assert ExpertsTask().answer("<think>a</think><answer> Lima. </answer>") == "lima"
    assert (
        ExpertsTask().answer(CALL) is ExpertsTask().answer("Lima") is ExpertsTask().answer("<answer></answer>") is None
    )


def test_no_test_question_is_a_train_question():
    texts = [{ExpertsTask().question(split, index).text for index in range(120)} for split in ("train", "test")]
    assert not texts[0] & texts[1]


@pytest.mark.parametrize("options", ["max_turns=1", "seed=x", "models=3"])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="experts"):
        make(f"experts:{options}")
