"""How training and test episodes are kept apart: by a stable hash of the instance itself, never by its number alone."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from stratagem.errors import InputError
from stratagem.tasks.task import Split, state_key

Instance = TypeVar("Instance")

TEST_SHARE = 0.2
_RESOLUTION = 1_000_000
_ATTEMPTS = 1_000


def split_of(key: int, test_share: float = TEST_SHARE) -> Split:
    """The split an instance with this :func:`~stratagem.tasks.task.state_key` belongs to.

    ``test_share`` in [0, 1] is the expected share of instances that are test instances. The answer depends on nothing
    else, so equal instances always land in the same split.
    """
    return "test" if key % _RESOLUTION < test_share * _RESOLUTION else "train"


def seeded(*parts: object) -> Random:
    """A random generator seeded by ``parts``: equal parts give equal numbers in every process."""
    return Random(state_key(*parts) % 2**64)


def draw(
    split: Split,
    index: int,
    stream: tuple[object, ...],
    generate: Callable[[Random], Instance | None],
    key: Callable[[Instance], int],
) -> Instance:
    """Instance number ``index`` of ``split``: the first acceptable one in its own sequence of sub-seeds.

    ``stream`` names the task and its options, so that different tasks draw different instances. ``generate`` makes an
    instance, or ``None`` when its draw came to nothing; ``key`` is the instance's state key.

    Raises :class:`InputError` when 1,000 draws give no instance of the split, as happens when options leave too few.
    """
    for attempt in range(_ATTEMPTS):
        instance = generate(seeded(*stream, split, index, attempt))
        if instance is not None and split_of(key(instance)) == split:
            return instance
    raise InputError(f"task {stream[0]!r}: {_ATTEMPTS} draws gave no {split} episode; its options allow too few")
