"""Which skills a task is shown: scores of skills for a task, by its type or by its words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.skills.bank import Skill


class Retriever(Part):
    """How well skills fit a task; those with a score above 0 may be shown, highest first, older ones first in a tie."""

    kind: ClassVar[str] = "retriever"

    @abstractmethod
    def __call__(self, text: str, kind: str, skills: Sequence[Skill], /) -> Sequence[float]:
        """A score of each skill for a task of this text and type."""


@dataclass(frozen=True)
class TypeMatch(Retriever):
    """2 for a skill that names the task's type, 1 for a general one, 0 for any other. It needs nothing installed."""

    def __call__(self, text: str, kind: str, skills: Sequence[Skill], /) -> list[float]:
        return [(2.0 if skill.types else 1.0) if skill.serves(kind) else 0.0 for skill in skills]


@dataclass(frozen=True)
class TfidfMatch(Retriever):
    """Cosine of TF-IDF vectors of the task's text and the skill's name and text, 0 for skills of other types.

    Word frequencies are those of all skills in use, so what one skill scores does not hang on who else is withheld.
    Needs scikit-learn. Raises :class:`InputError` where that is not installed.
    """

    def __call__(self, text: str, kind: str, skills: Sequence[Skill], /) -> list[float]:
        if not skills:
            return []
        vectorizer, vectors = _fitted(tuple(f"{skill.name} {skill.text}" for skill in skills))
        if vectorizer is None:
            return [0.0] * len(skills)
        cosines = (vectors @ vectorizer.transform([text]).T).toarray()[:, 0].tolist()
        return [cosine if skill.serves(kind) else 0.0 for skill, cosine in zip(skills, cosines, strict=True)]


@lru_cache(maxsize=16)
def _fitted(texts: tuple[str, ...]) -> tuple[Any, Any]:
    """The vectorizer of these texts and their vectors; None twice where they hold no word."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise InputError("tfidf_match needs scikit-learn: pip install 'stratagem[agents]'") from None
    vectorizer = TfidfVectorizer()
    try:
        return vectorizer, vectorizer.fit_transform(texts)
    except ValueError:  # No text has a word of two letters.
        return None, None
