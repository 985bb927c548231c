"""Tensors that are not divided, which these functions leave alone; divided ones are in ``tests/cluster``."""

from __future__ import annotations

import subprocess
import sys

import torch

from stratagem.shards import divided_like, is_divided, own_part, whole


def test_a_tensor_that_is_not_divided_is_itself():
    tensor, other = torch.arange(3.0, requires_grad=True), torch.zeros(3)
    assert not is_divided(tensor)
    assert whole(tensor) is tensor and divided_like(tensor, other) is tensor
    part = own_part(tensor)
    assert part.data_ptr() == tensor.data_ptr() and not part.requires_grad


def test_training_in_one_process_does_not_wait_for_distributed_tensors():
    code = "import sys, stratagem.training.loop; print('torch.distributed.tensor' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
