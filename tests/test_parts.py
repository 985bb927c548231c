"""The contract of a part: validated when built, found by name, able to remember."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import torch
from annotated_types import Ge
from torch import Tensor

from stratagem import part
from stratagem.advantages import GAE, BatchWhitened, Constant, GroupCentered, LeaveOneOut, MovingAverageBaseline
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import KL, Clip, EntropyBonus, PolicyGradient, TokenMean, TokenRatio, TruncatedImportance
from stratagem.optimizers import AdamW
from stratagem.part import find_part
from stratagem.parts import Advantage, Gate
from stratagem.sampling import Rollouts


def pulls(*rewards: float) -> Experience:
    """One group of one-token trajectories."""
    ones = [1] * len(rewards)
    return Experience.from_lengths(ones, ones, [len(rewards)], reward=torch.tensor(rewards))


# ---- validation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: Clip(low=-0.1), ("clip.low = -0.1", "greater than or equal to 0")),
        (lambda: Clip(dual=1.0), ("clip.dual = 1.0", "greater than 1")),
        (lambda: Clip(high=math.nan), ("clip.high = nan", "greater than or equal to 0")),
        (lambda: Clip(low="much"), ("clip.low = 'much'", "valid number")),
        (lambda: GAE(discount=1.01), ("gae.discount = 1.01", "less than or equal to 1")),
        (lambda: KL("k4"), ("kl.estimator = 'k4'", "'k1', 'k2', 'k3' or 'abs'")),
        (lambda: Rollouts(group_size=0), ("rollouts.group_size = 0", "greater than or equal to 1")),
        (lambda: Rollouts(group_size=1.5), ("rollouts.group_size = 1.5", "integer")),
        (lambda: PolicyGradient(gate=TokenMean()), ("policy_gradient.gate = TokenMean()", "instance of Gate")),
        (lambda: PolicyGradient(critic=KL()), ("policy_gradient.critic = KL(", "instance of ValueLoss")),
        (lambda: BatchWhitened(Clip()), ("batch_whitened.of = Clip(", "instance of Advantage")),
        (lambda: TruncatedImportance(low=3.0), ("truncated_importance.low = 3.0", "truncated_importance.high = 2.0")),
        (lambda: Clip(low=torch.zeros(3, 3)), ("clip.low = tensor(", "valid number")),
    ],
)
def test_a_wrong_value_raises_one_line_with_part_field_value_and_what_is_allowed(build, names):
    with pytest.raises(InputError) as caught:
        build()
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message


def test_numbers_are_kept_in_the_type_of_their_field():
    clip = Clip(low=0, high="0.3")
    assert (clip.low, clip.high) == (0.0, 0.3)
    assert isinstance(clip.low, float)
    assert TruncatedImportance(high=math.inf).high == math.inf


def test_parts_with_the_same_fields_are_equal_and_hashable():
    assert Clip(0.1) == Clip(0.1) != Clip(0.2)
    assert MovingAverageBaseline(0.5) == MovingAverageBaseline(0.5)
    assert len({KL(), KL(), KL("k1")}) == 2


# ---- composition ----------------------------------------------------------------------------------------------------


def test_advantages_add_up_and_scale():
    x = pulls(1.0, 0.0)
    credit = GroupCentered() + 0.5 * LeaveOneOut() + Constant(2.0)
    assert [type(term).__name__ for term in credit.terms] == ["GroupCentered", "ScaledAdvantage", "Constant"]
    assert credit(x).tolist() == [0.5 + 0.5 * 1 + 2, -0.5 - 0.5 + 2]


def test_regularizers_add_up_and_scale():
    x = pulls(1.0, 0.0).replace(ref_logp=torch.tensor([-1.0, -2.0]))
    out = PolicyOutput(torch.tensor([-1.5, -1.0]), entropy=torch.tensor([0.5, 0.25]))
    penalty = 2.0 * KL("k1") + EntropyBonus()
    assert penalty(out, x).tolist() == [2 * -0.5 - 0.5, 2 * 1.0 - 0.25]
    assert penalty.needs() == {"ref_logp", "output.entropy"}


def test_a_part_needs_what_its_children_need():
    assert BatchWhitened(GAE()).needs() == {"value"}
    assert PolicyGradient(regularizer=0.1 * KL(), correction=TruncatedImportance()).needs() == {
        "old_logp",
        "behavior_logp",
        "ref_logp",
    }
    assert TokenRatio("behavior").needs() == {"behavior_logp"}


def test_the_least_group_is_that_of_the_most_demanding_term():
    assert (BatchWhitened(Constant()) + GroupCentered()).least_group() == 2
    assert BatchWhitened(GAE()).least_group() == 1


def test_the_value_target_is_found_inside_a_composition():
    x = pulls(1.0).replace(value=torch.tensor([0.25]))
    assert (0.5 * BatchWhitened(GAE()) + Constant()).value_target(x).tolist() == [1.0]
    assert GroupCentered().value_target(x) is None


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_memory_has_a_dotted_path_and_can_be_restored():
    credit = BatchWhitened(MovingAverageBaseline(0.5)) + Constant()
    credit(pulls(4.0, 0.0))
    saved = {name: tensor.clone() for name, tensor in credit.state_dict().items()}
    paths = {f"terms.batch_whitened.of.{name}": value for name, value in (("average", 1.0), ("batches", 1.0))}
    assert {name: float(tensor) for name, tensor in saved.items()} == paths
    fresh = BatchWhitened(MovingAverageBaseline(0.5)) + Constant()
    fresh.load_state_dict(saved)
    assert {name: float(tensor) for name, tensor in fresh.state_dict().items()} == paths
    with pytest.raises(KeyError):
        fresh.load_state_dict({})


def test_memory_survives_a_changed_field_and_is_not_shared_by_the_copies():
    baseline = MovingAverageBaseline(0.5)
    baseline(pulls(4.0, 0.0))
    changed = baseline.replace(decay=0.9)
    assert float(changed.memory()["average"]) == 1.0
    changed(pulls(0.0, 0.0))
    assert float(baseline.memory()["average"]) == 1.0


# ---- by name --------------------------------------------------------------------------------------------------------


def test_parts_are_found_by_the_name_of_their_concept():
    assert find_part("advantage", "leave_one_out") is LeaveOneOut
    assert find_part("advantage", "gae") is GAE
    assert find_part("optimization", "adam_w") is AdamW
    assert find_part("regularizer", "kl") is KL


def test_an_unknown_part_names_the_nearest():
    with pytest.raises(InputError, match=r"^unknown advantage 'leave_one_outt'; did you mean 'leave_one_out'\?$"):
        find_part("advantage", "leave_one_outt")
    with pytest.raises(InputError, match=r"^unknown gate 'zzz'; known: .*clip.*unclipped"):
        find_part("gate", "zzz")


@dataclass
class Entry:
    """An installed entry point."""

    action: object

    def load(self) -> None:
        self.action()


def test_a_part_of_another_package_is_found_when_it_is_named(monkeypatch):
    def register() -> None:
        @dataclass(frozen=True)
        class SomebodyElsesGate(Gate):
            strength: Annotated[float, Ge(0)] = 1.0
            allowed: ClassVar[int] = 3

            def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Tensor:
                return self.strength * ratio * advantage

    def installed(group: str) -> list[Entry]:
        assert group == "stratagem.parts"
        return [Entry(register)]

    monkeypatch.setattr(part, "entry_points", installed)
    monkeypatch.setitem(part.REGISTRY, "gate", dict(part.REGISTRY["gate"]))
    part.load_third_party_parts.cache_clear()
    try:
        found = find_part("gate", "somebody_elses_gate")
    finally:
        part.load_third_party_parts.cache_clear()
    assert found(strength=2.0).strength == 2.0
    with pytest.raises(InputError, match=r"somebody_elses_gate\.strength = -1"):
        found(strength=-1)


def test_a_second_part_of_the_same_name_from_elsewhere_is_refused():
    with pytest.raises(InputError, match=r"gate 'clip' is already known, from stratagem\.objectives\.gates"):
        type("Clip", (Gate,), {"__module__": "somewhere.else"})
    assert find_part("gate", "clip") is Clip


def test_contracts_and_private_classes_are_not_in_the_registry():
    type("_Hidden", (Advantage,), {"__module__": __name__})
    assert "advantage" not in part.REGISTRY["advantage"]
    assert not any("hidden" in name for name in part.REGISTRY["advantage"])


# ---- optimization ---------------------------------------------------------------------------------------------------


def test_adamw_has_the_policy_first_and_the_critic_second_with_its_own_rate():
    weight, head = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(1))
    optimizer = AdamW(learning_rate=0.1, critic_learning_rate=0.01, beta1=0.8).optimizer([weight], [head])
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    (weight.sum() + head.sum()).backward()
    optimizer.step()
    # The first step of Adam is the learning rate against the sign of the gradient.
    assert weight.tolist() == pytest.approx([0.9, 0.9])
    assert head.tolist() == pytest.approx([0.99])


def test_adamw_without_a_critic_has_an_empty_second_group():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = AdamW(learning_rate=0.1).optimizer([weight], [])
    weight.sum().backward()
    optimizer.step()
    assert weight.item() == pytest.approx(0.9)
    assert len(optimizer.param_groups) == 2


def test_a_package_that_cannot_be_imported_is_skipped_with_a_warning(monkeypatch):
    class Broken:
        value = "missing_package.parts"

        def load(self):
            raise ModuleNotFoundError("No module named 'missing_package'")

    monkeypatch.setattr(part, "entry_points", lambda group: [Broken()])
    with pytest.warns(UserWarning, match="missing_package.parts cannot be imported"):
        part.import_entry_points("stratagem.parts")


def test_a_factor_may_stand_on_either_side():
    assert 0.5 * GroupCentered() == GroupCentered() * 0.5
