"""A registry of experts behind text: models and their skills, how a policy calls them, and in what format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stratagem.errors import InputError

Expert = Callable[[str], str]
"""What answers for a model with a skill: text in, text out. It may raise; it is then asked again."""

NAME_ERROR = "Model/Skill Name Error"
"""What a call of a pair that there is not is told."""

EXPERT_ERROR = "error: the expert did not answer"
"""What a call is told whose expert failed every time."""

_TAG = re.compile(r"<(?P<close>/?)(?P<tag>think|search|information|answer)>")
_PLACEHOLDERS = frozenset({"...", "…", "input", "your input", "answer", "your answer"})


@dataclass(frozen=True)
class Model:
    """An expert model.

    name: how it is called; without ``@@``.  card: what the policy reads of it.  price: of a token of its output, at
    least 0, in a unit of your own.  aliases: further names.

    Raises :class:`InputError` for an empty name, one with ``@@`` or a negative price.
    """

    name: str
    card: str
    price: float = 0.0
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_names("model", (self.name, *self.aliases), "@@")
        if not self.price >= 0:
            raise InputError(f"model {self.name!r}: price = {self.price}: must be at least 0")


@dataclass(frozen=True)
class Skill:
    """A concrete skill (the second tier) of a domain (the first).

    name: how it is called; without ``:``.  domain: the tier above.  card: what the policy reads of it.
    aliases: further names.

    Raises :class:`InputError` for an empty name or one with ``:``.
    """

    name: str
    domain: str
    card: str
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_names("skill", (self.name, *self.aliases), ":")


class Call(NamedTuple):
    """``Model@@Skill: input`` as it was written."""

    model: str
    skill: str
    input: str


class Reply(NamedTuple):
    """What a call is told, what it cost, and whether it reached an expert that answered."""

    text: str
    cost: float = 0.0
    answered: bool = False


def read_call(text: str) -> Call | None:
    """A call; None where ``@@`` or ``:`` is missing. The input begins at the first ``:`` behind the model's name."""
    model, at, rest = text.partition("@@")
    skill, colon, content = rest.partition(":")
    return Call(model.strip(), skill.strip(), content.strip()) if at and colon else None


def words(text: str) -> int:
    """Number of words: what stands in for tokens where an expert does not count its own."""
    return len(text.split())


@dataclass(frozen=True)
class ExpertRegistry:
    """Models, skills, and the (model, skill) pairs for which there is an expert.

    A name is looked up as it is written, then among the aliases. With ``fuzzy`` a name that is neither, but holds or is
    part of exactly one name or alias, whatever the case, means that one; without it such a call is told its error, so
    that no policy learns to write names that are not there.

    An expert that raises is asked again, ``retries`` times. One that hangs is nothing a registry can end: the rollout's
    watch over environments does, at the cost of the episode. Give an expert a limit of its own to have it asked again.

    models, skills: with different names.  experts: by names of model and skill.  retries: at least 0.
    longest: characters of an output that are shown, its last ones, at least 1.  tokens: counts those of an output, for
    its price; the whole output counts.

    Raises :class:`InputError` for a name that is there twice, an expert without model or skill, a number out of range.
    """

    models: tuple[Model, ...]
    skills: tuple[Skill, ...]
    experts: Mapping[tuple[str, str], Expert]
    fuzzy: bool = False
    retries: int = 2
    longest: int = 1000
    tokens: Callable[[str], int] = words

    def __post_init__(self) -> None:
        for kind, entries in (("model", self.models), ("skill", self.skills)):
            names = Counter(name for entry in entries for name in {entry.name, *entry.aliases})
            twice = [name for name, count in names.items() if count > 1]
            if twice:
                raise InputError(f"expert registry: {kind} {twice[0]!r} is there twice; names and aliases must differ")
        known = {model.name for model in self.models}, {skill.name for skill in self.skills}
        for model, skill in self.experts:
            if model not in known[0] or skill not in known[1]:
                raise InputError(f"expert registry: the expert {model}@@{skill} must be of a listed model and skill")
        if self.retries < 0:
            raise InputError(f"expert registry: retries = {self.retries}: must be at least 0")
        if self.longest < 1:
            raise InputError(f"expert registry: longest = {self.longest}: must be at least 1")

    @property
    def text(self) -> str:
        """What the policy reads: models with their cards, and skills by domain with theirs and who has them."""
        lines = ["Models:", *(f"- {model.name}: {model.card}" for model in self.models), "Skills:"]
        for domain in dict.fromkeys(skill.domain for skill in self.skills):
            lines.append(f"- {domain}")
            lines += [f"  - {skill.name}: {skill.card}{self._owners(skill)}" for skill in self.skills_of(domain)]
        return "\n".join(lines)

    def skills_of(self, domain: str) -> tuple[Skill, ...]:
        """The concrete skills of a domain."""
        return tuple(skill for skill in self.skills if skill.domain == domain)

    def find(self, call: Call) -> tuple[str, str] | None:
        """The pair a call means; None where model or skill is unknown or the model has no such skill."""
        model, skill = _find(call.model, self.models, self.fuzzy), _find(call.skill, self.skills, self.fuzzy)
        if model is None or skill is None or (model, skill) not in self.experts:
            return None
        return model, skill

    def ask(self, call: Call) -> Reply:
        """What the expert says, or the error the policy is told."""
        pair = self.find(call)
        if pair is None:
            return Reply(NAME_ERROR)
        for _ in range(1 + self.retries):
            try:
                said = self.experts[pair](call.input)
            except Exception:  # Whatever an expert fails of, the policy can do nothing but ask another.
                continue
            price = next(model.price for model in self.models if model.name == pair[0])
            return Reply(said[-self.longest :], price * self.tokens(said), True)
        return Reply(EXPERT_ERROR)

    def _owners(self, skill: Skill) -> str:
        """Who has a skill, where not all models do."""
        owners = [model.name for model in self.models if (model.name, skill.name) in self.experts]
        return "" if len(owners) == len(self.models) else f" ({', '.join(owners) or 'nobody'})"


def well_formed(transcript: str, registry: ExpertRegistry, require_call: bool = True) -> bool:
    """Whether a whole transcript, information included, is in the format of arXiv 2605.22177 (its released code).

    Tags are ``think``, ``search``, ``information`` and ``answer``, closed before the next one opens; only a ``think``
    may have been opened in the prompt. There is exactly one answer and, with ``require_call``, at least one search.
    Every search is ``Model@@Skill: input`` with a pair of the registry and an input, and neither inputs nor the answer
    are placeholders of the prompt. Text beside the tags is free.

    Which placeholders there are was not available; ``...``, ``input`` and ``answer``, with or without ``your``, are a
    reconstruction.
    """
    found = contents(transcript)
    if found is None or len(found["answer"]) != 1 or (require_call and not found["search"]):
        return False
    calls = [read_call(text) for text in found["search"]]
    if any(call is None or not call.input or registry.find(call) is None for call in calls):
        return False
    said = [*found["answer"], *(call.input for call in calls if call is not None)]
    return not any(text.strip().casefold() in _PLACEHOLDERS for text in said)


def contents(transcript: str) -> dict[str, list[str]] | None:
    """What stands in the tags, by tag; None where one is nested in another, left open, or closed without having opened.

    ``</think>`` may come alone: chat templates of thinking models open it in the prompt.
    """
    found: dict[str, list[str]] = {"think": [], "search": [], "information": [], "answer": []}
    opened: re.Match[str] | None = None
    for tag in _TAG.finditer(transcript):
        if opened is None:
            if not tag["close"]:
                opened = tag
            elif tag["tag"] != "think":
                return None
        elif tag["close"] and tag["tag"] == opened["tag"]:
            found[tag["tag"]].append(transcript[opened.end() : tag.start()])
            opened = None
        else:
            return None
    return found if opened is None else None


def _find(name: str, entries: Sequence[Model | Skill], fuzzy: bool) -> str | None:
    """The name of the entry that is meant."""
    for entry in entries:
        if name == entry.name:
            return entry.name
    for entry in entries:
        if name in entry.aliases:
            return entry.name
    if not fuzzy or not name:
        return None
    near = [entry.name for entry in entries if any(_alike(name, known) for known in (entry.name, *entry.aliases))]
    return near[0] if len(near) == 1 else None


def _alike(name: str, known: str) -> bool:
    return name.casefold() in known.casefold() or known.casefold() in name.casefold()


def _check_names(kind: str, names: Iterable[str], forbidden: str) -> None:
    for name in names:
        if not name or name != name.strip() or forbidden in name:
            raise InputError(
                f"{kind} {name!r}: names must not be empty, hold {forbidden!r}, or begin or end with a space"
            )
