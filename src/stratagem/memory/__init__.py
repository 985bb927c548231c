"""Memory outside the weights: experiences that a frozen solver is shown, chosen by what they turned out to be worth."""

from stratagem.memory.embedding import Embedding, HashedNgrams
from stratagem.memory.episodic import Attempt, EpisodicMemory, Found, Retrieval, Solved
from stratagem.memory.store import Item, Store

__all__ = ["Attempt", "Embedding", "EpisodicMemory", "Found", "HashedNgrams", "Item", "Retrieval", "Solved", "Store"]
