"""A divided policy: it says what one in one process says, its gradients are those, and its weights come together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from stratagem import recipes
from stratagem.cluster.process_group import Place, joined
from stratagem.cluster.sharded_policy import ShardedPolicy, shard, shares
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language import Team
from stratagem.language.inputs import TokenInputs
from stratagem.language.policy import LoRA
from stratagem.objectives import ResponseOnly
from stratagem.objectives.views import InternalLayer, Perturbed
from stratagem.seeding import generator
from stratagem.shards import is_divided, own_part, whole
from stratagem.training.companions import Companions
from stratagem.training.microbatches import microbatches
from stratagem.training.weights import learned, put, taken

LENGTHS = [9, 30, 12, 7, 21, 5, 16]
EVERYTHING = {"entropy", "mean_logp", "value", "value_after", "median", "hidden", "before", "after", "top_id"}


def spoken(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> Experience:
    """Conversations of one turn each, whose first three tokens, alike in all, are read, and rewards."""
    source = generator(seed, "spoken")
    tokens = torch.randint(20, 300, (sum(lengths),), generator=source)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    starts = [end - length for end, length in zip(ends, lengths, strict=True)]
    for start in starts:
        tokens[start : start + 3] = torch.tensor([40, 41, 42])
    actions = torch.cat([torch.arange(start + 3, end) for start, end in zip(starts, ends, strict=True)])
    return Experience.from_lengths(
        [length - 3 for length in lengths],
        [1] * len(lengths),
        [len(lengths)],
        inputs=TokenInputs(tokens, torch.tensor(lengths), actions),
        reward=torch.rand(len(lengths), generator=source),
        behavior_logp=-torch.rand(len(actions), generator=source) * 5,
    )


def moved(policy: Any) -> dict[str, Tensor]:
    """Weights near those of a policy, so that it is another one than its reference."""
    source, names = generator(1, "moved"), {}
    for name, tensor in policy.state_dict().items():
        names[name] = tensor + 0.02 * torch.randn(tensor.shape, generator=source)
    if "model.lm_head.weight" in names and policy.model.config.tie_word_embeddings:
        names["model.lm_head.weight"] = names["model.model.embed_tokens.weight"]
    return names


def gradients(policy: Any, recipe: Any, x: Experience, weights: Mapping[str, Tensor]) -> tuple[float, dict[str, Any]]:
    """Loss and gradients of a recipe on a batch, for a policy that has moved since its reference was taken."""
    companions = Companions(policy, recipe)
    policy.load_state_dict(weights)
    x = recipe.credit(companions.complete(recipe, x))
    total = 0.0
    for piece in microbatches(x, recipe.optimization.microbatch_tokens):
        loss = recipe.objective(policy(piece, also=recipe.output_needs()), piece).loss
        loss.backward()
        total += float(loss.detach())
    return total, {name: None if p.grad is None else whole(p.grad) for name, p in policy.named_parameters()}


def assert_same_gradients(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-6) -> None:
    assert one.keys() == other.keys()
    assert max(float(gradient.abs().max()) for gradient in one.values() if gradient is not None) > 1e-3
    for name, gradient in one.items():
        assert (gradient is None) == (other[name] is None), name
        if gradient is not None:
            error, scale = (gradient - other[name]).norm(), gradient.norm()
            assert float(error) <= tolerance * float(scale), f"{name}: {float(error / scale)}"


CASES = {
    "grpo with reference": ("grpo", {}, {"kl": 0.1}, LENGTHS),
    "a critic": ("ppo", {}, {}, LENGTHS),
    "micro-batches": ("grpo", {}, {"optimization__microbatch_tokens": 40}, LENGTHS),
    "micro-batches of one each": ("ppo", {}, {"optimization__microbatch_tokens": 1}, LENGTHS),
    "one trajectory": ("ppo", {}, {}, [14]),
    "two, one of them long": ("ppo", {}, {}, [60, 5]),
    "adapters": ("grpo", {"lora": LoRA(4)}, {"kl": 0.1}, LENGTHS),
    "layers computed twice": ("grpo", {"gradient_checkpointing": True}, {}, LENGTHS),
    "logits in chunks": ("grpo", {"logits_budget": 3000}, {}, LENGTHS),
    "bfloat16": ("ppo", {"dtype": "bfloat16", "gradient_checkpointing": True}, {}, LENGTHS),
    "a detached critic": ("ppo", {"value_gradient": False}, {}, LENGTHS),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process(in_shards, make_policy, small, case):
    name, options, values, lengths = CASES[case]
    values = dict(values)
    kl = values.pop("kl", 0.0)
    recipe = small(name, **values)
    if kl:
        recipe = recipe.replace(objective=recipes.grpo(kl_coefficient=kl).objective)
    x, alone = spoken(lengths), make_policy(**options)
    weights = moved(alone)
    loss, expected = gradients(alone, recipe, x, weights)

    def check(place: Place) -> Any:
        with joined(place) as group:
            policy = make_policy(**options)
            shard(policy, group)
            return gradients(policy, recipe, x, weights)

    for said, found in in_shards(check):
        low = case == "bfloat16"
        assert said == pytest.approx(loss, rel=1e-5, abs=1e-2 if low else 1e-6)
        assert_same_gradients(expected, found, tolerance=3e-2 if low else 1e-6)


def test_three_shards_for_two_trajectories_agree_with_one(in_shards, make_policy, small):
    x, alone, recipe = spoken([20, 20]), make_policy(), small("ppo")
    weights = moved(alone)
    _, expected = gradients(alone, recipe, x, weights)

    def check(place: Place) -> Any:
        with joined(place) as group:
            policy = make_policy()
            shard(policy, group)
            return gradients(policy, recipe, x, weights)[1]

    for found in in_shards(check, size=3):
        assert_same_gradients(expected, found)


@pytest.mark.parametrize("view", [None, ResponseOnly(), InternalLayer(1), InternalLayer(2, "attention")])
def test_it_says_what_one_process_says(in_shards, make_policy, view):
    x, alone = spoken(), make_policy()
    also = EVERYTHING if view is None else {"entropy"}
    expected = alone(x, also=also, view=view)

    def check(place: Place) -> float:
        with joined(place) as group:
            policy = make_policy()
            shard(policy, group)
            found = policy(x, also=also, view=view)
            for name in ("logp", *also):
                torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-5)
            prompts, own = policy.prompt_logp(x), alone.prompt_logp(x)
            torch.testing.assert_close(prompts.logp, own.logp)
            nothing = Experience.from_lengths(
                [0],
                [1],
                [1],
                inputs=TokenInputs(torch.tensor([5]), torch.tensor([1]), torch.tensor([], dtype=torch.int64)),
            )
            return len(policy(nothing, also=also).logp)

    assert in_shards(check) == [0, 0]


@pytest.mark.parametrize("options", [{}, {"lora": LoRA(4)}])
def test_weights_states_and_copies_are_whole_and_the_same(in_shards, make_policy, tmp_path, options):
    alone = make_policy(**options)
    state, weights = alone.state_dict(), dict(alone.weights())

    def check(place: Place) -> int:
        with joined(place) as group:
            policy = make_policy(seed=place.rank, **options)
            if place.rank == 0:
                policy.load_state_dict(state)
            shard(policy, group)  # What shard 0 has is everyone's.
            held = sum(own_part(parameter).numel() for parameter in policy.parameters())
            assert all(is_divided(parameter) for parameter in policy.parameters())
            copied = policy.copy()
            for one in (policy, copied):
                assert list(one.state_dict()) == list(state)
                for name, tensor in one.state_dict().items():
                    assert torch.equal(whole(tensor), state[name]), name
                found = dict(one.weights())
                assert found.keys() == weights.keys()
                for name, tensor in weights.items():
                    torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7)
            with torch.no_grad():
                next(iter(policy.policy_parameters())).mul_(2)
            assert all(torch.equal(whole(t), state[name]) for name, t in copied.state_dict().items())
            assert not any(parameter.requires_grad for parameter in copied.parameters())
            policy.load_state_dict(state)
            with pytest.raises(RuntimeError, match="size mismatch"):
                policy.load_state_dict({name: tensor[..., :1] for name, tensor in state.items()})
            policy.save(tmp_path / "model" if place.rank == 0 else tmp_path / "elsewhere", "a card")
            return held

    total = sum(parameter.numel() for parameter in alone.parameters())
    held = in_shards(check)
    assert sum(held) == total and max(held) < 0.6 * total
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "model" / "README.md").read_text() == "a card"
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, tensor in read.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-6, atol=1e-7)


def test_learned_weights_are_taken_and_put_back_by_parts(in_shards, make_policy):
    alone = make_policy()
    names = list(learned(alone))

    def check(place: Place) -> list[str]:
        with joined(place) as group:
            policy = make_policy()
            shard(policy, group)
            kept = taken(policy)
            other = {name: whole(tensor) + 1 for name, tensor in kept.items()}
            put(policy, other)
            assert all(torch.equal(whole(t), other[name]) for name, t in learned(policy).items())
            put(policy, kept)
            assert all(torch.equal(whole(t), alone.state_dict()[name]) for name, t in learned(policy).items())
            return list(kept)

    # Of three shards some have no part of a tensor with fewer rows.
    assert in_shards(check, size=3) == [names] * 3


def test_a_team_is_divided_member_by_member(in_shards, make_policy, small):
    x, recipe = spoken(), small("grpo").replace(objective=recipes.grpo(kl_coefficient=0.1).objective)
    x = x.replace(turn_role=torch.tensor([0, 1, 1, 0, 0, 1, 1]))

    def team() -> Team:
        return Team({0: make_policy(0), None: make_policy(1)})

    alone = team()
    weights = {name: tensor * 1.01 for name, tensor in alone.state_dict().items()}
    _, expected = gradients(alone, recipe, x, weights)

    def check(place: Place) -> Any:
        with joined(place) as group:
            policy = team()
            shard(policy, group)
            return gradients(policy, recipe, x, weights)[1]

    for found in in_shards(check):
        assert_same_gradients(expected, found)


def test_what_it_cannot_do_is_refused_in_a_line(in_shards, make_policy):
    x = spoken()

    def check(place: Place) -> bool:
        with joined(place) as group:
            policy = make_policy()
            with pytest.raises(InputError, match="offload: is from a CUDA device to main memory"):
                shard(policy, group, offload=True)
            shard(policy, group)
            assert isinstance(policy, ShardedPolicy)
            with pytest.raises(InputError, match="divided among shards already"):
                shard(policy, group)
            for ask in (lambda: policy(x, view=Perturbed()), lambda: policy.view_parameters(Perturbed())):
                with pytest.raises(InputError, match="ShardedPolicy has no view perturbed"):
                    ask()
            for alone in (lambda: policy(x), lambda: dict(policy.weights())):
                with pytest.raises(InputError, match="a divided policy"):
                    group.lead(alone)
        return True

    assert in_shards(check) == [True, True]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=12), size=st.integers(1, 5)
)
def test_shares_hold_every_action_once_in_order_and_are_balanced(lengths, size):
    read, acted = zip(*lengths, strict=True)
    if not sum(acted):
        return
    total = torch.tensor([a + b for a, b in lengths])
    starts = total.cumsum(0) - total
    positions = [torch.arange(b) + s + a for a, b, s in zip(read, acted, starts.tolist(), strict=True)]
    inputs = TokenInputs(torch.arange(int(total.sum())), total, torch.cat(positions))
    divided = [shares(inputs, size, rank) for rank in range(size)]
    assert all(counts == divided[0][1] for _, counts in divided)
    counts = divided[0][1]
    own = [mine.actions[:count] for (mine, _), count in zip(divided, counts, strict=True)]
    assert torch.equal(torch.cat(own), inputs.actions)
    assert all(len(mine.actions) >= max(count, 1) for (mine, _), count in zip(divided, counts, strict=True))
    tokens = [len(mine.token_ids) for (mine, _), count in zip(divided, counts, strict=True) if count]
    acting = total[torch.tensor(acted) > 0]
    assert sum(tokens) == int(acting.sum())
    assert max(tokens) <= int(acting.sum()) / size + int(acting.max())
