"""Maestro through its recipe: rewards worked by hand, the best router, unseen experts, and what is not trained."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import CardPolicy, Exact, RouterRules, Tree, router_game
from stratagem.lab.exact import optimal_values
from stratagem.lab.experts import read_node_policy
from stratagem.lab.routing import question_features, token_cards
from stratagem.lab.world import LabTask, LabWorld
from stratagem.language.episodes import Episode, Turn, to_experience
from stratagem.study.experiments import learn
from stratagem.tasks.orchestration import ExpertsTask

ACCURACY = ((0.9, 0.2, 0.1), (0.1, 0.8, 0.3), (0.2, 0.1, 0.7))
RULES = RouterRules(ACCURACY, (1.0, 2.0, 4.0))
ANSWER = 3


# ---- rewards --------------------------------------------------------------------------------------------------------


def test_the_format_is_charged_on_top_of_the_answer():
    task = ExpertsTask()
    call, right = task.solution("train", 0)
    wrong = "<answer>no</answer>"
    talks = ([call, right], [call, wrong], [right], [wrong], [call] * 4)
    x = batch(task, talks)
    assert recipes.maestro().shape(x).returns.tolist() == [1, 0, 0, -1, -1]
    # Evaluation counts right answers alone, whatever their format.
    assert x.success.tolist() == [True, False, True, False, False]
    assert recipes.maestro(format_penalty=0.25).shape(x).returns.tolist() == [1, 0, 0.75, -0.25, -0.25]
    free = batch(ExpertsTask(require_call=False), talks)
    assert recipes.maestro().shape(free).returns.tolist() == [1, 0, 1, 0, -1]


def test_costs_are_noted_and_charged_on_request():
    x = Experience.from_lengths(
        [1, 1],
        [1, 1],
        [2],
        reward=torch.tensor([[1.0, 1.0, 3.0], [1.0, 0.0, 0.0]]),
        reward_names=("reward", "format", "cost"),
        reward_weights=(1.0, 0.0, 0.0),
    )
    assert recipes.maestro().shape(x).returns.tolist() == [1, 0]
    assert recipes.maestro(cost_weight=0.25).shape(x).returns.tolist() == [0.25, 0]
    bare = Experience.from_lengths([1, 1], [1, 1], [2], reward=[1.0, 0.0])
    with pytest.raises(InputError, match="cost_penalty: needs a task that notes a reward named 'cost'"):
        recipes.maestro(cost_weight=0.25).shape(bare)
    for arguments in ({"format_penalty": -1}, {"cost_weight": -1}):
        with pytest.raises(InputError, match="greater than or equal to 0"):
            recipes.maestro(**arguments)


def test_one_turn_without_a_broken_format_is_grpo():
    x = Experience.from_lengths([2, 1, 3, 1], [1] * 4, [4], reward=[1.0, 0.0, 0.0, 1.0])
    x = x.replace(old_logp=torch.linspace(-2, -0.5, x.tokens))
    ours, theirs = recipes.maestro(), recipes.grpo()
    batches = [recipe.prepare(x) for recipe in (ours, theirs)]
    assert batches[0].advantage.equal(batches[1].advantage)
    assert ours.objective == theirs.objective and ours.sampler == theirs.sampler


def test_without_a_penalty_a_run_with_one_expert_is_grpos_to_the_bit_and_with_one_it_is_not():
    game = router_game(RouterRules(((0.6,),), questions=1, turns=2))
    runs = [
        learn(recipe, LabTask(game), 1000, 5) for recipe in (recipes.maestro(0.0), recipes.grpo(), recipes.maestro())
    ]
    assert runs[0].last.logits.equal(runs[1].last.logits)
    assert not runs[2].last.logits.equal(runs[1].last.logits)


def test_what_experts_say_has_no_rows():
    x = batch(ExpertsTask(), [list(ExpertsTask().solution("train", 0))] * 2, seen=[7, 8, 9] * 300)
    written = x.inputs.token_ids[x.inputs.action_positions]
    assert x.tokens == 8 and written.equal(x.action) and not set(written.tolist()) & {7, 8, 9}


# ---- routing --------------------------------------------------------------------------------------------------------


def asking(experts: list[int]) -> Exact:
    """Asks this expert for each question, and answers."""
    tree = Tree.enumerate(router_game(RULES))
    token = torch.tensor([ANSWER if state.calls else experts[state.question] for state in tree.states])
    return Exact.greedy(tree, torch.nn.functional.one_hot(token, 4).double())


def test_the_best_router_asks_along_the_diagonal():
    best = asking([0, 1, 2])
    assert best.success == pytest.approx(0.8)
    assert Exact.greedy(best.tree, optimal_values(best.tree)).success == pytest.approx(0.8)
    alone = [asking([expert] * 3).success for expert in range(3)]
    assert sum(alone) / 3 == pytest.approx(0.3778, abs=1e-4)
    assert max(alone) == pytest.approx(0.4)
    x = best.tree.leaves
    assert best.expected(x.reward[:, 2]) == pytest.approx(7 / 3)


def test_a_trained_router_finds_the_diagonal():
    last = learn(recipes.maestro(), LabTask(router_game(RULES), spread=0.0), 1000, 100).last
    first = [last.tree.states.index(start) for _, start in last.tree.game.starts]
    assert last.logp[first].argmax(-1).tolist() == [0, 1, 2]
    assert last.success > 0.7


def test_calls_beyond_the_limit_cut_the_episode_and_answers_without_one_are_wrong():
    game = router_game(RULES)
    act = game.act
    start = game.starts[0][1]
    [silent] = act(start, (ANSWER,))
    assert (silent.success, silent.components["format"]) == (False, 0.0)
    state = start
    for _ in range(3):
        [outcome] = act(state, (2,))
        state = outcome.state
    [cut] = act(state, (2,))
    assert cut.truncated and cut.components == {"format": 0.0, "cost": 16.0}
    right, wrong = act(state, (ANSWER,))
    assert (right.probability, wrong.probability) == (0.2, 0.8)
    [free] = router_game(RouterRules(ACCURACY, require_call=False)).act(start, (ANSWER,))
    assert free.components["format"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accuracy": ()}, "accuracy"),
        ({"accuracy": ((0.5, 0.5), (0.5,))}, "accuracy"),
        ({"accuracy": ((1.5,),)}, "accuracy"),
        ({"accuracy": ((0.5,),), "price": (1.0, 1.0)}, "price"),
        ({"accuracy": ((0.5,),), "price": (-1.0,)}, "price"),
        ({"accuracy": ((0.5,),), "questions": 0}, "questions"),
        ({"accuracy": ((0.5,),), "turns": 0}, "turns"),
    ],
)
def test_rules_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=rf"router_rules\.{message}"):
        RouterRules(**arguments)


# ---- unseen experts -------------------------------------------------------------------------------------------------


JOINED = RouterRules((*ACCURACY, (0.1, 0.95, 0.2)))


def router(cards: torch.Tensor, rules: RouterRules) -> CardPolicy:
    tree = Tree.enumerate(router_game(rules))
    return CardPolicy(question_features(tree, torch.eye(3)), token_cards(cards[: rules.experts]))


def asked_first(policy: CardPolicy, cards: torch.Tensor) -> list[int]:
    """The expert asked first for each question, of all that there are now."""
    tree = Tree.enumerate(router_game(JOINED))
    table = policy.scores(question_features(tree, torch.eye(3)), token_cards(cards))
    first = [tree.states.index(start) for _, start in tree.game.starts]
    return table[first].argmax(-1).tolist()


def test_an_unseen_expert_is_asked_by_its_card_and_not_by_its_number():
    described, numbered = torch.tensor(JOINED.accuracy), torch.eye(4)
    chosen = []
    for cards in (described, numbered):
        world = LabWorld(LabTask(router_game(RULES)), 1000, router(cards, RULES))
        exact = Tree.enumerate(router_game(RULES))
        optimizer = torch.optim.Adam([world.policy.fit], 0.1)
        # Exact ascent of the expected return: no sampling decides.
        for _ in range(150):
            table = world.policy.features @ world.policy.fit @ world.policy.cards.T
            probability = exact.leaves.trajectory_of_token.sum(exact.chosen(table.log_softmax(-1))).exp()
            optimizer.zero_grad()
            (-(exact.chance * probability * exact.leaves.returns).sum()).backward()
            optimizer.step()
        chosen.append(asked_first(world.policy, cards))
    assert chosen[0] == [0, 3, 2]
    assert chosen[1] == [0, 1, 2]


def test_a_card_policy_learns_through_the_trainer_and_is_read_back(tmp_path):
    policy = router(torch.tensor(ACCURACY), RULES)
    assert policy.table().abs().max() == 0

    class Scored(LabTask):
        def new_policy(self, tree, seed):
            return policy

    last = learn(recipes.maestro(), Scored(router_game(RULES)), 1000, 20, learning_rate=0.05).last
    assert last.success > 0.2 and policy.fit.abs().max() > 0
    policy.save(tmp_path / "policy", "a card")
    again = read_node_policy(tmp_path / "policy")
    assert isinstance(again, CardPolicy) and again.table().equal(policy.table())


def test_a_card_policy_says_what_it_lists():
    policy = router(torch.tensor(ACCURACY), RULES)
    with torch.no_grad():
        policy.fit.normal_(generator=torch.Generator().manual_seed(0))
    x = Tree.enumerate(router_game(RULES)).leaves
    out = policy(x, temperature=2.0, also=("entropy", "value"))
    expected = torch.log_softmax(policy.table() / 2, -1)[x.inputs.node, x.action]
    assert isinstance(out, PolicyOutput) and torch.allclose(out.logp, expected, atol=1e-6)
    with pytest.raises(InputError):
        policy(x, also=("hidden",))
    with pytest.raises(ValueError, match="NodeInputs"):
        policy(x.replace(inputs=None))


def batch(task: ExpertsTask, talks, seen=(1, 2, 3)) -> Experience:
    """A group of episodes with these actions, of two tokens each, at a log-probability of -1."""
    group = []
    for number, actions in enumerate(talks):
        environment, episode = task.environment("train", 0), Episode(0, number, 0)
        observation = environment.reset()
        for action in actions:
            episode.turns.append(Turn(observation, list(seen), [4, 5], [-1.0, -1.0], action))
            step = environment.step(action)
            episode.record(step)
            observation = step.observation
        group.append(episode)
    return to_experience([group], task.reward_names, len(talks), task.reward_weights)
