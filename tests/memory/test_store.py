"""What is remembered: embeddings that are the same everywhere, and folders that are whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stratagem.errors import InputError
from stratagem.memory import EpisodicMemory, HashedNgrams, Store


def filled() -> Store:
    store, memory = Store(), EpisodicMemory(epsilon=0.5)
    for intent, experience in (("open the door", "take the key"), ("sort a list", "sorted()"), ("boil an egg", "wait")):
        memory.write(store, intent, experience)
    list(memory.play(store, ["open a door", "sort lists"], lambda task, shown: 1.0))
    return store


# ---- the embedding --------------------------------------------------------------------------------------------------


def test_the_hashed_embedding_is_the_same_in_another_process():
    code = "from stratagem.memory import HashedNgrams; print(HashedNgrams(width=7)(['take the key'])[0].tolist())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == HashedNgrams(width=7)(["take the key"])[0].tolist()


def test_texts_that_are_spelled_alike_are_nearer_than_others_and_case_and_space_do_not_count():
    store = Store()
    for text in ("put the red mug on the desk", "prove that the sum is even"):
        store.add(text, "", 0.0)
    near, far = store.similarities("put the blue mug on the desk").tolist()
    assert near > 0.6 > 0.3 > far
    assert float(store.similarities("  Put the RED mug\n on the desk ")[0]) == pytest.approx(1.0)


def test_every_n_gram_is_counted_once_with_its_sign():
    row = HashedNgrams(sizes=(1,))(["aab"])[0]
    # Two a, one b and the two spaces around.
    assert sorted(row.abs()[row != 0].tolist()) in ([1.0, 2.0, 2.0],)


def test_a_blank_text_is_alike_to_nothing():
    store = Store()
    store.add("  ", "", 0.0)
    store.add("hello", "", 0.0)
    assert store.similarities("hello").tolist() == pytest.approx([0.0, 1.0])
    assert store.similarities("").tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("values", "message"), [({"width": 0}, "width"), ({"sizes": ()}, "sizes"), ({"sizes": (0,)}, "sizes")]
)
def test_an_embedding_out_of_range_is_refused(values, message):
    with pytest.raises(InputError, match=f"hashed_ngrams.{message}"):
        HashedNgrams(**values)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([[1.0]], "must return a float tensor"),
        (torch.ones(1, 2, dtype=torch.int64), "must return a float tensor"),
        (torch.ones(2), "must return a float tensor"),
        (torch.ones(2, 3), r"shape \[2, 3\], not \[1, width\]"),
        (torch.ones(1, 0), r"shape \[1, 0\], not \[1, width\]"),
    ],
)
def test_an_embedding_that_returns_something_else_is_named(returned, message):
    with pytest.raises(InputError, match=message):
        Store(lambda texts: returned).embed("text")


def test_all_embeddings_have_one_width_and_huge_ones_stay_finite():
    store = Store(lambda texts: torch.tensor([[3e38, 0.0], [0.0, 0.0]][:1]))
    store.add("a", "", 0.0)
    assert store.embeddings.tolist() == [[1.0, 0.0]]
    store.embedding = lambda texts: torch.ones(1, 3)
    with pytest.raises(InputError, match=r"shape \[1, 3\], not \[1, 2\]"):
        store.similarities("b")


# ---- the folder -----------------------------------------------------------------------------------------------------


def test_a_store_that_was_saved_is_the_same_and_goes_on_the_same(tmp_path):
    store, memory = filled(), EpisodicMemory(epsilon=0.5)
    loaded = Store.load(store.save(tmp_path / "memory"))
    assert loaded.items == store.items and loaded.intents == store.intents
    assert (loaded.clock, loaded.draws) == (store.clock, store.draws) == (2, 2)
    assert torch.equal(loaded.embeddings, store.embeddings)
    for each in (store, loaded):
        memory.write(each, "wash the dishes", "use soap")
        list(memory.play(each, ["open the door", "wash dishes"] * 5, lambda task, shown: -1.0))
    assert loaded.items == store.items and torch.equal(loaded.embeddings, store.embeddings)


def test_a_store_without_anything_can_be_saved_and_filled_again(tmp_path):
    loaded = Store.load(Store().save(tmp_path / "memory"))
    loaded.add("hello", "", 0.0)
    assert loaded.similarities("hello").tolist() == pytest.approx([1.0])
    loaded.save(tmp_path / "memory")
    assert len(Store.load(tmp_path / "memory")) == 1


def test_a_save_that_breaks_leaves_what_was_there(tmp_path):
    store = filled()
    store.save(tmp_path / "memory")
    before = {file.name: file.read_bytes() for file in (tmp_path / "memory").iterdir()}
    store.items[0].utility = float("nan")
    with pytest.raises(ValueError):
        store.save(tmp_path / "memory")
    assert {file.name: file.read_bytes() for file in (tmp_path / "memory").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and holds no memory"):
        filled().save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def damage(folder: Path, **changes: object) -> None:
    state = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps({**state, **changes}))


def test_what_is_damaged_is_refused(tmp_path):
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            Store.load(tmp_path / "memory")

    refused("missing or damaged")
    store = filled()
    folder = store.save(tmp_path / "memory")
    for changes in ({"next": 1}, {"intents": ["only one"]}, {"items": [{}]}, {"clock": None}, {"items": []}):
        store.save(folder)
        damage(folder, **changes)
        refused("do not fit together")
    store.save(folder)
    damage(folder, version=9)
    refused("not of version 1")
    store.save(folder)
    save_file({"embeddings": store.embeddings * float("nan")}, folder / "embeddings.safetensors")
    refused("do not fit together")
    (folder / "embeddings.safetensors").write_bytes(b"no tensors")
    refused("missing or damaged")


def test_another_embedding_is_noticed(tmp_path):
    folder = filled().save(tmp_path / "memory")
    with pytest.raises(InputError, match="was written with another embedding"):
        Store.load(folder, HashedNgrams(sizes=(2,)))
    with pytest.raises(InputError, match=r"not \[1, 1024\]"):
        Store.load(folder, HashedNgrams(width=16))
