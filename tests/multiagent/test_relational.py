from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stratagem import run
from stratagem.architectures import RelationalActors
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.multiagent import (
    AgentInputs,
    AgentsPolicy,
    CoordinationGame,
    DiscsGame,
    MeetingGame,
    MultiAgentWorld,
    RelationalAgents,
    ResourcesGame,
)
from stratagem.objectives import CodeInformation, SoftImprovement, TaskPrediction, TemporalDifference
from stratagem.recipes.games import mra
from stratagem.sampling import Rollouts
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

GAME = ResourcesGame((2, 4), cells=5, landmarks=2, places=5, max_turns=4)
SMALL: dict[str, Any] = {"architecture.hidden": 16, "architecture.width": 16, "architecture.heads": 4}
SOFT = {"log_probs", "action_values", "value_after", "next_value", "code_logp", "task_logp"}


def made(game: Any = GAME, **options: Any) -> RelationalAgents:
    """Agents whose weights are no longer those of a beginning, so that all of them matter."""
    policy: RelationalAgents = RelationalActors(**{"hidden": 16, "width": 16, "heads": 4, **options}).build(game, 0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        policy.encoder.network[-1].weight.mul_(5)
    return policy


def played(policy: RelationalAgents, game: Any = GAME, episodes: int = 8) -> Experience:
    x = MultiAgentWorld(game, 0, policy).collect(Rollouts(episodes, 1), 0).x
    assert x is not None
    return x


def inputs(x: Experience) -> tuple[AgentInputs, torch.Tensor]:
    assert isinstance(x.inputs, AgentInputs) and x.inputs.noted is not None
    return x.inputs, x.inputs.noted


# ---- codes ----------------------------------------------------------------------------------------------------------


def test_agents_keep_their_codes_for_an_episode_and_are_said_to_act_by_them() -> None:
    policy = made()
    x = played(policy, episodes=40)
    read, noted = inputs(x)
    of_trajectory = noted.view(-1, GAME.max_turns, 2)
    assert bool((of_trajectory == of_trajectory[:, :1]).all())
    code, number = of_trajectory[:, 0].T
    assert set(number.tolist()) == {2.0, 4.0} and len(code.unique()) > 2
    # Agents of one episode draw codes of their own.
    assert bool((code.view(-1, 4) != code.view(-1, 4)[:, :1]).any())
    assert torch.allclose(policy(x).logp, x.behavior_logp, atol=1e-5)
    assert x.mask is not None and int(x.mask.sum()) == int((read.agent < noted[:, 1]).sum())


def test_codes_are_drawn_as_likely_as_the_encoder_says_and_greedy_agents_take_the_likeliest() -> None:
    policy = made()
    alive = np.arange(4) < np.repeat([2, 4], 4000)[:, None]
    drawn = policy.drawn_codes(alive, np.random.default_rng(0))
    for rows, number in ((slice(4000), 2.0), (slice(4000, None), 4.0)):
        likely = policy.code_logp(torch.tensor([number]))[0].exp().detach()
        found = torch.bincount(drawn[rows].flatten(), minlength=6) / 16000
        assert torch.allclose(found, likely, atol=0.02)
        assert bool((policy.drawn_codes(alive, None)[rows] == likely.argmax()).all())


def test_a_code_may_be_chosen_for_all_and_given_up_again() -> None:
    policy = made()
    policy.choose(3)
    assert inputs(played(policy))[1][:, 0].unique().tolist() == [3.0]
    assert inputs(played(policy.copy()))[1][:, 0].unique().tolist() == [3.0]
    policy.choose(None)
    assert len(inputs(played(policy))[1][:, 0].unique()) > 1
    with pytest.raises(InputError, match="code 6: must be 0 to 5"):
        policy.choose(6)


def test_heads_of_other_codes_change_nothing() -> None:
    policy = made()
    policy.choose(2)
    x = played(policy)
    before = policy(x, also={"log_probs"}).log_probs
    mine = torch.arange(6 * 4) // 4 == 2
    with torch.no_grad():
        for layer in (policy.relation.key, policy.relation.query):
            for weight in layer.parameters():
                weight[~mine] += 1.0
    assert torch.equal(policy(x, also={"log_probs"}).log_probs, before)
    with torch.no_grad():
        policy.relation.key.weight[mine] += 1.0
    assert not torch.equal(policy(x, also={"log_probs"}).log_probs, before)


# ---- gradients ------------------------------------------------------------------------------------------------------

PLACES = {
    "relations": ("relation.key.", "relation.query."),
    "value": ("relation.value.",),
    "actor": ("actor.",),
    "critic": ("critic.",),
    "encoder": ("encoder.",),
    "predictor": ("predictor.",),
    "target": ("target.",),
}


@pytest.mark.parametrize(
    ("objective", "moved"),
    [
        (CodeInformation(), {"relations"}),
        (TaskPrediction(), {"encoder", "predictor"}),
        (SoftImprovement(), {"relations", "value", "actor"}),
        (TemporalDifference(), {"critic"}),
    ],
)
def test_each_loss_moves_its_own_networks_and_no_others(objective: Any, moved: set[str]) -> None:
    policy = made()
    x = mra().shape(played(policy))
    torch.manual_seed(0)
    objective(policy(x, also=SOFT), x).loss.backward()
    found = {
        place
        for place, starts in PLACES.items()
        for name, weight in policy.named_parameters()
        if name.startswith(starts) and weight.grad is not None and bool(weight.grad.any())
    }
    assert found == moved
    known = {id(w) for w in policy.policy_parameters()} | {id(w) for w in policy.critic_parameters()}
    assert known == {id(w) for w in policy.parameters() if w.requires_grad}


def test_with_one_code_an_action_says_nothing_and_nothing_moves() -> None:
    policy = made(codes=1)
    x = played(policy)
    loss = CodeInformation()(policy(x, also={"code_logp"}), x)
    loss.loss.backward()
    grads = [weight.grad for weight in policy.relation_parameters() if weight.grad is not None]
    assert float(loss.loss.detach()) == pytest.approx(0, abs=1e-6)
    assert all(float(grad.abs().max()) < 1e-6 for grad in grads)
    single = mra(codes=1)
    assert not {"code_logp", "task_logp"} & single.output_needs()


def test_with_one_other_agent_a_code_changes_nothing() -> None:
    policy = made()
    x = played(policy, ResourcesGame((2,), cells=5, landmarks=2, places=5, max_turns=4))
    loss = CodeInformation()(policy(x, also={"code_logp"}), x)
    assert abs(float(loss.loss.detach())) < 1e-6


def test_what_an_action_says_of_its_code_is_that_of_the_policy_with_other_codes() -> None:
    policy = made()
    x = played(policy)
    torch.manual_seed(0)
    found = policy(x, also={"code_logp"}).code_logp
    by_code = []
    read, noted = inputs(x)
    for code in range(6):
        other = AgentInputs(
            **{**vars(read), "noted": torch.stack([torch.full_like(noted[:, 0], code), noted[:, 1]], 1)}
        )
        by_code.append(policy(x.replace(inputs=other), also={"log_probs"}).log_probs)
    allowed = torch.stack(by_code, 1)  # [rows, codes, actions]
    own = allowed[torch.arange(len(noted)), noted[:, 0].long()]
    # Each row is about one action: own and drawn log-probabilities are all found in one column.
    for row in range(0, len(noted), 7):
        fits = [
            bool((own[row, a] - found[row, 0]).abs() < 1e-5)
            and all(bool(((allowed[row, :, a] - value).abs() < 1e-5).any()) for value in found[row, 1:])
            for a in range(3)
        ]
        assert any(fits)
    assert found.shape == (len(noted), 6)


# ---- what actions are worth -----------------------------------------------------------------------------------------


def worth_of(policy: Any, critic: Any, seen: np.ndarray, done: list[int], agent: int) -> torch.Tensor:
    """``Q_i(o, a_-i, .)`` written out: what agents of one turn see, and do."""
    own, most, numbers = policy.others
    told = []
    for place in range(most):
        other = place if place < agent else place + 1
        row = seen[agent, own + place * numbers : own + (place + 1) * numbers]
        known = [*seen[other, :own], *np.eye(3)[done[other]]] if other < len(seen) else [0.0] * (own + 3)
        told += [*row, *known]
    worth: torch.Tensor = critic(torch.tensor([[*seen[agent, :own], *told]], dtype=torch.float32))[0]
    return worth


@pytest.mark.parametrize("credit", ["team", "own"])
def test_values_are_those_of_what_all_did_and_the_next_turns_are_soft(credit: str) -> None:
    policy = made(credit=credit, temperature=0.3)
    x = played(policy, episodes=3)
    assert x.action is not None and x.mask is not None
    read, _ = inputs(x)
    torch.manual_seed(0)
    out = policy(x, also={"value_after", "next_value"})
    turns, agents = GAME.max_turns, 4
    rows = np.arange(x.tokens).reshape(-1, agents, turns)  # [episodes, agents, turns]
    assert read.final_observation is not None
    # What comes next, and the actions that the same seed draws there.
    ahead, likely = read.observation.clone(), torch.zeros(x.tokens, 3)
    for episode in rows:
        for agent, mine in enumerate(episode):
            ahead[mine[:-1]] = read.observation[mine[1:]]
            ahead[mine[-1]] = read.final_observation[mine[-1] // turns]
            assert agent == int(read.agent[mine[0]])
    after = x.replace(inputs=AgentInputs(**{**vars(read), "observation": ahead}))
    old = policy.copy()
    for name, network in old.target.items():
        getattr(old, name).load_state_dict(network.state_dict())
    likely = old(after, also={"log_probs"}).log_probs.detach()
    torch.manual_seed(0)
    drawn = torch.multinomial(likely.exp(), 1).squeeze(1)
    for episode in rows:
        for turn in range(turns):
            here = episode[:, turn]
            alive = x.mask[here]
            now = [
                worth_of(policy, policy.critic, read.observation[here].numpy(), x.action[here].tolist(), a)[
                    x.action[row]
                ]
                for a, row in enumerate(here)
            ]
            then = []
            for agent, row in enumerate(here):
                q = worth_of(policy, old.critic, ahead[here].numpy(), drawn[here].tolist(), agent)
                then.append((likely[row].exp() * (q - 0.3 * likely[row])).sum())
            for said, values in ((out.value_after, now), (out.next_value, then)):
                each = torch.stack(values) * alive
                expected = each if credit == "own" else each.mean().expand(4)
                # The limit cuts episodes, so what comes after the last turn counts.
                assert said is not None and torch.allclose(said[here], expected, atol=1e-5)


def test_nothing_is_worth_anything_after_an_end() -> None:
    policy = made(MeetingGame(size=2, sight=2))
    x = played(policy, MeetingGame(size=2, sight=2), 20)
    value = policy(x, also={"next_value"}).next_value
    last = x.trajectory_of_turn.is_last()
    assert x.finished is not None and value is not None and bool(x.finished.any())
    over = last & x.trajectory_of_turn.spread(x.finished)
    assert not value[over].any() and bool((value[~over] != 0).all())


def test_targets_are_fresh_copies_after_so_many_optimizer_steps() -> None:
    policy = made(target_every=3)
    weight = policy.target["critic"][1].weight
    before = weight.clone()
    policy.begin_batch(2)
    assert torch.equal(weight, before)
    policy.begin_batch(3)
    assert torch.equal(weight, policy.critic[1].weight) and int(policy.refreshed) == 3


# ---- games it fits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agents", [1, 3, 5])
def test_it_acts_and_learns_in_games_of_any_number(agents: int, tmp_path: Path) -> None:
    policy = made()
    game = ResourcesGame((agents,), cells=5, landmarks=2, places=5, max_turns=4)
    world = MultiAgentWorld(game, 0, policy)
    assert world.evaluate(3, "greedy").episodes == world.evaluate(3, "sampled").episodes == 3
    made_for = mra(episodes=4, replayed=2, updates=2).with_values(SMALL)
    trainer = Trainer(made_for, world, RunDirectory.create(tmp_path / "r"), Settings(steps=1, evaluation_episodes=0))
    metrics = trainer.step()
    # The predictor knows games of two and four agents; of another one it says nothing.
    assert metrics["task_loss"] == 0 and metrics["updates/not_finite"] == 0


def test_places_for_another_number_of_others_do_not_fit() -> None:
    with pytest.raises(InputError, match="needs agents of features"):
        MultiAgentWorld(ResourcesGame((3,), cells=5, landmarks=2, places=4), 0, made())


def test_games_without_rows_for_others_and_continuous_actions_are_refused() -> None:
    with pytest.raises(InputError, match="no row for every other agent"):
        RelationalActors().build(CoordinationGame(), 0)
    with pytest.raises(InputError, match="no row for every other agent"):
        RelationalActors().build(DiscsGame(), 0)
    with pytest.raises(InputError, match="need discrete actions"):
        RelationalAgents(2, 5, 4, 2, continuous=True, others=(2, 1, 3))
    with pytest.raises(InputError, match="are not 2 and 1 times 3"):
        RelationalAgents(2, 6, 4, 2, others=(2, 1, 3), populations=(2,))


def test_it_is_written_and_read_back(tmp_path: Path) -> None:
    policy = made(codes=3, credit="own")
    policy.choose(1)
    policy.save(tmp_path / "p", "card")
    again = AgentsPolicy.from_directory(tmp_path / "p")
    assert again.arguments() == policy.arguments()
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in policy.state_dict().items())


TASK = "resources:cells=5,landmarks=2,places=5,max_turns=4"
FEW = {**SMALL, "sampler.prompts_per_step": 6, "replay.groups": 8, "replay.capacity": 12, "optimization.minibatches": 3}


def test_a_run_that_is_resumed_repeats_an_unbroken_one(tmp_path: Path) -> None:
    given: dict[str, Any] = {"values": FEW, "evaluation_episodes": 4, "checkpoint_every": 2}
    whole = run.train("mra", TASK, steps=4, out=tmp_path / "whole", **given)
    run.train("mra", TASK, steps=2, out=tmp_path / "part", **given)
    resumed = run.resume(tmp_path / "part", steps=4)
    weights = [path / "checkpoints" / "step-4" / "policy.safetensors" for path in (whole.directory, resumed.directory)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    for name in ("td_error", "information", "task_loss", "policy_loss", "evaluation/sampled/mean_return"):
        assert whole.metrics.get(name) == resumed.metrics.get(name)


def test_what_was_learned_with_two_and_four_agents_is_trained_further_with_three(tmp_path: Path) -> None:
    run.train("mra", TASK, steps=1, out=tmp_path / "first", values=FEW, evaluation_episodes=0)
    again = run.train(
        "mra",
        f"{TASK},agents=3",
        steps=1,
        out=tmp_path / "second",
        values=FEW,
        model=str(tmp_path / "first" / "model"),
        evaluation_episodes=0,
    )
    policies = [AgentsPolicy.from_directory(path / "model") for path in (tmp_path / "first", again.directory)]
    assert not torch.equal(*(policy.get_parameter("actor.0.weight") for policy in policies))
    with pytest.raises(InputError, match="'codes': 3"):
        run.train(
            "mra",
            TASK,
            steps=1,
            out=tmp_path / "third",
            values={**FEW, "architecture.codes": 3},
            model=str(tmp_path / "first" / "model"),
        )


def test_it_learns_in_another_game_that_shows_others_row_by_row(tmp_path: Path) -> None:
    done = run.train("mra", "meeting:size=3,agents=3", steps=1, out=tmp_path / "r", values=FEW, evaluation_episodes=4)
    assert done.metrics["updates/not_finite"] == 0 and done.metrics["task_loss"] == 0
    policy = AgentsPolicy.from_directory(tmp_path / "r" / "model")
    world = MultiAgentWorld(MeetingGame(size=3, agents=3), 0, policy)
    # Whoever watches has agents draw a code, too.
    assert [len(world.watch(1, mode).reward) > 0 for mode in ("sampled", "greedy")] == [True, True]


def test_what_was_noted_of_codes_is_needed_to_say_how_likely_actions_were() -> None:
    x = played(made())
    with pytest.raises(ValueError, match="what was noted"):
        made()(x.replace(inputs=AgentInputs(**{**vars(inputs(x)[0]), "noted": None})))


def test_agents_go_on_with_the_codes_they_remember() -> None:
    policy, copies = made(), GAME.copies(2)
    copies.reset(np.arange(2), np.arange(2))
    frame, noise = copies.observe(np.arange(2)), np.random.default_rng(0)
    first = policy.acting()(frame, noise)
    assert (
        first.memory is not None and first.noted is not None and (first.memory[..., 0] == first.noted[..., 0] + 1).all()
    )
    for _ in range(5):
        assert (policy.acting()(frame, noise, first.memory).memory == first.memory).all()
    begun = first.memory.copy()
    begun[1] = 0
    drawn = [policy.acting()(frame, noise, begun).memory for _ in range(20)]
    assert all((one[0] == first.memory[0]).all() for one in drawn) and len({one[1].tobytes() for one in drawn}) > 1
