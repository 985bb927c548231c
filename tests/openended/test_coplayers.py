"""Co-players: the pool, who is met in which task, one call for each, snapshots and their exact resume."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from stratagem import catalogue, resume, train
from stratagem.errors import InputError
from stratagem.openended import CoPlayers, GoalPolicy, Grid, OpenEndedTask, OpenEndedWorld, RandomPlayer, Shape, played
from stratagem.sampling import ProbedTasks, Rollouts
from stratagem.seeding import generator
from stratagem.training.loop import Interrupted, Settings, Trainer
from stratagem.training.run_directory import RunDirectory
from stratagem.training.world import PROBED

UNIVERSE = OpenEndedTask(horizon=5, players=2, snapshot_every=2, snapshots=3)
SAMPLER = Rollouts(prompts_per_step=6, group_size=2)


class Recorder(RandomPlayer):
    """Plays at random and notes how many seats it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def draw(self, observation, source):
        self.asked.append(len(observation))
        return super().draw(observation, source)


def _policy(seed: int, universe: OpenEndedTask = UNIVERSE, width: int = 64) -> GoalPolicy:
    shape = Shape.of(universe)
    return GoalPolicy(Shape(shape.state, shape.option, shape.options, width=width), seed)


def _saved(folder, *names: str, universe: OpenEndedTask = UNIVERSE) -> str:
    for number, name in enumerate(names):
        _policy(number, universe).save(folder / name, "# card\n")
    return str(folder)


def test_every_player_acts_by_one_call_a_step_for_all_its_seats():
    players, numbers = [Recorder(), Recorder(), Recorder()], range(30)
    seated = torch.randint(3, (30, 3), generator=generator(0))
    universe = OpenEndedTask(horizon=4, players=3)
    payoffs = played(universe, universe.tasks("train", numbers), players, seated, generator(1))
    assert payoffs.shape == (30, 3) and payoffs.min() >= 0 and payoffs.max() <= 1
    assert [player.asked for player in players] == [[int((seated == number).sum())] * 4 for number in range(3)]


def test_who_sits_in_a_seat_follows_from_the_number_of_the_task_and_from_the_pool():
    pool = CoPlayers(OpenEndedTask(players=3))
    for seed in range(3):
        pool.remember(f"step-{seed}", _policy(seed, OpenEndedTask(players=3)))
    assert pool.names("train") == ["random", "step-0", "step-1", "step-2"] and pool.names("test") == ["random"]
    all_tasks = pool.seated("train", range(400))
    assert torch.equal(all_tasks[[9, 5]], pool.seated("train", [9, 5])), "in any company"
    assert torch.bincount(all_tasks[:, 0], minlength=4).min() > 70
    assert (all_tasks[:, 0] != all_tasks[:, 1]).any() and (pool.seated("test", range(9)) == 0).all()


def test_a_task_keeps_its_co_player_unless_a_new_one_takes_over_or_that_one_is_forgotten():
    pool = CoPlayers(UNIVERSE)
    before = _met(pool)
    for step in range(5):
        pool.remember(f"step-{step}", _policy(step))
        after, names = _met(pool), pool.names("train")
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert all(new == f"step-{step}" or old not in names for old, new in changed)
        assert 0.5 / len(names) < sum(new == f"step-{step}" for new in after) / len(after) < 1.5 / len(names)
        before = after


def _met(pool: CoPlayers) -> list[str]:
    return [pool.names("train")[int(number)] for number in pool.seated("train", range(400))[:, 0]]


def test_the_oldest_of_those_remembered_are_forgotten_and_the_frozen_stay():
    pool, policy = CoPlayers(UNIVERSE), _policy(0)
    pool.keep("teacher", policy)
    for step in range(5):
        pool.remember(f"step-{step}", policy)
    assert pool.names("train") == ["random", "teacher", "step-2", "step-3", "step-4"]
    assert pool.names("test") == ["random", "teacher"]
    before = pool.frozen["teacher"].act.weight.clone()
    with torch.no_grad():
        policy.act.weight.add_(1)
    assert torch.equal(pool.frozen["teacher"].act.weight, before), "they are as they were"


def test_a_pool_is_saved_whole_with_policies_of_any_width():
    pool, again = CoPlayers(UNIVERSE), CoPlayers(UNIVERSE)
    pool.keep("teacher", _policy(0, width=8))
    pool.remember("step-2", _policy(1))
    again.remember("other", _policy(2))
    again.load_state_dict(*pool.state_dict())
    assert again.names("train") == ["random", "teacher", "step-2"] and again.frozen["teacher"].shape.width == 8
    seen = Grid(UNIVERSE, UNIVERSE.tasks("train", range(4))).observation()
    for one, other in zip(pool.players("train")[1:], again.players("train")[1:], strict=True):
        assert torch.equal(one.distribution(seen), other.distribution(seen))


@pytest.mark.parametrize(("inside", "expected"), [(("",), 1), (("model",), 1), (("policy",), 1), (("one", "two"), 2)])
def test_frozen_policies_are_read_from_a_policy_a_run_or_a_folder_of_policies(tmp_path, inside, expected):
    pool = CoPlayers(OpenEndedTask(players=2, coplayers=_saved(tmp_path / "old", *inside)))
    assert len(pool.frozen) == expected and pool.names("test") == ["random", *pool.frozen]


def test_folders_that_hold_no_fitting_policy_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="no saved policy, neither there nor"):
        CoPlayers(OpenEndedTask(players=2, coplayers=str(tmp_path)))
    folder = _saved(tmp_path / "other", "one", universe=OpenEndedTask(players=3))
    with pytest.raises(InputError, match=r"co-player .*one: task .* needs a policy with") as refused:
        CoPlayers(OpenEndedTask(players=2, coplayers=folder))
    assert "\n" not in str(refused.value)


def test_a_batch_holds_what_happened_in_the_learners_seat():
    world = OpenEndedWorld(UNIVERSE, 0)
    x = world.collect(SAMPLER, 0).x
    assert (x.groups, x.trajectories, x.tokens) == (6, 12, 60)
    torch.testing.assert_close(world.policy(x).logp, x.behavior_logp)
    first = Grid(UNIVERSE, UNIVERSE.tasks("train", range(6))).observation().view(6, 2, -1)
    seen = x.inputs.observation.view(6, 2, 5, -1)
    assert torch.equal(seen[:, 0, 0], first[:, 0]) and torch.equal(seen[:, 1, 0], first[:, 0])
    assert torch.equal(x.turn_reward.view(12, 5).sum(1), x.returns)


def test_trials_and_episodes_of_a_task_are_against_the_same_players():
    world, recorder = OpenEndedWorld(UNIVERSE, 0), Recorder()
    world.coplayers.frozen["recorder"] = recorder  # type: ignore[assignment]
    among = [int(number) for number in (world.coplayers.seated("train", range(40)) == 1).nonzero()[:, 0]]
    for policy in (None, world.policy):
        recorder.asked.clear()
        world.scores("train", range(40), 3, generator(0), policy, generator(1))
        assert recorder.asked == [3 * len(among)] * 5
    recorder.asked.clear()
    world.scores("train", among, 1, generator(0), None, generator(1))
    assert recorder.asked == [len(among)] * 5, "also when asked about alone"


def test_the_policy_joins_the_pool_every_so_many_batches_as_it_is_then():
    world = OpenEndedWorld(UNIVERSE, 0)
    sampler = SAMPLER.replace(curriculum=ProbedTasks(proposals=2, episodes=2, least=1))
    names = []
    for step in range(9):
        with torch.no_grad():
            world.policy.act.bias.fill_(step)
        world.serve(step)
        found = world.collect(sampler, step)
        names.append(world.coplayers.names("train")[1:])
        assert found.metrics["coplayers"] == 1 + len(names[-1])
        assert found.tokens == 60 + 2 * 2 * 2 * 5, "a step is counted once, whoever takes it"
        assert {"coplayers", "goals of coplayers"} <= set(found.samples[0])
    assert names[1] == [] and names[2] == names[3] == ["step-2"]
    assert names[8] == ["step-4", "step-6", "step-8"]
    assert [float(policy.act.bias[0]) for policy in world.coplayers.recent.values()] == [4, 6, 8]
    world.collect(SAMPLER, PROBED + 10)
    assert world.coplayers.names("train")[1:] == names[8], "what is measured aside leaves the pool alone"


def test_without_snapshots_the_pool_stays_as_it_is():
    world = OpenEndedWorld(OpenEndedTask(horizon=5, players=2, snapshot_every=0), 0)
    for step in range(12):
        world.collect(SAMPLER, step)
    assert world.coplayers.names("train") == ["random"]


def test_the_same_seed_collects_the_same_and_state_resumes_it():
    one, other = OpenEndedWorld(UNIVERSE, 4), OpenEndedWorld(UNIVERSE, 4)
    one.meet("somebody", _policy(3))
    for step in range(3):
        one.collect(SAMPLER, step)
    other.load_state_dict(*one.state_dict())
    first, second = (world.collect(SAMPLER, 3).x for world in (one, other))
    assert torch.equal(first.action, second.action) and torch.equal(first.turn_reward, second.turn_reward)
    assert (one.held_out(range(20)) == other.held_out(range(20))).all()


def _figures(folder) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name[:6] not in ("timing", "memory")} for row in rows]


def test_a_run_with_a_pool_resumes_exactly(tmp_path):
    frozen = _saved(tmp_path / "frozen", "one")
    task = f"openended:grid,horizon=5,players=2,snapshot_every=1,snapshots=2,coplayers={frozen}"
    values = {"sampler.prompts_per_step": 8, "sampler.curriculum.proposals": 2, "sampler.curriculum.episodes": 2}
    asked = {"values": values, "seed": 3, "evaluation_episodes": 4}
    train("xland", task, steps=5, out=tmp_path / "whole", **asked)
    train("xland", task, steps=3, out=tmp_path / "cut", **asked)
    resume(tmp_path / "cut", steps=5)
    whole, cut = _figures(tmp_path / "whole"), _figures(tmp_path / "cut")
    assert whole == cut and [row["coplayers"] for row in whole] == [2, 3, 4, 4, 4]


def _trainer(folder) -> tuple[Trainer, OpenEndedWorld]:
    world = OpenEndedWorld(replace(UNIVERSE, snapshot_every=1), 5)
    recipe = world.adapt(catalogue.recipe("ppo")).with_values({"sampler.prompts_per_step": 8})
    run = RunDirectory.create(folder)
    return Trainer(recipe, world, run, Settings(steps=4, seed=5, evaluation_episodes=0)), world


def test_a_run_stopped_in_the_middle_of_a_batch_goes_on_with_the_same_pool(tmp_path):
    whole, unbroken = _trainer(tmp_path / "whole")
    for _ in range(4):
        whole.step()
    first, _ = _trainer(tmp_path / "cut")
    first.step()
    first.step()
    first.stop()
    with pytest.raises(Interrupted):
        first.step()  # collected with the snapshot that was taken for it, and one update learned
    again, resumed = _trainer(tmp_path / "cut")
    again.resume(first.run_directory.load())
    assert resumed.coplayers.names("train") == ["random", "step-1", "step-2"]
    again.step()
    again.step()
    assert _figures(tmp_path / "whole") == _figures(tmp_path / "cut")
    pools = [world.coplayers.state_dict() for world in (unbroken, resumed)]
    assert pools[0][1] == pools[1][1] and [name for name, _ in pools[0][1]["recent"]] == ["step-1", "step-2", "step-3"]
    assert all(torch.equal(value, pools[1][0][name]) for name, value in pools[0][0].items())


@pytest.mark.slow
def test_a_policy_learns_to_chase_those_it_meets(tmp_path):
    task = "openended:grid,players=2,probe=chase,side=5,horizon=16,objects=1,options=1,atoms=1,walls=0,snapshot_every=5"
    found = train("ppo", task, steps=20, out=tmp_path / "run", seed=1, evaluation_episodes=200)
    before, after = found.first_and_last("sampled")
    assert after["mean_return"] > 2 * before["mean_return"]
