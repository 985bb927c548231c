"""The memory plan, by numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.training.memory_plan import (
    MemoryPart,
    MemoryPlan,
    ModelShape,
    Workload,
    doubled,
    layer_bytes,
    memory_plan,
    offloaded_bytes,
    rollout_plan,
)
from stratagem.training.memory_settings import needed_bytes, process_plans, settings_that_help

SHAPE = ModelShape(
    parameters=1000,
    linear=900,
    hidden=600,
    largest=300,
    ends=50,
    adapted=7,
    layers=3,
    width=8,
    intermediate=20,
    heads=4,
    kv_heads=2,
    head_dim=5,
    vocabulary=100,
    gated=True,
    head_norms=False,
    context=64,
)
WORK = Workload(sequence=10, prompt=4, episodes=6, concurrency=5)


def sizes(work: Workload, shape: ModelShape = SHAPE, base: int = 0) -> dict[str, int]:
    return {part.name: part.size for part in memory_plan(shape, work, base).parts}


def test_weights_gradients_and_moments_in_float32() -> None:
    # The critic's two heads have 2 (8 + 1) = 18 weights.
    found = sizes(WORK, base=77)
    assert found["Python and torch"] == 77
    assert found["weights, float32"] == found["gradients"] == 4 * 1018
    assert found["optimizer state"] == 8 * 1018
    assert found["engine's copy of the weights"] == 4000
    assert "bfloat16 working weights" not in found and "adapters" not in found


def test_bfloat16_halves_the_engine_and_casts_the_linear_layers() -> None:
    found = sizes(replace(WORK, bfloat16=True))
    assert found["engine's copy of the weights"] == 2000
    assert found["bfloat16 working weights"] == 2 * 900
    assert found["weights, float32"] == 4 * 1018


def test_adapters_alone_have_gradients_and_moments() -> None:
    found = sizes(replace(WORK, lora=2))
    assert found["adapters"] == 4 * 100
    assert found["gradients"] == 4 * 118 and found["optimizer state"] == 8 * 118


def test_muon_keeps_one_moment_of_a_matrix() -> None:
    assert sizes(replace(WORK, states=(1, 2)))["optimizer state"] == 4 * (600 + 2 * 400 + 2 * 18)


def test_gradients_are_held_in_the_update_alone() -> None:
    phases = {part.name: part.phases for part in memory_plan(SHAPE, WORK).parts}
    assert phases["gradients"] == ("update",) and "rollouts" in phases["optimizer state"]


def test_saving_merges_adapters_into_the_weights_of_the_layers() -> None:
    name = "adapters merged into weights"
    assert sizes(replace(WORK, lora=2))[name] == 4 * 600 and name not in sizes(WORK)
    # On a cluster it goes to main memory, a tensor at a time.
    found = sizes(replace(WORK, lora=2, rollout_workers=1))
    assert name not in found and found["a tensor brought together"] == 2 * 4 * 300


def test_with_adapters_on_a_processor_the_heap_keeps_more_than_is_used() -> None:
    work = replace(WORK, lora=2)
    found = sizes(work)
    update = found["activations kept for the backward pass"] + found["the largest step of the backward pass"]
    assert found["freed memory that the C library keeps"] == int(2 / 3 * update)
    assert found["memory of the update that the C library keeps"] == update + int(2 / 3 * update)
    assert not [name for name in [*sizes(WORK), *sizes(replace(work, cuda=True))] if "C library" in name]


def test_adapters_need_no_reference_but_other_copies_hold_them() -> None:
    name, both = "frozen copies the recipe needs", replace(WORK, references=1, copies=1)
    assert sizes(both)[name] == 8000
    assert sizes(replace(both, lora=2))[name] == 4 * 1100


def test_snapshots_lie_in_main_memory() -> None:
    name, some = "snapshots the recipe keeps", replace(WORK, snapshots=3)
    assert sizes(some)[name] == 12_000 and name not in sizes(replace(some, cuda=True))


def test_learners_divide_weights_gradients_moments_and_episodes() -> None:
    work = replace(WORK, learners=4, rollout_workers=1, references=1, episodes=7)
    found, alone = sizes(work), sizes(replace(work, learners=1))
    assert found["weights, float32"] == found["gradients"] == 4 * 255  # a quarter of 1018, rounded up
    assert found["optimizer state"] == 4 * 509 and found["frozen copies the recipe needs"] == 4 * 250
    assert found["whole weights before they are divided"] == 4 * 1018
    # From main memory to a device comes what is outside the layers, and with it the critic, or one layer.
    assert sizes(replace(work, cuda=True))["whole weights before they are divided"] == 4 * 418
    # Outside the layers 400, a layer 200 and the next; gradients of all but the next.
    assert found["layers brought together"] == 4 * (400 + 2 * 200 + 400 + 200)
    assert work.share_tokens == 20 and work.piece_tokens == 70  # two of seven episodes
    kept = "activations kept for the backward pass"
    assert found[kept] * 7 == alone[kept] * 2
    assert not {"engine's copy of the weights", "KV cache"} & (found.keys() | alone.keys())
    assert "layers brought together" not in alone


def test_with_adapters_only_they_have_gradients_where_layers_are_brought_together() -> None:
    found = sizes(replace(WORK, learners=2, rollout_workers=1, lora=3, cuda=True))
    assert found["adapters"] == 4 * 75 and found["gradients"] == 4 * (75 + 9)
    assert found["layers brought together"] == 4 * (400 + 2 * (200 + 50) + 50)


def test_bfloat16_working_weights_are_whole_for_every_learner() -> None:
    assert sizes(replace(WORK, learners=8, rollout_workers=1, bfloat16=True))["bfloat16 working weights"] == 2 * 900


def test_offloaded_is_what_the_device_no_longer_holds() -> None:
    work = replace(WORK, learners=2, rollout_workers=1, copies=1, cuda=True)
    kept, moved = sizes(work), sizes(replace(work, offload=True))
    gone = ["weights, float32", "gradients", "optimizer state", "frozen copies the recipe needs"]
    assert set(kept) - set(moved) == set(gone)
    assert offloaded_bytes(SHAPE, replace(work, offload=True)) == sum(kept[name] for name in gone)
    assert offloaded_bytes(SHAPE, work) == 0
    assert "layers brought together" in sizes(replace(work, offload=True, learners=1))


def test_a_rollout_worker_holds_the_engine_and_its_share_of_the_sessions() -> None:
    work = replace(WORK, episodes=64, concurrency=64, rollout_workers=2)
    found = {part.name: part.size for part in rollout_plan(SHAPE, work, 77).parts}
    assert work.sessions == 32
    assert found["KV cache"] == 3 * 32 * 16 * 2 * 5 * 2 * 4 * 5 // 4
    assert found["weights the engine is made from"] == found["engine's copy of the weights"] == 4000
    on_a_device = rollout_plan(SHAPE, replace(work, cuda=True, bfloat16=True))
    assert on_a_device.in_phase("start") == 2000
    assert found["a tensor of new weights"] == 4 * 300 and found["Python and torch"] == 77
    assert "gradients" not in found


def test_devices_must_hold_the_largest_process_and_a_processor_all_of_them() -> None:
    work = replace(WORK, learners=2, rollout_workers=3, cuda=True)
    learner, worker = process_plans(SHAPE, work, 7)
    assert (learner.role, learner.count) == ("learner", 2) and (worker.role, worker.count) == ("rollout worker", 3)
    assert needed_bytes(SHAPE, work, 7) == max(learner.plan.total, worker.plan.total)
    learner, worker = process_plans(SHAPE, replace(work, cuda=False), 7)
    assert needed_bytes(SHAPE, replace(work, cuda=False), 7) == 2 * learner.plan.total + 3 * worker.plan.total
    (one,) = process_plans(SHAPE, WORK)
    assert one.role == "process" and needed_bytes(SHAPE, WORK) == one.plan.total == memory_plan(SHAPE, WORK).total


@given(
    learners=st.integers(1, 40),
    episodes=st.integers(1, 80),
    lora=st.sampled_from([None, 2]),
    offload=st.booleans(),
    bfloat16=st.booleans(),
)
def test_more_processes_never_need_more_each(
    learners: int, episodes: int, lora: int | None, offload: bool, bfloat16: bool
) -> None:
    work = replace(WORK, episodes=episodes, concurrency=80, lora=lora, bfloat16=bfloat16, offload=offload, cuda=True)
    work = replace(work, learners=learners, rollout_workers=learners)
    more = replace(work, learners=learners + 1, rollout_workers=learners + 1)
    assert rollout_plan(SHAPE, more).total <= rollout_plan(SHAPE, work).total
    assert offloaded_bytes(SHAPE, more) <= offloaded_bytes(SHAPE, work)
    if work.divided:  # from one to two, layers must be brought together
        assert memory_plan(SHAPE, more).total <= memory_plan(SHAPE, work).total


def test_the_cache_doubles_rows_and_positions_and_grows_by_a_quarter() -> None:
    # 5 sessions have 16 rows, 10 tokens 16 places: 3 layers x 16 x 16 x 2 heads x 5 x (keys and values) x 4 bytes.
    assert sizes(WORK)["KV cache"] == 3 * 16 * 16 * 2 * 5 * 2 * 4 * 5 // 4
    low = replace(WORK, bfloat16=True)
    assert sizes(low)["KV cache"] == sizes(WORK)["KV cache"]  # float32 on a processor
    assert 2 * sizes(replace(low, cuda=True))["KV cache"] == sizes(WORK)["KV cache"]
    assert [doubled(n) for n in (1, 16, 17, 100)] == [16, 16, 32, 128]


def test_what_a_layer_keeps_of_a_token() -> None:
    # Q = 20, K = 10: norms 6 x 8, feed-forward 4 x 20, attention 2 x 20 + 2 x 10, scales 2 + 4.
    assert layer_bytes(SHAPE, WORK) == 4 * (48 + 80 + 60 + 6)
    normed = replace(SHAPE, head_norms=True)
    assert layer_bytes(normed, WORK) == 4 * (48 + 80 + 120 + 6 + 6)
    # Frozen norms keep 2 x 8 fewer, seven adapters of rank 2 keep 14 more.
    assert layer_bytes(SHAPE, replace(WORK, lora=2)) == 4 * (32 + 80 + 60 + 6 + 14)
    # bfloat16: norms 4 x 8 in float32 and 5 x 8 in half; 80 in half; attention float32, its output in half as well.
    assert layer_bytes(SHAPE, replace(WORK, bfloat16=True)) == 4 * (32 + 60 + 6) + 2 * (40 + 80 + 20)
    # Written out: 4 heads x 10 positions, and 10 keys and 10 values more.
    assert layer_bytes(SHAPE, replace(WORK, cuda=True)) == layer_bytes(SHAPE, WORK) + 4 * (40 + 20)
    assert layer_bytes(replace(SHAPE, gated=False), WORK) == 4 * (48 + 100 + 60 + 6)


def test_activations_of_a_micro_batch_with_and_without_checkpointing() -> None:
    kept, step = "activations kept for the backward pass", "the largest step of the backward pass"
    work = replace(WORK, microbatch_tokens=25)
    assert work.piece_tokens == 20  # two episodes of 10
    found = sizes(work)
    assert found[kept] == 20 * (3 * 776 + 4 * (4 * 8 + 2 * 5))
    # Logits: 20 tokens x 100 words x 3 buffers; a layer: 20 x (4 x 20 + 3 x 8); twice the largest gradient.
    assert found[step] == 4 * 20 * 100 * 3 + 8 * 300
    found = sizes(replace(work, checkpointing=True))
    assert found[kept] == 20 * (3 * 4 * 8 + 4 * (4 * 8 + 2 * 5))
    assert found[step] == max(24_000, 20 * (4 * 104 + 776)) + 8 * 300


def test_logits_come_in_chunks() -> None:
    step = "the largest step of the backward pass"
    chunked = replace(WORK, logits_budget=900)  # 9 of 60 tokens: the layer needs more
    assert sizes(chunked)[step] == 60 * 4 * (80 + 24) + 8 * 300
    assert sizes(replace(WORK, read_figures=True))[step] == 4 * 60 * 100 * 6 + 8 * 300


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, 60),
        ({"minibatches": 4}, 20),
        ({"microbatch_tokens": 1}, 10),
        ({"microbatch_tokens": 1, "together": 3}, 30),
        ({"microbatch_tokens": 10**6}, 60),
    ],
)
def test_positions_of_a_micro_batch(changes: dict[str, int], tokens: int) -> None:
    assert replace(WORK, **changes).piece_tokens == tokens


def test_the_total_is_that_of_the_phase_that_needs_most() -> None:
    plan = MemoryPlan((MemoryPart("a", 5), MemoryPart("b", 7, ("rollouts",)), MemoryPart("c", 6, ("update", "start"))))
    assert [plan.in_phase(phase) for phase in ("start", "rollouts", "update")] == [11, 12, 11]
    assert plan.peak_phase == "rollouts" and plan.total == 12


def test_settings_come_with_what_each_brings_alone_and_on_top() -> None:
    work = replace(WORK, episodes=64, concurrency=64)

    def total(**changes: object) -> int:
        return memory_plan(SHAPE, replace(work, **changes)).total

    pieces = total(microbatch_tokens=10)
    found = {setting.option: setting for setting in settings_that_help(SHAPE, work, 1)}
    assert list(found) == [
        "--set optimization.microbatch_tokens=10",
        "--gradient-checkpointing",
        "--concurrency 16",
        "--precision bfloat16",
        "--lora 8",
    ]
    first = found["--set optimization.microbatch_tokens=10"]
    assert first.alone == first.together == pieces < total() and first.helps
    # Sampling needs more than such an update: doing without activations no longer helps, but it did alone.
    checkpointing = found["--gradient-checkpointing"]
    assert checkpointing.alone == total(checkpointing=True) and checkpointing.helps
    fewer = found["--concurrency 16"]
    assert not fewer.alone < total() and fewer.together is not None and fewer.together < pieces and fewer.helps


def test_the_mildest_value_that_fits_is_taken_and_no_more_is_asked() -> None:
    work = replace(WORK, episodes=64, concurrency=16)
    half = memory_plan(SHAPE, replace(work, microbatch_tokens=320)).total
    first, *others = settings_that_help(SHAPE, work, half)
    assert first.option.endswith("=320") and first.together == half
    assert all(other.together is None for other in others)


def test_on_cuda_more_devices_are_advised_last() -> None:
    work = replace(WORK, episodes=64, concurrency=16, cuda=True)
    *_, learners, offload = settings_that_help(SHAPE, work, 1)
    assert learners.option == "--cluster local --learners 64 --rollout-workers 1" and learners.helps
    assert offload.option == "--cluster local --learners 64 --rollout-workers 1 --offload"
    alone = replace(work, learners=64, rollout_workers=1)
    assert learners.alone == needed_bytes(SHAPE, alone) < needed_bytes(SHAPE, work)
    # As few as are enough, beside what was planned already.
    enough = needed_bytes(SHAPE, replace(work, learners=8, rollout_workers=2))
    asked = replace(work, learners=2, rollout_workers=2, microbatch_tokens=None)
    options = [setting.option for setting in settings_that_help(SHAPE, asked, enough)]
    assert "--cluster local --learners 8 --rollout-workers 2" in options
    # Sessions are those of all engines, of which each has room for 16 at least.
    large = replace(work, concurrency=64, rollout_workers=2, kept_sessions=True)
    options = [setting.option for setting in settings_that_help(SHAPE, large, 1)]
    assert "--concurrency 32" in options and "--rollout-workers 4" not in options
    enough = needed_bytes(SHAPE, replace(large, concurrency=32))
    options = [setting.option for setting in settings_that_help(SHAPE, large, enough)]
    assert "--rollout-workers 4" in options and "--rollout-workers 8" not in options
    more = {setting.option: setting for setting in settings_that_help(SHAPE, replace(large, concurrency=32), 1)}
    assert not any("--concurrency" in option or option.startswith("--rollout-workers") for option in more)
    assert not any("--cluster" in setting.option for setting in settings_that_help(SHAPE, replace(work, cuda=False), 1))


def test_what_is_set_already_is_not_advised() -> None:
    done = replace(WORK, microbatch_tokens=1, checkpointing=True, bfloat16=True, lora=4, concurrency=16)
    assert settings_that_help(SHAPE, done, 1) == []


def test_slow_bfloat16_is_said_to_be_slow() -> None:
    notes = {s.option: s.note for s in settings_that_help(SHAPE, WORK, 1, native_bfloat16=False)}
    assert "not native" in notes["--precision bfloat16"]
