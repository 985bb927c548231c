"""Evaluation of a reward or preference model: held-out pairs, how often it agrees, and calibration."""

from __future__ import annotations

from typing import Any, Literal

import torch

from stratagem.errors import InputError
from stratagem.language.answer_models import embeddings
from stratagem.language.policy import LanguagePolicy
from stratagem.language.solved import demonstrate
from stratagem.language.stage import Stage
from stratagem.preferences.models import lead
from stratagem.preferences.oracles import BradleyTerry, preferred
from stratagem.training.statistics import mean_interval, success_interval
from stratagem.training.world import Evaluation


def compared(
    stage: Stage, policy: LanguagePolicy, states: int, mode: Literal["sampled", "greedy"], first: int = 0
) -> Evaluation:
    """How a policy with a head of answers judges the candidates of held-out start states, as many as there are.

    All pairs of candidates of a start state count, labelled by what they earn (``BradleyTerry(0)``). An episode is a
    pair, and a success a label that is agreed with: by the side of the lead where ``greedy``, by a vote drawn with the
    model's probability where ``sampled``, of which the expectation is taken. Half of one where the label is a tie, or
    the lead 0.

    Raises :class:`InputError` for a task without candidates.
    """
    task = stage.task
    known = task.start_states("test")
    groups = []
    for index in range(first, first + (states if known is None else min(states, known))):
        try:
            candidates = task.candidates("test", index)
        except NotImplementedError as error:
            raise InputError(
                f"evaluating a preference model: {error}; the task pairs does, and --episodes 0 goes without"
            ) from None
        groups.append([demonstrate(task, "test", index, stage.chat, stage.tokenize, actions) for actions in candidates])
    good = [kept for group in groups if (kept := [e for e in group if e.failure is None])]
    failed = sum(map(len, groups)) - sum(map(len, good))
    if not any(len(group) > 1 for group in good):
        return _evaluation(mode, torch.zeros(0), torch.zeros(0), failed, [])
    x = stage.packed(good)
    one, other = x.group_of_trajectory.pairs()
    one, other = one[one < other], other[one < other]
    label, numbers = BradleyTerry(0.0)(x, one, other), embeddings(policy, x)
    likely = preferred(lead(numbers[one], numbers[other]))
    episodes = [episode for group in good for episode in group]
    samples = [
        {
            "episode": episodes[i].index,
            "messages": [
                {"role": "user", "content": episodes[i].turns[0].observation.text},
                {"role": "assistant", "content": f"first: {episodes[i].turns[0].text}"},
                {"role": "assistant", "content": f"second: {episodes[j].turns[0].text}"},
                {"role": "label", "content": f"the first is better: {y:.2g} labelled, {p:.2f} said"},
            ],
        }
        for i, j, y, p in list(zip(one.tolist(), other.tolist(), label.tolist(), likely.tolist(), strict=True))[:3]
    ]
    return _evaluation(mode, likely, label, failed, samples)


def _evaluation(
    mode: Literal["sampled", "greedy"],
    likely: torch.Tensor,
    label: torch.Tensor,
    failed: int,
    samples: list[dict[str, Any]],
) -> Evaluation:
    from stratagem.preferences.learned.calibration import calibration

    pairs = len(label)
    if mode == "greedy":
        agreed = ((likely - 0.5).sign() * (label - 0.5).sign() + 1) / 2
    else:
        agreed = likely * label + (1 - likely) * (1 - label)
    whole = mode == "greedy" and bool((agreed != 0.5).all())
    interval = success_interval(int(agreed.sum()), pairs) if whole else mean_interval(agreed.tolist())
    mean = float(agreed.mean()) if pairs else float("nan")
    return Evaluation(
        mode=mode,
        episodes=pairs,
        success=mean if pairs else None,
        interval=interval,
        mean_return=mean,
        std_return=float(agreed.std(correction=0)) if pairs else float("nan"),
        mean_length=1.0 if pairs else float("nan"),
        failed=failed,
        samples=samples,
        calibration=calibration(likely, label) if pairs else None,
    )
