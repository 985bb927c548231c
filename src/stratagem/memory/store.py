"""What is remembered: experiences filed under intents, each with its utility, and the folder they are kept in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stratagem.errors import InputError
from stratagem.memory.embedding import Embedding, HashedNgrams
from stratagem.training.run_directory import whole_directory

VERSION = 1
"""Of the folder's format; another one is refused."""


@dataclass
class Item:
    """One experience and what it turned out to be worth.

    number: of its own, never given again.  intent: text of the tasks it was written for.
    utility: the running Q.  visits: how often an outcome moved it.
    reward_average: exponential mean of the rewards, from 0.
    written, used: the store's clock when it was written and last moved.
    """

    number: int
    intent: str
    experience: str
    utility: float = 0.0
    visits: int = 0
    reward_average: float = 0.0
    written: int = 0
    used: int = 0


class Store:
    """Experiences by intent. Similar tasks share an intent; an intent has one embedding and any number of experiences.

    embedding: of intents and of queries; any callable from texts to a float tensor ``[texts, width]``.

    ``items``: by number, oldest first.  ``clock``: tasks learned from so far, which is what times are counted in.
    ``draws``: random retrievals decided so far.
    """

    def __init__(self, embedding: Embedding | None = None) -> None:
        self.embedding: Embedding = HashedNgrams() if embedding is None else embedding
        self.items: dict[int, Item] = {}
        self.clock = 0
        self.draws = 0
        self._next = 0
        self._filed: dict[str, list[int]] = {}
        self._rows: list[str] = []
        self._vectors = torch.zeros(0, 0)

    def __len__(self) -> int:
        """Number of experiences."""
        return len(self.items)

    @property
    def intents(self) -> tuple[str, ...]:
        """Texts of the intents, oldest first."""
        return tuple(self._rows)

    @property
    def embeddings(self) -> Float[Tensor, "intents width"]:
        """Embeddings of the intents in their order, of length 1 or 0."""
        return self._vectors[: len(self._rows)]

    def filed_under(self, intent: str) -> list[Item]:
        """Experiences of an intent, oldest first."""
        return [self.items[number] for number in self._filed.get(intent, ())]

    def known(self, number: int) -> Item | None:
        """The experience of this number, None when it was evicted. Raises :class:`InputError` when it never was."""
        if not 0 <= number < self._next:
            raise InputError(f"memory: no experience was ever numbered {number}; there were {self._next}")
        return self.items.get(number)

    def embed(self, text: str) -> Float[Tensor, " width"]:
        """Embedding of one text, of length 1 or 0; NaN where the embedding gives a number that is not finite.

        Raises :class:`InputError` when the embedding does not return one row of floats as wide as all others.
        """
        vectors: Any = self.embedding([text])
        width = self._vectors.shape[1] if self._rows else None
        if not isinstance(vectors, Tensor) or not vectors.is_floating_point() or vectors.ndim != 2:
            raise InputError("memory: the embedding must return a float tensor [texts, width]")
        if len(vectors) != 1 or vectors.shape[1] < 1 or width not in (None, vectors.shape[1]):
            wanted = "[1, width]" if width is None else f"[1, {width}]"
            raise InputError(f"memory: the embedding of one text has shape {list(vectors.shape)}, not {wanted}")
        vector = vectors[0].detach().to("cpu", torch.float32)
        # Scaled first, so that the squares of large numbers stay finite; a zero vector stays zero.
        vector = vector / vector.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
        unit: Tensor = vector / vector.norm().clamp(min=torch.finfo(torch.float32).tiny)
        return unit

    def similarities(self, text: str) -> Float[Tensor, " intents"]:
        """Cosine of a text with every intent, in [-1, 1] but for rounding: 0 with a zero vector, NaN if not finite."""
        if not self._rows:
            return torch.zeros(0)
        return self.embeddings @ self.embed(text)

    def nearest(self, text: str) -> tuple[str, float] | None:
        """The most similar intent, oldest among equals, and its similarity, 1 for the very text; None without any."""
        if text in self._filed:
            return text, 1.0
        similarities = self.similarities(text)
        if not len(similarities) or bool(similarities.isnan().all()):
            return None
        place = int(similarities.nan_to_num(nan=-math.inf).argmax())
        return self._rows[place], float(similarities[place])

    def add(self, intent: str, experience: str, utility: float) -> Item:
        """File a new experience under an intent, which is made if there is none of this text.

        Raises :class:`InputError` for a new intent whose embedding is not finite; then nothing has changed.
        """
        if intent not in self._filed:
            self._add_intent(intent, self.embed(intent))
        item = Item(self._next, intent, experience, utility, written=self.clock, used=self.clock)
        self.items[item.number] = item
        self._filed[intent].append(item.number)
        self._next += 1
        return item

    def remove(self, number: int) -> None:
        """Forget an experience, and its intent when that has no other. Raises ``KeyError`` when it is not there."""
        item = self.items.pop(number)
        numbers = self._filed[item.intent]
        numbers.remove(number)
        if not numbers:
            del self._filed[item.intent]
            place, count = self._rows.index(item.intent), len(self._rows)
            self._vectors[place : count - 1] = self._vectors[place + 1 : count].clone()
            del self._rows[place]

    def _add_intent(self, intent: str, vector: Tensor) -> None:
        if not bool(vector.isfinite().all()):
            raise InputError(f"memory: the embedding of {intent[:60]!r} has a number that is not finite")
        count = len(self._rows)
        if not count:
            self._vectors = vector.new_zeros(1, len(vector))
        elif count == len(self._vectors):
            self._vectors = torch.cat((self._vectors, torch.zeros_like(self._vectors)))
        self._vectors[count] = vector
        self._rows.append(intent)
        self._filed[intent] = []

    # ---- the folder ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write ``store.json`` and ``embeddings.safetensors`` into a folder, whole or not at all; returns it.

        A store that is there already is replaced. Raises :class:`InputError` when something else is.
        """
        path = Path(path)
        if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / "store.json").is_file())):
            raise InputError(f"memory {path}: exists and holds no memory")
        state = {
            "version": VERSION,
            "clock": self.clock,
            "draws": self.draws,
            "next": self._next,
            "intents": self._rows,
            "items": [asdict(item) for item in self.items.values()],
        }
        with whole_directory(path) as directory:
            (directory / "store.json").write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
            save_file({"embeddings": self.embeddings.clone()}, directory / "embeddings.safetensors")
        return path

    @classmethod
    def load(cls, path: str | Path, embedding: Embedding | None = None) -> Self:
        """The store in a folder; ``embedding`` must be the one that it was written with.

        Raises :class:`InputError` when a file is missing or damaged, the format is another, or the embedding is.
        """
        path, store = Path(path), cls(embedding)
        try:
            state = json.loads((path / "store.json").read_text(encoding="utf-8"))
            vectors = load_file(path / "embeddings.safetensors")["embeddings"]
        except (OSError, ValueError, KeyError, SafetensorError):
            raise InputError(f"memory {path}: store.json or embeddings.safetensors is missing or damaged") from None
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise InputError(f"memory {path}: store.json is not of version {VERSION}")
        try:
            store._restore(state, vectors)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"memory {path}: store.json and embeddings.safetensors do not fit together") from None
        if store._rows and not torch.allclose(store.embed(store._rows[0]), vectors[0], atol=1e-2):
            raise InputError(f"memory {path}: was written with another embedding")
        return store

    def _restore(self, state: dict[str, Any], vectors: Tensor) -> None:
        """Take over what was read. Raises ``KeyError``, ``TypeError`` or ``ValueError`` when it is no store."""
        self.clock, self.draws, self._next = (int(state[name]) for name in ("clock", "draws", "next"))
        self._rows, self._vectors = [str(intent) for intent in state["intents"]], vectors
        self._filed = {intent: [] for intent in self._rows}
        self.items = {item.number: item for item in _items(state["items"])}
        for item in self.items.values():
            self._filed[item.intent].append(item.number)
        fits = len(self._rows) == len(vectors) == len(self._filed) and vectors.ndim == 2 and all(self._filed.values())
        if not fits or not bool(vectors.isfinite().all()) or max(self.items, default=-1) >= self._next:
            raise ValueError("no store")


def _items(rows: Iterable[dict[str, Any]]) -> list[Item]:
    types = {"int": int, "str": str, "float": float}
    items = [Item(**{entry.name: types[str(entry.type)](row[entry.name]) for entry in fields(Item)}) for row in rows]
    if not all(math.isfinite(item.utility) and math.isfinite(item.reward_average) for item in items):
        raise ValueError("a utility is not finite")
    return items
