"""Pools of environments that come and go, the task that trains on them, and the two roles that take turns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch

from stratagem import catalogue
from stratagem.claims.reasoning.evolving import CHOICES, FOLDS, KINDS, NAMES, program_of, stock
from stratagem.errors import InputError
from stratagem.synthesis import (
    Contract,
    EnvironmentPool,
    EnvironmentsTask,
    EnvironmentSynthesis,
    Gates,
    Instance,
    Member,
    Program,
    ProgramError,
    Rate,
    Verdict,
    measured,
    seed_programs,
    writing_prompt,
)
from stratagem.synthesis.gates import Measure
from stratagem.tasks import make

pytestmark = pytest.mark.filterwarnings("ignore:programs a policy writes")

ONE, TWO, THREE, FOUR = list(seed_programs().values())[:4]


def measure_of(odds: dict[tuple[Program, int], float], asked: list[tuple[Program, int]] | None = None) -> Measure:
    def measure(program: Program, level: int) -> Rate:
        if asked is not None:
            asked.append((program, level))
        return Rate(100 * odds[program, level], 100)

    return measure


def accepted(program: Program, right: float = 50) -> Verdict:
    passed = Contract(levels=2, seeds=4, seconds=1).judge(program, program.trace((1, 2), range(4)))
    return Verdict(program, passed.trace, ("text",), levels=(1, 2), level=2, rate=Rate(right, 100))


# ---- the pool --------------------------------------------------------------------------------------------------------


def test_what_is_solved_too_often_leaves_and_what_was_written_by_hand_stays() -> None:
    pool = EnvironmentPool([Member(ONE, highest=1, seed=True), Member(TWO, highest=1), Member(THREE, highest=1)])
    gone = pool.rotate(measure_of({(ONE, 1): 0.96, (TWO, 1): 0.96, (THREE, 1): 0.95}))
    assert [one.program for one in gone] == [TWO]
    assert [one.program for one in pool.members] == [ONE, THREE]
    assert pool.members[0].rate == Rate(96, 100)


def test_what_is_never_solved_leaves() -> None:
    pool = EnvironmentPool([Member(ONE, highest=1), Member(TWO, highest=1)])
    gone = pool.rotate(measure_of({(ONE, 1): 0.01, (TWO, 1): 0.02}))
    assert [one.program for one in gone] == [ONE]


def test_a_level_is_moved_before_anything_is_retired() -> None:
    asked: list[tuple[Program, int]] = []
    pool = EnvironmentPool([Member(ONE, 2, 5), Member(TWO, 3, 5), Member(THREE, 2, 5)])
    odds = {(ONE, 2): 1.0, (ONE, 3): 0.97, (ONE, 4): 0.6, (TWO, 3): 0.0, (TWO, 2): 0.3, (THREE, 2): 0.5}
    assert pool.rotate(measure_of(odds, asked)) == []
    assert [(one.level, one.right) for one in pool.members] == [(4, 60), (2, 30), (2, 50)]
    assert asked == list(odds)


def test_an_environment_that_fails_when_it_is_measured_is_retired() -> None:
    def measure(program: Program, level: int) -> Rate:
        raise ProgramError("gone")

    pool = EnvironmentPool([Member(ONE, seed=True), Member(TWO)])
    assert [one.program for one in pool.rotate(measure)] == [TWO]
    assert len(pool) == 1


def test_a_pool_is_not_emptied_by_rotation() -> None:
    pool = EnvironmentPool([Member(ONE, 1, 1), Member(TWO, 1, 1), Member(THREE, 1, 1)])
    gone = pool.rotate(measure_of({(ONE, 1): 1.0, (TWO, 1): 0.97, (THREE, 1): 0.0}, []))
    assert [one.program for one in pool.members] == [TWO] and [one.program for one in gone] == [ONE, THREE]


def test_a_full_pool_gives_up_what_teaches_least() -> None:
    members = [
        Member(ONE, seed=True, right=0, tried=10),
        Member(TWO, right=9, tried=10),
        Member(THREE, right=6, tried=10),
    ]
    pool = EnvironmentPool(members, capacity=3)
    came = pool.admit([accepted(FOUR)], step=7)
    assert [one.program for one in pool.members] == [ONE, THREE, FOUR]
    assert [(one.program, one.level, one.highest, one.rate, one.step) for one in came] == [
        (FOUR, 2, 2, Rate(50, 100), 7)
    ]
    assert pool.admit([accepted(FOUR)], step=8) == []
    by_hand = EnvironmentPool([Member(ONE, seed=True)], capacity=1)
    assert by_hand.admit([accepted(FOUR)], step=0) == []
    assert len(by_hand) == 1


def test_what_was_not_admitted_does_not_come_in() -> None:
    pool = EnvironmentPool([Member(ONE)])
    pool.admit([accepted(TWO).then("difficulty", "too easy")], step=0)
    assert len(pool) == 1


def test_a_pool_is_written_and_read_and_goes_on_from_its_state(tmp_path: Path) -> None:
    pool = EnvironmentPool([Member(ONE, 2, 4, 3.0, 8, 5, seed=True), Member(TWO)], capacity=20)
    read = EnvironmentPool.load(pool.save(tmp_path / "pool.jsonl"))
    assert read.members == pool.members
    other = EnvironmentPool([Member(THREE)])
    other.load_state_dict(pool.state_dict())
    assert (other.members, other.capacity) == (pool.members, 20)


@pytest.mark.parametrize("text", ["", "x\n", "{}\n", '{"program": "", "level": 0, "highest": 1}\n', "[1]\n"])
def test_a_pool_that_cannot_be_read_says_so_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "pool.jsonl").write_text(text)
    with pytest.raises(InputError) as caught:
        EnvironmentPool.load(tmp_path / "pool.jsonl")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        EnvironmentPool.load(tmp_path / "nothing")


def test_a_pool_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(InputError, match="capacity 1 is too small for 2"):
        EnvironmentPool([Member(ONE), Member(TWO)], capacity=1)
    with pytest.raises(InputError, match="comes twice"):
        EnvironmentPool([Member(ONE), Member(ONE)])
    with pytest.raises(InputError, match="level 6"):
        Member(ONE, 6, 5)


def test_examples_follow_from_their_seed() -> None:
    pool = EnvironmentPool.of_seeds()
    assert pool.examples(3, Random(1)) == pool.examples(3, Random(1))
    assert len(set(pool.examples(99, Random(1)))) == 10


# ---- the task --------------------------------------------------------------------------------------------------------


def test_the_task_proves_its_verifier_and_keeps_splits_apart() -> None:
    task = EnvironmentsTask(EnvironmentPool([Member(ONE), Member(TWO, 2)]))
    assert task.check(4).solutions_accepted == 4
    train, test = ({task.instance(split, index)[0].prompt for index in range(32)} for split in ("train", "test"))
    assert len(train) == 32
    assert not train & test


def test_episodes_go_round_the_members_and_are_the_same_again() -> None:
    task = EnvironmentsTask(EnvironmentPool([Member(ONE), Member(TWO, 2), Member(THREE, 3)]))
    assert [task.member_of(index)[0].program for index in range(4)] == [ONE, TWO, THREE, ONE]
    assert [task.instance("train", index)[1] for index in range(3)] == [1, 2, 3]
    again = EnvironmentsTask(EnvironmentPool([Member(ONE), Member(TWO, 2), Member(THREE, 3)]))
    assert task.instance("train", 4) == again.instance("train", 4)
    assert EnvironmentsTask(task.pool, level=2).instance("train", 2)[1] == 2


def test_an_episode_is_one_answer() -> None:
    task = EnvironmentsTask(EnvironmentPool([Member(ONE)]))
    right = task.instance("train", 0)[0].reference
    for text, score in ((f"I think\nanswer: {right}", 1), (right, 1), ("answer:", 0), ("", 0), (f"{right} or so", 0)):
        environment = task.environment("train", 0)
        assert environment.reset().text == task.instance("train", 0)[0].prompt
        step = environment.step(text)
        assert (step.reward, step.done, step.success) == (score, True, bool(score))


def test_a_pool_that_changes_changes_the_episodes_to_come() -> None:
    pool = EnvironmentPool([Member(ONE, highest=1), Member(TWO, highest=1)])
    task = EnvironmentsTask(pool)
    pool.rotate(measure_of({(ONE, 1): 1.0, (TWO, 1): 0.5}))
    assert task.member_of(0)[0].program == TWO


def test_the_task_is_made_by_name(tmp_path: Path) -> None:
    assert len(make("environments").pool) == 10
    path = EnvironmentPool([Member(ONE)]).save(tmp_path / "pool.jsonl")
    task = make(f"environments:{path},level=3")
    assert (len(task.pool), task.level) == (1, 3)
    for spec in ("environments:size=3", "environments:level=-1", "environments:/no/such/file"):
        with pytest.raises(InputError) as caught:
            make(spec)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_environment_with_too_few_instances_for_a_split_says_so() -> None:
    source = ONE.source.replace("random.Random(seed)", "random.Random(0)")
    assert source != ONE.source
    task = EnvironmentsTask(EnvironmentPool([Member(Program(source))]))
    found = []
    for split in ("train", "test"):
        try:
            task.instance(split, 0)
        except InputError as error:
            found.append(str(error))
    assert len(found) == 1
    assert "too few instances" in found[0]


def test_a_measure_scores_the_answers_of_a_solver() -> None:
    def solve(program: Program, level: int, drawn: Sequence[Instance]) -> list[list[str]]:
        return [[one.reference, "no", one.reference, ""] for one in drawn]

    assert measured(solve, instances=3)(ONE, 2) == Rate(6, 12)


# ---- the roles -------------------------------------------------------------------------------------------------------


class Scripted:
    """A solver that is right as often as told and a writer that writes what it is told."""

    def __init__(self, odds: float, texts: Sequence[str]) -> None:
        self.odds, self.texts = odds, texts
        self.log: list[object] = []

    def learn(self, *what: object) -> None:
        self.log.append(what[1:] if isinstance(what[0], EnvironmentsTask) else what)

    def measure(self, instances: int, rollouts: int, seed: int) -> Measure:
        return lambda program, level: Rate(self.odds * instances * rollouts, instances * rollouts)

    def write(self, examples: Sequence[Sequence[Program]], count: int, step: int) -> list[list[str]]:
        self.log.append([len(one) for one in examples])
        return [list(islice(self.texts, count)) for _ in examples]


QUICK = EnvironmentSynthesis(Gates(Contract(levels=1, seconds=0.5)), solver_steps=10, group_size=2, partial=0.1)


def test_a_round_trains_the_solver_writes_judges_pays_and_admits() -> None:
    pool = EnvironmentPool([Member(ONE, seed=True), Member(TWO)])
    roles = Scripted(0.5, [f"Here it is:\n```python\n{THREE.source}\n```", "import os"])
    done = QUICK.round(pool, roles, roles, 0)
    assert roles.log[0] == (10, 0)
    assert roles.log[-1] == (((1.0, 0.0), (0.0, 0.0)), 10)  # the second group wrote the same again
    assert [one.program.source for one in done.admitted] == [THREE.source.rstrip()]
    assert (len(pool), done.size, done.step, done.retired) == (3, 3, 10, ())
    assert dict(done.stages) == {
        "text": 2, "execution": 0, "contract": 0, "review": 0, "novelty": 1, "difficulty": 0, "admitted": 1
    }  # fmt: skip


def test_when_all_candidates_are_rejected_the_pool_stays_as_it_is() -> None:
    pool = EnvironmentPool([Member(ONE, seed=True)])
    roles = Scripted(0.5, ["", ONE.source])
    done = QUICK.replace(prompts=1).round(pool, roles, roles, 3)
    assert done.rewards == ((0.0, 0.0),)
    assert [one.program for one in pool.members] == [ONE]
    assert roles.log[0] == (10, 30)


def test_rounds_are_the_same_again_after_the_state_of_the_pool_was_kept() -> None:
    def run(number: int, pool: EnvironmentPool) -> tuple[object, ...]:
        roles = Scripted(0.97, [THREE.source, FOUR.source])
        done = QUICK.replace(rotate_every=2).round(pool, roles, roles, number)
        return done.rewards, done.retired, pool.members, roles.log[1]

    pool = EnvironmentPool([Member(ONE, highest=1, seed=True), Member(TWO, highest=1)])
    run(0, pool)
    state, second = pool.state_dict(), run(1, pool)
    assert TWO in [one.program for one in second[1]]  # rotated in the second of two rounds
    assert pool.members[0].program == ONE
    other = EnvironmentPool([Member(FOUR)])
    other.load_state_dict(state)
    assert run(1, other) == second


def test_the_writer_is_shown_examples() -> None:
    text = writing_prompt([ONE, TWO])
    assert ONE.source.strip() in text
    assert "class Environment with generate(self, seed, level)" in text


def test_the_technique_is_in_the_catalogue() -> None:
    card = catalogue.card("evoenv")
    assert (card.arxiv, card.family, card.build) == ("2605.14392", "reasoning", EnvironmentSynthesis)
    assert EnvironmentSynthesis().pool().capacity == 200
    with pytest.raises(InputError, match="hard"):
        EnvironmentSynthesis(hard=0.9, easy=0.1)


def test_what_the_claim_trains_on_is_what_its_programs_make() -> None:
    for fold, name in enumerate(NAMES):
        drawn = program_of(fold).instances([(seed, 2) for seed in range(20)])
        assert [str(FOLDS[name][1](one.content) % 10) for one in drawn] == [one.reference for one in drawn]
    digits = [one.content for one in program_of(3, KINDS.index("off by one")).instances([(1, 1)])]
    [off] = program_of(3, KINDS.index("off by one")).instances([(1, 1)])
    assert off.reference == str((min(digits[0]) + 1) % 10)
    assert len(CHOICES) == 48
    assert bool((stock(0, KINDS.index("always right"), 1) == 1).all())
    assert bool((stock(4, 0, 2)[:, 4] == 1).all())
    assert float(stock(4, KINDS.index("off by one"), 2)[:, 4].sum()) == 0
    assert torch.equal(stock(2, 0, 1), stock(2, 0, 1))
