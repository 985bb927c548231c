"""Seeds that every process derives alike."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from stratagem.seeding import _GOLDEN, _mix, derive, generator, numpy_generator, uniform


def test_every_process_derives_the_same_seed():
    program = "from stratagem.seeding import derive; print(derive(7, 'rollout', 3))"
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(elsewhere.stdout) == derive(7, "rollout", 3)


def test_seeds_differ_in_every_place_of_the_path():
    seeds = {derive(seed, name, step) for seed in range(10) for name in ("rollout", "shuffle") for step in range(10)}
    assert len(seeds) == 200
    assert derive(0, "1") != derive(0, 1)
    assert derive(0, 1, 2) != derive(0, 12)


def test_a_seed_fits_into_63_bits():
    assert all(0 <= derive(seed) < 2**63 for seed in range(100))


def test_an_integer_counts_by_its_value_whatever_its_type():
    assert derive(np.int64(7), "rollout", np.int32(3)) == derive(7, "rollout", 3)
    with pytest.raises(TypeError):
        derive(7, 1.5)


def test_generators_repeat_and_do_not_touch_the_global_ones():
    before = torch.random.get_rng_state()
    first, second = generator(1, "a"), generator(1, "a")
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))
    assert numpy_generator(1, "a").random() == numpy_generator(1, "a").random()
    assert numpy_generator(1, "a").random() != numpy_generator(1, "b").random()
    assert torch.equal(before, torch.random.get_rng_state())


def test_uniform_is_splitmix64_of_seed_then_counter():
    def mix(bits: int) -> int:
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        return bits ^ (bits >> 31)

    golden = 0x9E3779B97F4A7C15
    for seed, counter in [(0, 0), (1, 5), (-3, 77), (2**62, 10**6)]:
        expected = (mix((mix((seed + golden) % 2**64) + (counter + 1) * golden) % 2**64) >> 11) * 2.0**-53
        assert uniform(torch.tensor(seed), torch.tensor(counter)).item() == expected


def test_splitmix_finaliser_matches_the_published_sequence():
    # First output of the reference splitmix64 generator seeded with 0.
    assert int(_mix(torch.tensor(_GOLDEN))) % 2**64 == 0xE220A8397B1DCDAF


def test_uniform_numbers_are_uniform_over_seeds_and_over_counters():
    by_seed = uniform(torch.arange(20_000), torch.tensor(3))
    by_counter = uniform(torch.tensor(3), torch.arange(20_000))
    for numbers in (by_seed, by_counter):
        assert bool(((numbers >= 0) & (numbers < 1)).all())
        assert kstest(numbers.numpy(), "uniform").pvalue > 0.01
    assert abs(torch.corrcoef(torch.stack((by_seed, by_counter)))[0, 1].item()) < 0.03
