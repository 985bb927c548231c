"""Seeds that every process derives alike."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from stratagem.seeding import derive, generator, numpy_generator


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
