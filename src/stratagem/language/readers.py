"""The parts of a recipe that read text, where episodes are played: what they are shown, and what becomes of a batch."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterable, Sequence

import torch

from stratagem.errors import InputError
from stratagem.language.episodes import Episode
from stratagem.language.stage import numbers
from stratagem.parts import Sampler
from stratagem.readings import Known, ReadsText, Texts, with_readings
from stratagem.sampling import Windows
from stratagem.training.world import Collected

MOST_KNOWN = 2**18
"""Answers that are kept of each reader in this process, so that it is not asked the same again."""


class Readers:
    """Who reads the batches of a world, what they have said, and the texts of the batch being collected."""

    def __init__(self) -> None:
        self.parts: tuple[ReadsText, ...] = ()
        self._known: dict[str, Known] = {}
        self._texts: dict[int, tuple[str, str]] = {}

    def name(self, parts: Sequence[ReadsText]) -> None:
        """From now on these read. Raises :class:`InputError` for one that cannot be asked."""
        for part in parts:
            part.check_ready()
        self.parts = tuple(parts)
        self._known = {part.reader: self._known.get(part.reader, {}) for part in parts}

    def note(self, episodes: Iterable[Episode]) -> None:
        """Remember the texts of episodes that became part of the batch."""
        if self.parts:
            played = list(episodes)
            self._texts |= dict(zip(numbers(played), map(texts_of, played), strict=True))

    def begin(self, sampler: Sampler) -> None:
        """Forget the texts of the batch before. Raises :class:`InputError` for batches that cannot be read."""
        self._texts.clear()
        if self.parts and isinstance(sampler, Windows):
            raise InputError(
                f"sampler {sampler.part_name()}: its responses run on across batches, and {self.parts[0].reader} reads "
                "whole ones"
            )

    def read(self, collected: Collected) -> Collected:
        """The batch with what every part says of it, without the trajectories that one of them says nothing of.

        ``readings/asked`` are trajectories read, ``readings/failed`` those that were lost; without any that is left,
        the batch is. ``timing/readings``: seconds.
        """
        x = collected.x
        if not self.parts or x is None or not x.trajectories:
            return collected
        clock = time.perf_counter()
        assert x.episode is not None
        prompts, answers = zip(*(self._texts[number] for number in x.episode.tolist()), strict=True)
        texts = Texts(prompts, answers, x.group_of_trajectory)
        said = [(part, part.read(texts, self._known[part.reader])) for part in self.parts]
        for known in self._known.values():
            for old in list(known)[: max(len(known) - MOST_KNOWN, 0)]:
                del known[old]
        lost = torch.stack([part.unheard(values, texts.groups) for part, values in said]).any(0)
        metrics = collected.metrics | {
            "readings/asked": float(x.trajectories),
            "readings/failed": float(lost.sum()),
            "timing/readings": time.perf_counter() - clock,
        }
        failed = [*collected.failed, *x.episode[lost].tolist()]
        left = None if bool(lost.all()) else with_readings(x, said)
        if bool(lost.any()):
            names = ", ".join(part.reader for part in self.parts)
            warnings.warn(f"{names}: said nothing of {int(lost.sum())} of {x.trajectories} trajectories", stacklevel=2)
            left = None if left is None else left.select(~lost)
        return dataclasses.replace(collected, x=left, metrics=metrics, failed=failed)


def texts_of(episode: Episode) -> tuple[str, str]:
    """What is shown first, and what is said to it: of several turns all of them, each behind who it is by."""
    first = episode.turns[0]
    opening = [message["content"] for message in first.observation.opening]
    prompt = "\n\n".join(opening) if opening else first.observation.text
    if len(episode.turns) == 1:
        return prompt, first.text
    said = [f"assistant: {first.text}"]
    for turn in episode.turns[1:]:
        said += [f"user: {turn.observation.text}", f"assistant: {turn.text}"]
    return prompt, "\n\n".join(said)
