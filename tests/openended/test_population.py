"""Populations: who copies from whom, what a copy is, and whole generations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from stratagem import catalogue
from stratagem.errors import BrokenRunError, InputError
from stratagem.openended import (
    THRESHOLDS,
    Distillation,
    Grid,
    MetagameBook,
    OpenEndedTask,
    OpenEndedWorld,
    Population,
    PopulationTraining,
    ScoreBook,
    evolve,
)

UNIVERSE = OpenEndedTask(horizon=4)
LITTLE = {"sampler.prompts_per_step": 8, "optimization.epochs": 1, "optimization.minibatches": 1}
SMALL = {
    **LITTLE,
    "sampler.curriculum.proposals": 2,
    "sampler.curriculum.episodes": 2,
    "sampler.curriculum.least": 1,
}


@pytest.fixture
def population(tmp_path) -> Population:
    training = PopulationTraining(members=2, interval=1, validation=20)
    recipe = catalogue.recipe("xland")
    return Population(training, recipe, lambda seed: OpenEndedWorld(UNIVERSE, seed), tmp_path, 0, SMALL)


def _book(first: float, second: float) -> ScoreBook:
    book = ScoreBook(20)
    book.enter("0", np.full(20, first))
    book.enter("1", np.full(20, second))
    return book


def test_a_dominated_member_becomes_a_copy_with_perturbed_knobs(population):
    loser, winner = population.members
    for member in population.members:
        member.trainer.step()
    for one, other in zip(loser.world.policy.parameters(), winner.world.policy.parameters(), strict=True):
        if one.ndim > 1:
            assert not torch.equal(one, other)
    assert population.compare(_book(1.0, 2.0)) == [(0, 1)]
    for one, other in zip(loser.world.policy.parameters(), winner.world.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    mine, theirs = (member.trainer._optimizer.state_dict()["state"] for member in (loser, winner))
    assert mine.keys() == theirs.keys() and mine
    assert all(torch.equal(mine[key]["exp_avg"], theirs[key]["exp_avg"]) for key in mine)
    remembered = loser.recipe.sampler.curriculum.accepted, winner.recipe.sampler.curriculum.accepted
    assert torch.equal(*remembered)
    knobs = loser.knobs()
    assert set(knobs) == {"optimization.learning_rate", *THRESHOLDS}
    for name, value in winner.knobs().items():
        assert knobs[name] / value == pytest.approx(0.8) or knobs[name] / value == pytest.approx(1.25)
    assert loser.copied == [1] and winner.copied == []
    assert np.isfinite(loser.trainer.step()["loss"]), "it goes on learning"


def test_members_that_are_incomparable_or_equal_stay_as_they_are(population):
    for member in population.members:
        member.trainer.step()
    before = [member.knobs() for member in population.members]
    book = ScoreBook(20)
    book.enter("0", np.r_[np.full(3, 1.0), np.full(17, 0.5)])
    book.enter("1", np.r_[np.full(3, 0.2), np.full(17, 1.0)])
    for one in (book, _book(1.0, 1.0), _book(0.0, 0.0)):
        assert population.compare(one) == []
    assert [member.knobs() for member in population.members] == before


def test_thresholds_stay_at_or_below_one(population):
    winner = population.members[1].trainer
    for member in population.members:
        member.trainer.step()
    winner.recipe = winner.recipe.with_values({"sampler.curriculum.easy_share": 1.0})
    seen = set()
    for _ in range(6):
        population.round += 1
        population.compare(_book(1.0, 2.0))
        seen.add(round(population.members[0].knobs()["sampler.curriculum.easy_share"], 3))
    assert seen <= {0.8, 1.0} and len(seen) == 2


def test_rounds_say_what_was_learned_and_count_all_steps(population):
    rows = []
    population.advance(2, lambda number, row: rows.append(row))
    # 8 episodes of a batch, and 2 x 2 x 2 trials.
    assert population.steps == rows[-1]["steps"] == 2 * 2 * (8 + 8) * 4
    assert [row["round"] for row in rows] == [1, 2] and len(rows[0]["knobs"]) == 2
    assert population.best(_book(1.0, 2.0)) == 1


def test_a_recipe_without_thresholds_has_its_learning_rate_for_a_knob(tmp_path):
    training = PopulationTraining(members=1, interval=1, validation=10)
    ppo = catalogue.recipe("ppo")
    alone = Population(training, ppo, lambda seed: OpenEndedWorld(UNIVERSE, seed), tmp_path, 0, LITTLE)
    alone.advance(1)
    assert set(alone.members[0].knobs()) == {"optimization.learning_rate"}


def test_generations_are_taught_and_tested(tmp_path):
    found = evolve(
        "xland",
        "openended:grid,horizon=4",
        generations=2,
        rounds=1,
        training=PopulationTraining(members=2, interval=1, validation=20),
        distillation=Distillation(steps=40, tasks=32),
        tests=30,
        values=SMALL,
        out=tmp_path / "run",
    )
    assert set(found.book.raw) == {"generation-1", "generation-2", "random"}
    assert np.isnan(found.divergence[0]) and found.divergence[1] < 0.05
    assert found.steps[1] > found.steps[0], "teaching costs steps"
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert [row["agent"] for row in results] == ["generation-1", "random", "generation-2"]
    assert len(results[0]["curve"]) == 51 and (tmp_path / "run" / "policy" / "policy.json").is_file()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(found.history) and [row["generation"] for row in rows] == [1, 2]
    assert "xland evolved on openended:grid,horizon=4" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(InputError, match="name another with --out"):
        evolve("xland", "openended:grid,horizon=4", out=tmp_path / "run")


def test_an_interrupted_run_keeps_the_generations_that_are_done(tmp_path):
    def interrupt(generation, row):
        if generation == 2:
            raise KeyboardInterrupt

    few = PopulationTraining(members=1, interval=1, validation=10)
    sizes = {"rounds": 1, "training": few, "tests": 10, "values": LITTLE, "progress": interrupt}
    with pytest.raises(BrokenRunError, match="stopped after 1 of 3 generations"):
        evolve("ppo", "openended:grid,horizon=4", generations=3, out=tmp_path / "run", **sizes)
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert [row["agent"] for row in results] == ["generation-1", "random"]
    assert (tmp_path / "run" / "report.html").is_file()


def test_what_is_refused_can_be_started_again_in_the_same_place(tmp_path):
    with pytest.raises(InputError):
        evolve("ppo", "openended:grid,horizon=4", values={"no_such_field": 1}, out=tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


PLAYERS = OpenEndedTask(horizon=4, players=2, snapshot_every=0)


def test_members_meet_each_other_and_who_copies_knows_whom_its_model_met(tmp_path):
    training = PopulationTraining(members=3, interval=1, validation=20)
    recipe = catalogue.recipe("xland")
    population = Population(training, recipe, lambda seed: OpenEndedWorld(PLAYERS, seed), tmp_path, 0, SMALL)
    loser, winner, _ = (member.world for member in population.members)
    winner.meet("old friend", winner.policy)
    population.advance(1)
    for number, member in enumerate(population.members):
        model = member.copied[-1] if member.copied else number
        met = [f"member-{other} round-1" for other in range(3) if other != model]
        friend = ["old friend"] if model == 1 else []
        assert member.world.coplayers.names("train") == ["random", *friend, *met]
    mixed = {frozenset(agents) for agents in population.scores().raw}
    assert len(mixed) == 6, "every two members have met, and each itself"
    population.members[0].trainer.checkpoint()
    population.members[1].trainer.checkpoint()
    population.members[0].trainer.resume(population.members[1].trainer.run_directory.load())
    assert loser.coplayers.names("train") == winner.coplayers.names("train")
    seen = Grid(PLAYERS, PLAYERS.tasks("train", range(3))).observation()
    for one, other in zip(*(world.coplayers.players("train")[1:] for world in (loser, winner)), strict=True):
        assert torch.equal(one.distribution(seen), other.distribution(seen))


@pytest.mark.parametrize("players", [2, 3])
def test_generations_with_co_players_are_scored_by_their_metagame(players, tmp_path):
    found = evolve(
        "xland",
        f"openended:grid,horizon=4,side=4,players={players},snapshot_every=1",
        generations=2,
        rounds=1,
        training=PopulationTraining(members=2, interval=2, validation=10),
        distillation=Distillation(steps=40, tasks=16),
        tests=20,
        values=SMALL,
        out=tmp_path / "run",
    )
    assert isinstance(found.book, MetagameBook) and len(found.book.raw) == 3**players
    assert found.book.agents == ["generation-1", "random", "generation-2"]
    assert found.divergence[1] < 0.05
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert [row["agent"] for row in results] == found.book.agents
    first = json.loads((tmp_path / "run" / "generation-1" / "member-0" / "samples.jsonl").read_text().splitlines()[0])
    assert first["coplayers"] == ["random"] * (players - 1)
    last = tmp_path / "run" / "generation-2" / "member-0"
    met = {name for row in (last / "samples.jsonl").read_text().splitlines() for name in json.loads(row)["coplayers"]}
    assert met <= {"random", "generation-1", "step-1"}
    # Two members, two batches of 8 episodes and 8 trials each, 4 steps: a step counts once, whoever takes it.
    assert found.steps[0] == 2 * 2 * (8 + 8) * 4 and (found.steps[1] - found.steps[0]) % (16 * 4) == 0


def test_too_many_members_to_play_each_other_are_refused_before_they_learn(tmp_path):
    training = PopulationTraining(members=17, interval=1, validation=10)
    universe = OpenEndedTask(horizon=4, players=3)
    with pytest.raises(InputError, match="17 agents in 3 seats make 4913 profiles"):
        Population(training, catalogue.recipe("ppo"), lambda seed: OpenEndedWorld(universe, seed), tmp_path, 0)
    with pytest.raises(InputError, match="21 agents in 3 seats"):
        evolve("ppo", "openended:grid,players=3", generations=20, out=tmp_path / "b")


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no universe"):
        evolve("ppo", "key_door", out=tmp_path / "a")
    with pytest.raises(InputError, match="rounds = 0"):
        evolve("ppo", "openended:grid", rounds=0, out=tmp_path / "b")
    with pytest.raises(InputError, match="population: members=0"):
        PopulationTraining(members=0)
