"""A group of processes: what shard 0 does for all, and that nobody waits for one who is gone."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import torch

from stratagem.cluster.process_group import Place, joined
from stratagem.errors import BrokenRunError, InputError


class Unsendable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def test_what_shard_0_does_reaches_all_and_is_done_once(in_shards):
    def check(place: Place) -> Any:
        done = []
        with joined(place) as group:
            found = group.lead(lambda: done.append(place.rank) or {"rows": torch.arange(3)})
        return done, found["rows"].tolist()

    assert in_shards(check) == [([0], [0, 1, 2]), ([], [0, 1, 2])]


def test_an_error_of_shard_0_is_one_of_all_and_they_go_on_together(in_shards):
    def check(place: Place) -> Any:
        with joined(place) as group:
            for error, kind in ((InputError("wrong"), InputError), (OSError(28, "disk full"), OSError)):

                def action(error: Exception = error) -> None:
                    raise error

                with pytest.raises(kind, match=str(error.args[-1])):
                    group.lead(action)
            return group.lead(lambda: "on")

    assert in_shards(check) == ["on", "on"]


def test_an_error_that_cannot_be_sent_is_told(in_shards):
    def check(place: Place) -> str:
        def action() -> None:
            raise Unsendable("odd")

        with joined(place) as group, pytest.raises((Unsendable, BrokenRunError)) as caught:
            group.lead(action)
        return f"{caught.type.__name__}: {caught.value}"

    assert in_shards(check) == ["Unsendable: odd", "BrokenRunError: Unsendable on shard 0: odd"]


@pytest.mark.parametrize("broken", [False, True])
def test_the_others_follow_what_shard_0_tells_them_until_it_is_done(in_shards, broken):
    def check(place: Place) -> list[int]:
        heard: list[int] = []
        with joined(place) as group:

            def action() -> None:
                for word in (4, 0, 7):
                    group.tell(word)
                if broken:
                    raise ValueError("broken")

            try:
                group.lead(action, heard.append)
            except ValueError:
                heard.append(-9)
            assert not group.acting and not group.serving
        return heard

    end = [-9] if broken else []
    assert in_shards(check) == [end, [4, 0, 7, *end]]


def test_any_is_of_all_shards(in_shards):
    def check(place: Place) -> list[bool]:
        with joined(place) as group:
            return [group.any(place.rank == rank) for rank in (0, 1, 2)]

    assert in_shards(check) == [[True, True, False]] * 2


@pytest.mark.parametrize("counts", [[2, 3], [5, 0], [0, 5], [1, 0, 4]])
def test_rows_of_all_shards_carry_the_gradient_of_the_own_ones(in_shards, counts):
    def check(place: Place) -> Any:
        start = sum(counts[: place.rank])
        mine = torch.arange(start, start + counts[place.rank]).double().requires_grad_()
        with joined(place) as group:
            rows = group.rows(mine, counts)
            ids = group.rows(torch.full((counts[place.rank], 2), place.rank), counts)
            rows.square().sum().backward()
        return rows.tolist(), ids.tolist(), mine.grad.tolist()

    for rank, (rows, ids, gradient) in enumerate(in_shards(check, size=len(counts))):
        assert rows == [0, 1, 2, 3, 4]
        assert ids == [[owner] * 2 for owner, count in enumerate(counts) for _ in range(count)]
        assert gradient == [2 * row for row in rows][sum(counts[:rank]) : sum(counts[: rank + 1])]


def test_a_killed_shard_ends_the_other_within_the_timeout(in_shards):
    def check(place: Place) -> float:
        clock = time.monotonic()
        with pytest.raises(BrokenRunError, match="shard 0 of 2 lost the others"), joined(place) as group:
            group.any(True)
            clock = time.monotonic()
            if place.rank == 1:
                os._exit(9)
            for _ in range(3):
                group.any(True)
        return time.monotonic() - clock

    waited, gone = in_shards(check, timeout=20.0)
    assert gone is None and waited < 21


@pytest.mark.slow
def test_a_shard_that_hangs_ends_the_other_at_the_timeout(in_shards):
    def check(place: Place) -> float | None:
        if place.rank == 1:
            with joined(place):
                time.sleep(6)
            return None
        clock = time.monotonic()
        with pytest.raises(BrokenRunError, match="lost the others"), joined(place) as group:
            group.any(True)
        return time.monotonic() - clock

    waited, _ = in_shards(check, timeout=3.0)
    assert 2 < waited < 6


def test_a_shard_whose_peers_never_come_says_so():
    place = Place(1, 2, "127.0.0.1", 9, timeout=1.0)
    with pytest.raises(BrokenRunError, match=r"shard 1 of 2 lost the others at 127\.0\.0\.1"), joined(place):
        raise AssertionError("nobody is there")


def test_a_process_is_in_one_group_at_a_time(in_shards):
    def check(place: Place) -> bool:
        with joined(place), pytest.raises(InputError, match="a process group already"), joined(place):
            raise AssertionError
        return True

    assert in_shards(check, size=1) == [True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 2}, "rank = 2 of size = 2"),
        ({"rank": -1}, "must be from 0 to size - 1"),
        ({"timeout": 0.0}, "timeout = 0.0: must be above 0"),
        ({"backend": "mpi"}, "backend = mpi: must be gloo or nccl"),
        ({"backend": "nccl"}, "device = cpu: nccl is for cuda"),
        ({"device": "cuda:0"}, "device = cuda:0: gloo is for cpu"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        Place(**{"rank": 0, "size": 2, "address": "127.0.0.1", "port": 1, **values})
