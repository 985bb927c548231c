from collections.abc import Iterator

import pytest
import torch

from stratagem.language.engine import WeightMismatchError, copy_weights, fingerprint


class Weights:
    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = tensors

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.tensors.items()


def test_fingerprint_is_the_weighted_sum_of_bit_patterns() -> None:
    # Bits of 1.0 and -2.0 as signed 32-bit integers: 0x3F800000 and 0xC0000000 - 2^32.
    expected = (0x3F800000 + 1) * 1 + (0xC0000000 - 2**32 + 1) * 3
    assert fingerprint(torch.tensor([1.0, -2.0])) == expected % 2**64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8])
def test_fingerprint_sees_order_and_every_bit(dtype: torch.dtype) -> None:
    tensor = torch.arange(100).to(dtype)
    swapped, nudged = tensor.clone(), tensor.clone()
    swapped[[3, 4]] = tensor[[4, 3]]
    nudged[50] += 1
    assert len({fingerprint(tensor), fingerprint(swapped), fingerprint(nudged)}) == 3
    assert fingerprint(tensor) == fingerprint(tensor.clone().view(10, 10))


def test_fingerprint_of_a_large_tensor_does_not_depend_on_how_it_is_cut() -> None:
    tensor = torch.ones(2**22 + 3, dtype=torch.int8)
    # (1 + 1) times the sum of the first n odd numbers, n^2.
    assert fingerprint(tensor) == 2 * (2**22 + 3) ** 2 % 2**64


def test_copied_weights_are_those_given() -> None:
    served = {"a": torch.zeros(3, dtype=torch.bfloat16), "b": torch.zeros(2)}
    copy_weights(Weights(a=torch.tensor([1.0, 2.0, 3.5]), b=torch.tensor([4.0, 5.0])), served)
    assert served["a"].tolist() == [1.0, 2.0, 3.5] and served["b"].tolist() == [4.0, 5.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": torch.ones(2), "c": torch.ones(2)}, r"the engine has no tensor c of shape \(2,\)"),
        ({"a": torch.ones(3)}, r"the engine has no tensor a of shape \(3,\)"),
        ({"a": torch.ones(2)}, "the policy gave no weights for b"),
    ],
)
def test_weights_that_do_not_fit_are_refused(given: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(WeightMismatchError, match=message):
        copy_weights(Weights(**given), {"a": torch.zeros(2), "b": torch.zeros(2)})


def test_weights_that_are_not_served_are_noticed() -> None:
    """Two names for one memory, as when a tensor was wrongly tied: the later copy spoils the earlier one."""
    shared = torch.zeros(2)
    with pytest.raises(WeightMismatchError, match="a differs from the policy's after loading"):
        copy_weights(Weights(a=torch.ones(2), b=torch.zeros(2)), {"a": shared, "b": shared})
