"""Metrics in TensorBoard's files, and a tracker that is not installed."""

from __future__ import annotations

import sys
import time

import pytest

from stratagem.errors import InputError
from stratagem.training.sinks import TensorBoardSink, WandbSink


def scalars(directory, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_metrics_become_tensorboard_events(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.log(1, {"reward": 0.25, "timing/learn": 2.0})
    sink.log(2, {"reward": 0.5})
    sink.close()
    assert scalars(tmp_path, "reward") == [(1, 0.25), (2, 0.5)]
    assert scalars(tmp_path, "timing/learn") == [(1, 2.0)]


def test_a_resumed_run_replaces_the_events_after_its_checkpoint(tmp_path):
    sink = TensorBoardSink(tmp_path)
    for step in (1, 2, 3):
        sink.log(step, {"reward": float(step)})
    sink.close()
    # Readers go by file names, which tell seconds; of one second the order is that of process numbers as words.
    time.sleep(1 - time.time() % 1)
    resumed = TensorBoardSink(tmp_path, resumed_step=1)
    resumed.log(2, {"reward": 20.0})
    resumed.close()
    assert scalars(tmp_path, "reward") == [(1, 1.0), (2, 20.0)]


def test_a_tracker_that_is_not_installed_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"Weights & Biases is not installed: pip install 'stratagem\[wandb\]'"):
        WandbSink("project", {}, tmp_path)
