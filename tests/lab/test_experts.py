"""A mixture of experts: what it says, what it learns, and its routing replayed."""

from __future__ import annotations

import json

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import GAMES, ExpertsPolicy, TabularPolicy, Tree
from stratagem.lab.draw import draw
from stratagem.lab.exact import Exact
from stratagem.lab.experts import read_node_policy
from stratagem.objectives import Perturbed, RoutingReplay
from stratagem.seeding import generator

TREE = Tree.enumerate(GAMES["graded"])
REPLAY = RoutingReplay()


def policy(seed: int = 0, **options) -> ExpertsPolicy:
    return ExpertsPolicy(TREE.nodes, 3, seed=seed, **options)


def batch(of: ExpertsPolicy, record: torch.Tensor | None = None) -> Experience:
    x = draw(TREE.leaves, Exact(TREE, of.table()).leaf_probability, 8, 4, generator(1))
    return x if record is None else x.replace(experts=record[x.inputs.node])


# ---- the policy -----------------------------------------------------------------------------------------------------


def test_two_experts_of_three_worked_by_hand():
    """Width 1: scores 2, 1, 3 of the feature 1; the first and last are active with weights sigmoid of -1 and 1."""
    small = ExpertsPolicy(1, 2, experts=3, active=2, width=1)
    with torch.no_grad():
        small.features.fill_(1.0)
        small.router.copy_(torch.tensor([[2.0, 1.0, 3.0]]))
        small.experts.copy_(torch.tensor([0.5, 9.0, -1.0]).view(3, 1, 1))
        small.unembedding.copy_(torch.tensor([[1.0, -1.0]]))
    last = torch.sigmoid(torch.tensor(1.0))
    hidden = (1 - last) * torch.tanh(torch.tensor(0.5)) + last * torch.tanh(torch.tensor(-1.0))
    torch.testing.assert_close(small.table(), torch.stack([hidden, -hidden]).view(1, 2))
    assert small.routes().sort(-1).values.tolist() == [[0, 2]]


def test_it_says_of_every_token_what_its_table_says():
    chosen = policy()
    x = batch(chosen)
    out = chosen(x, temperature=0.5, also=("entropy", "value", "experts"))
    exact = Exact(TREE, chosen.table() / 0.5)
    torch.testing.assert_close(out.logp.detach(), exact.logp[x.inputs.node, x.action].float())
    torch.testing.assert_close(out.entropy.detach(), exact.node_entropy[x.inputs.node].float())
    assert torch.equal(out.experts, chosen.routes()[x.inputs.node]) and out.value.tolist() == [0] * x.tokens
    assert chosen(x).experts is None


def test_what_it_says_its_output_layer_reads_gives_its_logits():
    chosen = policy()
    x = batch(chosen)
    out = chosen(x, temperature=0.5, also=("hidden", "hidden_square", "top_id", "top_probability"))
    logits = out.hidden @ chosen.unembedding.detach()
    torch.testing.assert_close(logits, chosen.table()[x.inputs.node] / 0.5)
    torch.testing.assert_close(out.hidden_square, out.hidden.square().sum(1))
    everything = torch.softmax(logits, 1).gather(1, out.top_id)
    torch.testing.assert_close(out.top_probability, everything)
    assert torch.equal(out.top_id[:, 0], x.action)


def test_a_perturbed_mixture_is_the_mixture_under_no_noise_and_where_nothing_is_learned():
    chosen = policy()
    x = batch(chosen)
    plain = chosen(x).logp
    assert torch.equal(chosen(x, view=Perturbed(initial=0.0)).logp, plain)
    noisy = policy()
    torch.manual_seed(0)
    first = noisy(x, view=Perturbed(initial=0.3)).logp
    torch.manual_seed(0)
    again = noisy(x, view=Perturbed(initial=0.3)).logp
    assert torch.equal(first, again) and not torch.allclose(first, plain)
    first.sum().backward()
    assert float(noisy.log_noise.grad) != 0
    with torch.no_grad():
        assert torch.equal(noisy(x, view=Perturbed(initial=0.3)).logp, plain)


def test_a_mixture_has_one_layer_to_perturb():
    with pytest.raises(InputError, match=r"perturbed\.layers = \(2,\): this policy has one layer"):
        chosen = policy()
        chosen(batch(chosen), view=Perturbed(layers=(2,)))


def test_its_gradient_agrees_with_differences():
    """Where the routing stays as it is, in float64."""
    chosen = policy().double()
    x = batch(chosen)
    chosen(x).logp.sum().backward()
    for weights in chosen.policy_parameters():
        along = torch.randn(weights.shape, generator=generator(2), dtype=torch.float64)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weights.add_(step * along)
                values.append(float(chosen(x).logp.sum()))
                weights.sub_(step * along)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float((weights.grad * along).sum()), rel=1e-5)


def test_the_initial_logits_are_as_wide_as_asked_for():
    wide = torch.cat([policy(seed, spread=2.0).table() for seed in range(30)])
    assert float(wide.std()) == pytest.approx(2.0, rel=0.15)
    assert float(policy(spread=0.0).table().abs().max()) == 0


def test_it_is_saved_and_read_back(tmp_path):
    chosen = policy(3, experts=5, active=3)
    chosen.save(tmp_path / "model", "# card")
    again = read_node_policy(tmp_path / "model")
    assert isinstance(again, ExpertsPolicy) and again.active == 3
    assert torch.equal(again.table(), chosen.table())
    TabularPolicy(chosen.table()).save(tmp_path / "table", "# card")
    assert isinstance(read_node_policy(tmp_path / "table"), TabularPolicy)
    with pytest.raises(InputError, match="no readable policy of the lab"):
        read_node_policy(tmp_path)
    (tmp_path / "model" / "policy.json").write_text(json.dumps({"kind": "dense"}))
    with pytest.raises(InputError, match="of kind 'dense', where tabular or experts or cards is needed"):
        read_node_policy(tmp_path / "model")
    (tmp_path / "model" / "policy.json").write_text(json.dumps({"kind": "experts", "nodes": 3}))
    with pytest.raises(InputError, match=r"no readable policy of the lab \(TypeError\)"):
        read_node_policy(tmp_path / "model")


def test_more_active_experts_than_there_are_is_refused():
    with pytest.raises(InputError, match="active = 3, experts = 2"):
        policy(experts=2, active=3)


# ---- routing replay -------------------------------------------------------------------------------------------------


def test_without_a_record_and_with_its_own_the_policy_answers_as_ever():
    chosen = policy()
    x = batch(chosen)
    free = chosen(x).logp
    assert torch.equal(chosen(x, view=REPLAY).logp, free)
    unrecorded = x.replace(experts=torch.full((x.tokens, 2), -1))
    assert torch.equal(chosen(unrecorded, view=REPLAY).logp, free)
    assert torch.equal(chosen(batch(chosen, chosen.routes()), view=REPLAY).logp, free)


def test_a_record_is_followed_and_a_view_is_needed_for_it():
    chosen = policy()
    other = chosen.routes().sub(1).remainder(4)
    x = batch(chosen, other)
    out = chosen(x, view=REPLAY, also=("experts",))
    assert torch.equal(out.experts, x.experts)
    assert float((out.logp - chosen(x).logp).detach().abs().max()) > 0.1
    half = x.replace(experts=torch.where(torch.arange(x.tokens).unsqueeze(1) % 2 == 0, x.experts, -1))
    mixed = chosen(half, view=REPLAY).logp
    assert torch.equal(mixed[::2], out.logp[::2]) and torch.equal(mixed[1::2], chosen(x).logp[1::2])
    assert REPLAY.figures(half)["routing/unrecorded"] == pytest.approx(0.5, abs=1 / x.tokens)
    assert REPLAY.figures(x) == {"routing/unrecorded": 0.0}
    assert REPLAY.figures(x.replace(experts=None)) == {"routing/unrecorded": 1.0}


def test_under_replay_the_log_probability_moves_smoothly_with_the_router_and_jumps_without():
    """The largest move between neighbours shrinks with the step between them, unless the set of experts changes."""
    still = policy().double()
    x = batch(still, still.routes())
    along = torch.randn(still.router.shape, generator=generator(0), dtype=torch.float64)

    def largest_move(view: RoutingReplay | None, points: int) -> tuple[float, bool]:
        said, sets = [], []
        for step in torch.linspace(0, 1, points, dtype=torch.float64):
            moved = still.copy()
            moved.router.add_(step * along)
            out = moved(x, view=view, also=("experts",))
            said.append(out.logp)
            sets.append(out.experts.sort(-1).values)
        record = x.experts.sort(-1).values
        return float(torch.stack(said).diff(dim=0).abs().max()), all(torch.equal(found, record) for found in sets)

    coarse, fine = largest_move(REPLAY, 201), largest_move(REPLAY, 401)
    assert coarse[1] and fine[1]
    assert coarse[0] / fine[0] == pytest.approx(2, rel=0.05)
    coarse, fine = largest_move(None, 201), largest_move(None, 401)
    assert not coarse[1] and coarse[0] / fine[0] == pytest.approx(1, rel=0.05) and fine[0] > 0.1


def test_gradient_reaches_the_router_of_replayed_experts_alone():
    chosen = policy()
    x = batch(chosen, torch.tensor([[1, 3]]).expand(TREE.nodes, 2))
    chosen(x, view=REPLAY).logp.sum().backward()
    by_expert = chosen.router.grad.abs().sum(0)
    assert bool((by_expert[[1, 3]] > 0).all()) and by_expert[[0, 2]].tolist() == [0, 0]
    assert chosen.experts.grad.abs().sum((1, 2))[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("record", [torch.zeros(1, 3), torch.full((1, 2), 4), torch.zeros(1)])
def test_a_record_of_another_policy_is_refused(record):
    chosen = policy()
    x = batch(chosen)
    with pytest.raises(InputError, match="does not fit 2 of 4 experts"):
        chosen(x.replace(experts=record.long().expand(x.tokens, *record.shape[1:])), view=REPLAY)
