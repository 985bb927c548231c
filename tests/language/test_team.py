"""Several language policies in one run: whose weights say what, learn, act, are saved, and go on after a stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from stratagem import run
from stratagem.errors import InputError
from stratagem.language import HFEngine, Team, TeamEngine
from stratagem.language.engine import Request, WeightMismatchError
from stratagem.language.sampling import SamplingParams
from stratagem.language.team import read_models, read_role
from stratagem.language.world import LanguageWorld
from stratagem.objectives.views import ResponseOnly
from stratagem.sampling import Rollouts
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

TURNS = ((0, 0), (1, 1), (0, 0), (1, 0), (2, 2), (0, 0))
"""Role and conversation of every turn: role 1 acts in one of its own, and once in that of role 0."""


class Script(Environment):
    """Whatever is said earns by a hash; turns are those of ``TURNS``."""

    def __init__(self, index: int) -> None:
        self.index, self.turn = index, 0

    def reset(self) -> Observation:
        return self._observation()

    def step(self, action: str) -> Step:
        reward = state_key(self.index, self.turn, action) % 5 / 4
        self.turn += 1
        if self.turn == len(TURNS):
            return Step(Observation("", 0), reward, done=True, success=reward > 0.5)
        return Step(self._observation(), reward)

    def _observation(self) -> Observation:
        role, context = TURNS[self.turn]
        return Observation(f"topic {self.turn}", state_key(self.index, self.turn), role, context)


@dataclass
class Crew(Task):
    """A scripted episode of several roles."""

    name, description, max_new_tokens, max_turns = "crew", "roles take turns", 5, 9
    system = "Say something."

    def environment(self, split: Split, index: int) -> Environment:
        return Script(index)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(["topic"] * len(TURNS))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([])


@pytest.fixture
def make_team(make_policy: Callable[..., Any]) -> Callable[..., Team]:
    """``make_team(seeds)``: a team of random policies, by role; a seed in two places is one member."""

    def make(seeds: dict[int | None, int] | None = None, **options: Any) -> Team:
        seeds = {0: 0, None: 1} if seeds is None else seeds
        members = {seed: make_policy(seed, **options) for seed in dict.fromkeys(seeds.values())}
        return Team({role: members[seed] for role, seed in seeds.items()})

    return make


def world_of(team: Team, seed: int = 0) -> LanguageWorld:
    return LanguageWorld(Crew(), team, TeamEngine(team, [HFEngine(member) for member in team.members]), seed)


def rolled(team: Team, groups: int = 2, size: int = 2) -> Any:
    world = world_of(team)
    world.serve(0)
    x = world.collect(Rollouts(prompts_per_step=groups, group_size=size), 0).x
    world.close()
    return x


# ---- what a team says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [{0: 0, None: 1}, {0: 0, 1: 1, 2: 2}, {0: 1, 1: 0, 2: 1}])
def test_what_was_sampled_is_what_the_members_say(make_team, seeds):
    team = make_team(seeds)
    x = rolled(team)
    assert x.turn_role.view(4, 6).tolist() == [[role for role, _ in TURNS]] * 4
    with torch.no_grad():
        torch.testing.assert_close(team(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)
        swapped = x.select(torch.tensor([3, 0]))
        torch.testing.assert_close(team(swapped).logp, swapped.behavior_logp, atol=1e-5, rtol=1e-4)


def test_a_member_says_of_its_tokens_what_it_says_alone(make_team):
    team = make_team({0: 0, 1: 1, 2: 1})
    x = rolled(team)
    role = x.turn_of_token.spread(x.turn_role)
    also = ("entropy", "hidden_square", "top_probability")
    with torch.no_grad():
        said = team(x, temperature=0.7, also=also)
        for number, mine in enumerate((role == 0, role > 0)):
            alone = team.members[number](x, temperature=0.7, also=also)
            for name in ("logp", *also):
                torch.testing.assert_close(getattr(said, name)[mine], getattr(alone, name)[mine], atol=1e-5, rtol=1e-4)


def test_copies_of_one_model_say_together_what_it_says_alone(make_team, make_policy):
    team = Team({0: make_policy(3), 1: make_policy(3), 2: make_policy(3)})
    x = rolled(team)
    with torch.no_grad():
        torch.testing.assert_close(team(x).logp, make_policy(3)(x).logp, atol=1e-5, rtol=1e-4)


def test_a_gradient_reaches_the_member_of_the_role_and_no_other(make_team):
    team = make_team({0: 0, 1: 1, 2: 2})
    x = rolled(team)
    role = x.turn_of_token.spread(x.turn_role)
    for number, member in enumerate(team.members):
        team.zero_grad()
        team(x).logp[role == number].sum().backward()
        touched = [
            any(p.grad is not None and bool((p.grad != 0).any()) for p in m.policy_parameters()) for m in team.members
        ]
        assert touched == [m is member for m in team.members]


def test_inner_products_of_features_end_between_members(make_team):
    team = make_team({0: 0, None: 1})
    x = rolled(team)
    hidden, place = team(x, also=("hidden",)).hidden, team.places(x)
    products = hidden @ hidden.T
    assert bool((products[place == 0][:, place == 1] == 0).all()) and bool((products.diag() > 0).all())


def test_without_the_opening_a_member_still_reads_what_another_wrote_after_it(make_team, make_policy):
    """What is left out is left out for all, so that copies say together what one says alone."""
    team = Team({0: make_policy(3), None: make_policy(3)})
    x = rolled(team)
    with torch.no_grad():
        said, alone = team(x, view=ResponseOnly()).logp, make_policy(3)(x, view=ResponseOnly()).logp
    torch.testing.assert_close(said, alone, atol=1e-5, rtol=1e-4)


def test_a_frozen_team_and_a_copy_stay_what_they_were(make_team):
    team = make_team()
    x = rolled(team)
    kept = [team.frozen(), team.copy()]
    with torch.no_grad():
        before = team(x).logp
        for parameter in team.policy_parameters():
            parameter.mul_(1.1)
        assert not torch.equal(team(x).logp, before)
        for policy in kept:
            torch.testing.assert_close(policy(x).logp, before)
    assert not any(parameter.requires_grad for parameter in kept[1].parameters())


def test_with_adapters_the_reference_is_the_team_without_them(make_team):
    team = make_team(lora={"rank": 2})
    x = rolled(team)
    reference = team.frozen()
    before = reference(x).logp
    with torch.no_grad():
        for parameter in team.policy_parameters():
            parameter.add_(0.05)
        assert not torch.equal(team(x).logp, before)
    assert torch.equal(reference(x).logp, before)


# ---- who is in it ---------------------------------------------------------------------------------------------------


def test_one_policy_in_two_roles_is_one_member_with_one_name(make_team):
    team = make_team({2: 7, 0: 7, 1: 8, None: 9})
    assert len(team.members) == 3 and team.names == ["role0", "role1", "others"]
    assert [team.member_of(role) for role in (0, 1, 2, 5)] == [0, 1, 0, 2]


def test_a_role_nobody_plays_is_one_clear_line(make_team):
    with pytest.raises(InputError, match=r"nobody plays role 1, only role0; give the team a member for it"):
        rolled(make_team({0: 0}))


@pytest.mark.parametrize("seeds", [{}, {-1: 0}])
def test_a_team_needs_members_for_roles_there_can_be(make_team, seeds):
    with pytest.raises(InputError, match="needs members for roles from 0 on"):
        make_team(seeds)


def test_members_with_different_tokenizers_are_refused(make_policy, tiny_tokenizer):
    from stratagem.language.pretrain import train_tokenizer
    from stratagem.tasks.key_door import KeyDoorTask

    ours, other = make_policy(0), make_policy(1)
    other.tokenizer = train_tokenizer(KeyDoorTask(), 300, episodes=20)
    with pytest.raises(InputError, match="role0 and role1 must have one tokenizer, but theirs differ in vocabulary"):
        Team({0: ours, 1: other})


# ---- engines --------------------------------------------------------------------------------------------------------


def test_an_engine_closes_the_sessions_of_all_members(make_team):
    team = make_team()
    engines = [HFEngine(member) for member in team.members]
    engine = TeamEngine(team, engines)
    first, second = engine.open(2)
    params = SamplingParams(3)
    engine.generate([Request(first, [5, 6], 0, params, role=0), Request(second, [7], 0, params, role=1)])
    engine.generate([Request(first, [8], 1, params, role=1)])
    assert [len(one._sessions) for one in engines] == [1, 2]
    engine.close([first, second])
    assert [len(one._sessions) for one in engines] == [0, 0]
    with pytest.raises(InputError, match=f"session {first} is not open"):
        engine.generate([Request(first, [5], 0, params)])


def test_a_member_reads_what_another_wrote_in_its_conversation(make_team):
    """The second turn is what the second member samples after all of the first, read at once."""
    team = make_team()
    engine = TeamEngine(team, [HFEngine(member) for member in team.members])
    params = SamplingParams(6)
    [session] = engine.open(1)
    [first] = engine.generate([Request(session, [5, 6], 0, params, role=0)])
    [second] = engine.generate([Request(session, [8], 1, params, role=1)])
    alone = HFEngine(team.members[1])
    [other] = alone.open(1)
    [expected] = alone.generate([Request(other, [5, 6, *first.tokens, 8], 1, params)])
    assert second.tokens == expected.tokens


def test_an_engine_of_a_team_serves_nothing_else(make_team, make_policy):
    team = make_team()
    engine = TeamEngine(team, [HFEngine(member) for member in team.members])
    with pytest.raises(WeightMismatchError, match="a team of 2 was given LanguagePolicy"):
        engine.load_weights(make_policy(), 1)
    with pytest.raises(InputError, match="1 engines for 2 members"):
        TeamEngine(team, [HFEngine(team.members[0])])


# ---- learning -------------------------------------------------------------------------------------------------------


def learned(make_trainer: Any, recipe: Any, team: Team, name: str = "run", **settings: Any) -> Any:
    world = world_of(team)
    trainer = make_trainer(recipe, name, world, **settings)
    trainer.run()
    world.close()
    return trainer


def moved(team: Team, start: Team) -> list[bool]:
    """Whether each member has moved."""
    return [
        any(not torch.equal(a, b) for a, b in zip(m.policy_parameters(), s.model.parameters(), strict=True))
        for m, s in zip(team.members, start.members, strict=True)
    ]


def test_all_members_learn_and_each_gradient_is_clipped_by_its_own_norm(make_trainer, small, make_team):
    team, start = make_team(), make_team()
    norms: list[list[float]] = []

    def look(*_: Any) -> None:
        """Gradients as the optimizer finds them: afterwards they are freed."""
        norms.append([float(torch.cat([p.grad.flatten() for p in m.policy_parameters()]).norm()) for m in team.members])

    world = world_of(team)
    trainer = make_trainer(small("grpo", sampler__group_size=4, optimization__max_grad_norm=1e-3), "run", world)
    trainer._optimizer.register_step_pre_hook(look)
    trainer.run()
    world.close()
    assert moved(team, start) == [True, True]
    assert norms[-1] == pytest.approx([1e-3, 1e-3], rel=1e-3)
    row = trainer.run_directory.rows("metrics.jsonl")[-1]
    assert row["grad_norm"] == pytest.approx((row["grad_norm/member_0"] ** 2 + row["grad_norm/member_1"] ** 2) ** 0.5)


@pytest.mark.parametrize("optimizer", ["adam_w", "muon"])
def test_a_member_of_rate_0_does_not_move_and_the_others_learn_as_ever(make_trainer, small, make_team, optimizer):
    values = {"optimization": optimizer}
    frozen, free, start = make_team(), make_team(), make_team()
    recipe = small("grpo", **values)
    learned(make_trainer, recipe.with_values({"optimization.member_rates": [1.0, 0.0]}), frozen, "frozen", steps=1)
    learned(make_trainer, recipe, free, "free", steps=1)
    assert moved(frozen, start) == [True, False] and moved(free, start) == [True, True]
    for ours, theirs in zip(frozen.members[0].policy_parameters(), free.members[0].policy_parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_rates_for_more_members_than_there_are_are_refused(make_trainer, make_world, small):
    recipe = small("grpo", optimization__member_rates=[1.0, 0.0])
    with pytest.raises(InputError, match="member_rates names 2 members, but the policy has 1"):
        make_trainer(recipe, world=make_world())


@pytest.mark.parametrize(("batches", "within"), [(1, False), (1, True)])
@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_a_stopped_run_of_a_team_goes_on_exactly(
    make_trainer, small, make_team, stopped_and_resumed, name, batches, within
):
    recipe = small(name, optimization__epochs=2, optimization__member_rates=[1.0, 0.5])
    whole = learned(make_trainer, recipe, make_team(), "whole", steps=3)
    broken = make_trainer(recipe, "broken", world_of(make_team()), steps=3)
    resumed = stopped_and_resumed(broken, world_of(make_team({0: 5, None: 6})), batches, within)
    for ours, theirs in zip(resumed.policy.parameters(), whole.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    rows = [
        [{k: v for k, v in row.items() if not k.startswith(("timing", "memory"))} for row in t]
        for t in (trainer.run_directory.rows("metrics.jsonl") for trainer in (resumed, whole))
    ]
    assert rows[0] == rows[1]


# ---- files and the command line -------------------------------------------------------------------------------------


def test_a_team_is_saved_and_read_back(make_team, tmp_path):
    team = make_team({0: 0, 1: 1, 2: 0, None: 2})
    x = rolled(team)
    team.save(tmp_path / "team", "# A team\n")
    found = Team.from_directory(tmp_path / "team", dtype="float32")
    assert found.seats == team.seats and (tmp_path / "team" / "README.md").read_text() == "# A team\n"
    with torch.no_grad():
        assert torch.equal(found(x).logp, team(x).logp)


@pytest.mark.parametrize("text", ["no json", "[]", '{"planner": "role0"}'])
def test_a_damaged_team_is_one_clear_line(tmp_path, text):
    (tmp_path / "team.json").write_text(text)
    with pytest.raises(InputError, match="team"):
        Team.from_directory(tmp_path)


def test_models_are_named_by_role():
    assert read_models([]) is None and read_models(["a=b"]) == "a=b" and read_models(["x"]) == "x"
    assert read_models(["role1=b", "a"]) == {"role1": "b", "others": "a"} and read_models(["a", "b"]) == "b"
    assert [read_role(name) for name in ("role0", "role12", "others")] == [0, 12, None]
    for wrong in (["role0=a", "role0=b"], ["role0="]):
        with pytest.raises(InputError, match="give each role one model"):
            read_models(wrong)
    for name in ("role", "role-1", "planner"):
        with pytest.raises(InputError, match="is no role"):
            read_role(name)


def test_a_team_trains_evaluates_and_resumes_from_its_folders(model_folder, tmp_path, make_team):
    models = {"role0": str(model_folder), "others": str(model_folder)}
    small = {"sampler.prompts_per_step": 2, "sampler.group_size": 2, "optimization.member_rates": [1.0, 0.0]}
    result = run.train(
        "grpo", Crew(), model=models, values=small, out=tmp_path / "run", steps=1, evaluation_episodes=2,
        precision="float32",
    )  # fmt: skip
    saved = Team.from_directory(result.directory / "model", dtype="float32")
    assert saved.names == ["role0", "others"]
    resumed = run.resume(result.directory, task=Crew(), steps=2)
    assert resumed.metrics["grad_norm/member_1"] == 0.0
    [sampled, greedy] = run.evaluate(result.directory / "model", "key_door:size=4,max_turns=8", episodes=2)
    assert (sampled.episodes, greedy.mode) == (2, "greedy")


def test_a_team_is_for_text_tasks(tmp_path):
    with pytest.raises(InputError, match="takes one policy; only text tasks are for teams of models"):
        run.train("grpo", "lab:prompts", model={"role0": "a", "role1": "b"}, out=tmp_path / "run")
