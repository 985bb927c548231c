"""The claims of the optimizers, on perceptrons of several widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from stratagem.optimizers import AdamW, Muon, rescale_to_spectral_size
from stratagem.seeding import derive, generator
from stratagem.study.claims import Expect, claim

WIDTHS = (32, 64, 128)
"""Of the hidden layers; the head is scaled by the first over the width."""

INPUTS, OUTPUTS, BATCH, STEPS = 16, 8, 64, 32

PROBLEMS = 3
"""That a seed stands for: their mean losses are compared, since the best rate of one is noisy."""

LOOKS = (0, 8, 16, 24, 31)
"""Steps at which the hidden matrix is looked at."""

MUON_RATES = tuple(2.0**k for k in range(-7, 0))
ADAM_RATES = tuple(2.0**k for k in range(-10, -3))

WORST = 10.0
"""Loss of a run that diverged; the teacher's outputs have a variance of about one."""

OTHERS_RATE = 0.01
"""Of the input layer and the head, by Adam, in every arm and at every width."""


@dataclass(frozen=True)
class Arm:
    """How the hidden matrix is stepped, and from where.

    muon: None is AdamW.  rescaled: the hidden matrix starts at its spectral size.
    """

    muon: Muon | None
    rescaled: bool

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates tried."""
        return ADAM_RATES if self.muon is None else MUON_RATES


MEASURED = Muon(scale="spectral", power_iterations=10)

ARMS = {
    "": Arm(MEASURED, rescaled=True),
    "muon_": Arm(Muon(), rescaled=False),
    "init_only_": Arm(Muon(), rescaled=True),
    "scale_only_": Arm(MEASURED, rescaled=False),
    "adamw_": Arm(None, rescaled=False),
}
"""By the prefix of their quantities; the first is Muon++."""


@dataclass(frozen=True, eq=False)
class Trained:
    """One run: mean loss of the last quarter of its steps, and what was seen of the hidden matrix.

    sizes: ``|W|_2 / s``.  alignments: ``u^T dW v / |dW|_2`` with the top singular pair of ``W``.
    """

    loss: float
    sizes: list[float]
    alignments: list[float]


@claim(
    "muonpp",
    statement="Control of the updates alone keeps the spectral norm of the weights at the size muP asks for all "
    "through training, at every width and without normalising weights, so that the learning rate transfers over "
    "widths.",
    source="arXiv 2601.01306, abstract; no figures were available",
    baseline="AdamW with one learning rate for all widths; Muon",
    rule=(
        Expect("lr_drift", above=-1, below=1),
        Expect("adamw_lr_drift", below=-1),
        Expect("weight_spread", below=0.5),
    ),
    scale="Perceptrons with one hidden matrix of 32 to 128 units that learn a random teacher from 32 batches; input "
    "layer and head are stepped by Adam at a fixed rate, the head scaled as muP asks. Two octaves of width: a "
    "learning rate counts as transferred when it moves by less than one. Plain Muon from the usual weights (muon_), "
    "and with either half of the change (init_only_, scale_only_), transfers nearly as well, and its weights are "
    "nearly as steady at twice the size: what this shows is a merit of the orthogonal update, hardly one of measuring "
    "it. A square matrix cannot tell Muon's scales apart, and 32 steps say nothing of long runs. The experiment was "
    "changed after first runs, the rule was not. With tanh and widths of 16 to 128 it failed: the best rate of every "
    "Muon arm rose by two octaves and more, to the end of the grid. After that, fewer problems to a seed decided "
    "nothing, and a parabola through the losses of all rates had its vertex far from any of AdamW's.",
)
def muonpp(seed: int) -> dict[str, float]:
    """Octaves by which the best learning rate moves from the narrowest width to the widest, and by which ``|W|_2 / s``
    differs between widths at most during training, for each arm. Beside them the largest of those sizes, the loss at
    the widest with its own best rate, how much worse it is with that of the narrowest, and the updates' alignment.
    """
    octaves = np.log2(WIDTHS)
    problems = [_problem(derive(seed, "problem", number)) for number in range(PROBLEMS)]
    found: dict[str, float] = {}
    for prefix, arm in ARMS.items():
        losses = np.array(
            [[fmean(_train(arm, rate, n, p).loss for p in problems) for rate in arm.rates] for n in WIDTHS]
        )
        best = [_best(arm.rates, row) for row in losses]
        narrow = int(losses[0].argmin())
        seen = [_train(arm, arm.rates[narrow], n, problems[0], LOOKS) for n in WIDTHS]
        shortest = min(len(run.sizes) for run in seen)
        sizes = np.array([run.sizes[:shortest] for run in seen])
        found |= {
            f"{prefix}lr_drift": float(np.polyfit(octaves, best, 1)[0] * (octaves[-1] - octaves[0])),
            f"{prefix}weight_spread": float(np.log2(sizes.max(0) / sizes.min(0)).max()),
            f"{prefix}largest_weight": float(sizes.max()),
            f"{prefix}loss": float(losses[-1].min()),
            f"{prefix}transfer_loss": float(losses[-1, narrow] / losses[-1].min()),
            f"{prefix}alignment": fmean(value for run in seen for value in run.alignments),
        }
    return found


@dataclass(frozen=True, eq=False)
class _Problem:
    """What a random teacher says of fresh inputs, batch by batch; every arm and width sees the same."""

    seed: int
    batches: list[tuple[Tensor, Tensor]]


def _problem(seed: int, width: int = 32) -> _Problem:
    source = generator(seed, "teacher")
    first = 2 * torch.randn(width, INPUTS, generator=source) / math.sqrt(INPUTS)
    last = 1.5 * torch.randn(OUTPUTS, width, generator=source) / math.sqrt(width)
    inputs = torch.randn(STEPS, BATCH, INPUTS, generator=source)
    return _Problem(seed, [(x, torch.tanh(x @ first.mT) @ last.mT) for x in inputs])


def _train(arm: Arm, rate: float, width: int, problem: _Problem, looks: Sequence[int] = ()) -> Trained:
    source = generator(problem.seed, "student", width)
    first = nn.Parameter(torch.randn(width, INPUTS, generator=source) * math.sqrt(2 / INPUTS))
    hidden = nn.Parameter(torch.randn(width, width, generator=source) * math.sqrt(2 / width))
    head = nn.Parameter(torch.randn(OUTPUTS, width, generator=source) / math.sqrt(WIDTHS[0]))
    if arm.rescaled:
        rescale_to_spectral_size([hidden])
    if arm.muon is None:
        part = AdamW(learning_rate=rate, critic_learning_rate=OTHERS_RATE)
        optimizer = part.optimizer([hidden], [first, head])
    else:
        muon = arm.muon.replace(learning_rate=OTHERS_RATE, matrix_learning_rate=rate)
        optimizer = muon.optimizer([first, hidden, head], [], [hidden])
    losses: list[float] = []
    sizes: list[float] = []
    alignments: list[float] = []
    for step, (x, y) in enumerate(problem.batches):
        said = torch.relu(torch.relu(x @ first.mT) @ hidden.mT) @ head.mT * (WIDTHS[0] / width)
        loss = (said - y).square().mean()
        losses.append(loss.item())
        if not losses[-1] < WORST:
            return Trained(WORST, sizes, alignments)
        optimizer.zero_grad()
        loss.backward()
        before = hidden.detach().clone()
        optimizer.step()
        if step in looks:
            left, values, right = torch.linalg.svd(before)
            change = hidden.detach() - before
            sizes.append(float(values[0]))
            alignments.append(float(left[:, 0] @ change @ right[0] / torch.linalg.matrix_norm(change, ord=2)))
    return Trained(fmean(losses[-STEPS // 4 :]), sizes, alignments)


def _best(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Binary logarithm of the best rate: the vertex of a parabola fitted to the log losses around the least one.

    Within a factor of four of it, which is five rates, or fewer at the end of the grid; the vertex lies among them.
    """
    lowest = int(np.argmin(losses))
    near = slice(max(lowest - 2, 0), lowest + 3)
    octaves = np.log2(rates[near])
    bend, slope, _ = np.polyfit(octaves, np.log(losses[near]), 2)
    vertex = -0.5 * slope / bend if bend > 0 else math.log2(rates[lowest])
    return float(np.clip(vertex, octaves[0], octaves[-1]))
