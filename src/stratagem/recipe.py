"""A recipe: the composition of parts that one paper is, written to YAML, read back equal, compared with its base."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import torch
import yaml
from annotated_types import Ge
from torch import Tensor

from stratagem.errors import InputError, unknown
from stratagem.experience import Experience
from stratagem.optimizers import AdamW
from stratagem.part import Part, field_types, find_part
from stratagem.parts import (
    Advantage,
    Architecture,
    Estimator,
    Objective,
    Optimization,
    Proximal,
    Replay,
    Reward,
    Sampler,
    Schedule,
    Selection,
    View,
)

_AnyPart = TypeVar("_AnyPart", bound=Part)


@dataclass(frozen=True)
class Change:
    """One field in which two recipes differ; None where one of them has no such field."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Recipe(Part):
    """What to roll out, what it was worth, what to learn from, whom to credit, what to minimise and how to step.

    ``recipe.advantage(x)`` is the credit per token; ``recipe.objective(output, x)`` the loss, with ``x.advantage`` set
    (:meth:`prepare` sets it). ``view`` is how the policy is asked, None: as it acted. ``proximal`` is whose
    log-probabilities stand in ``old_logp``, None: the policy's as the update starts. ``name`` and ``base`` are
    catalogue names; a recipe is shown as its difference from its base.

    replay: what of past batches is learned from again; None: nothing, and nothing is kept.
    estimator: what is learned beside the policy for reward or advantage to read; None: nothing.
    architecture: what a fresh policy is made of; None: what the world makes it of. Few worlds leave that to a recipe.
    reference_from: the batch from which on the reference is the policy as it was when that batch came (0: the policy
    the run began with). A later batch, set by a schedule, moves it once more.

    Raises :class:`InputError` when parts contradict each other, such as a group size of 1 for a group-relative
    advantage.
    """

    kind: ClassVar[str] = "recipe"

    name: str
    sampler: Sampler
    advantage: Advantage
    objective: Objective
    replay: Replay | None = None
    rewards: tuple[Reward, ...] = ()
    selections: tuple[Selection, ...] = ()
    view: View | None = None
    proximal: Proximal | None = None
    estimator: Estimator | None = None
    architecture: Architecture | None = None
    reference_from: Annotated[int, Ge(0)] = 0
    optimization: Optimization = AdamW()
    schedules: tuple[Schedule, ...] = ()
    base: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self.advantage.least_group()
        field, size = self.sampler.smallest_group
        if size < least:
            raise InputError(
                f"recipe {self.name}: sampler.{field} = {size}: "
                f"advantage {self.advantage.part_name()} compares within a group and needs at least {least}"
            )
        if "target" in self.objective.needs() and not self.advantage.sets_target():
            raise InputError(
                f"recipe {self.name}: the objective pulls ratios to a target, which advantage "
                f"{self.advantage.part_name()} does not set"
            )
        if self.objective.needs_whole_groups() and self.optimization.shuffle != "groups":
            raise InputError(
                f"recipe {self.name}: optimization.shuffle = {self.optimization.shuffle}: must be groups, since the "
                "objective compares the trajectories of a group"
            )
        if self.view is not None:
            forbidden = sorted((self.advantage.needs() | self.objective.needs()) & self.view.forbids)
            if forbidden:
                raise InputError(
                    f"recipe {self.name}: view = {self.view.part_name()}: advantage or objective reads "
                    f"{', '.join(forbidden)}, which says nothing in this view"
                )

    def experience_needs(self) -> frozenset[str]:
        """Experience fields that must be there before :meth:`prepare`."""
        read = {name for name in self.needs() if not name.startswith("output.")}
        if "pass_rate" in read:
            read.add("success")
        return frozenset(read) - {"old_logp", "old_mean_logp", "pass_rate", "target", "learning_rate"}

    def output_needs(self) -> frozenset[str]:
        """What the objective reads of the policy's output beyond ``logp``: ``entropy``, ``value``, ``median``."""
        return frozenset(name.removeprefix("output.") for name in self.needs() if name.startswith("output."))

    def prepare(self, x: Experience) -> Experience:
        """The experience ready for the objective: :meth:`shape`, then :meth:`credit`."""
        return self.credit(self.shape(x))

    def shape(self, x: Experience) -> Experience:
        """The experience with its rewards shaped. Raises ``ValueError`` naming a field the recipe reads and x lacks."""
        missing = x.missing(self.experience_needs())
        if missing:
            raise ValueError(f"recipe {self.name} reads {', '.join(missing)}, which this experience does not have")
        for reward in self.rewards:
            x = reward(x)
        return x

    def credit(self, x: Experience) -> Experience:
        """The experience with pass rates and learning rate noted, trajectories selected, what sampler and objective
        note of a batch (:meth:`Part.before_steps`), and advantage, value target and target ratio set, and
        ``critic_mask`` where the value target is of a part of the tokens.

        Rollouts of groups left with fewer of them than the advantage can compare are gone, too; demonstrations stay.
        Raises ``ValueError`` naming the trajectory whose return is not finite.
        """
        if not bool(x.returns.isfinite().all()):
            bad = int(torch.nonzero(~x.returns.isfinite())[0])
            raise ValueError(f"recipe {self.name}: trajectory {bad} has return {float(x.returns[bad])}")
        if "pass_rate" in self.needs() and x.success is not None:
            x = x.replace(pass_rate=_pass_rate(x.success, x))
        if "learning_rate" in self.needs():
            x = x.replace(learning_rate=self.optimization.learning_rate)
        for selection in self.selections:
            x = selection.apply(x)
        own = x.played()
        alone = x.group_of_trajectory.sum(own) < self.advantage.least_group()
        lost = own & x.group_of_trajectory.spread(alone)
        if bool(lost.any()):
            x = x.select(~lost)
        x = self.objective.before_steps(self.sampler.before_steps(x))
        credit = {
            "advantage": self.advantage(x),
            "value_target": self.advantage.value_target(x),
            "target": self.advantage.target(x),
        }
        read = self.advantage.critic_tokens(x)
        if read is not None:
            x = x.replace(critic_mask=read & (x.learnable() if x.critic_mask is None else x.critic_mask))
        return x.replace(**{name: None if value is None else value.detach() for name, value in credit.items()})

    # ---- paths: one flat view of all fields ------------------------------------------------------------------------

    def flat(self) -> dict[str, Any]:
        """Every number and choice by dotted path, as ``--set`` names them; a part's own path gives its name."""
        return {path: value for path, value in _flatten("", self) if path not in ("name", "base")}

    def diff(self, base: Recipe) -> list[Change]:
        """Fields in which this recipe differs from ``base``, in the order of the recipe."""
        mine, theirs = self.flat(), base.flat()
        paths = [*mine, *(path for path in theirs if path not in mine)]
        return [Change(p, theirs.get(p), mine.get(p)) for p in paths if theirs.get(p) != mine.get(p)]

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with fields changed by dotted path, such as ``{"sampler.group_size": 4}``; memory is kept.

        A part is changed by name (``{"advantage": "leave_one_out"}``, with its default fields). Raises
        :class:`InputError` naming the nearest path when there is no such field.
        """
        recipe = self
        for path, value in values.items():
            recipe = _with_value(recipe, path, path.split("."), value)
        return recipe

    # ---- YAML ------------------------------------------------------------------------------------------------------

    def to_yaml(self) -> str:
        """The recipe as YAML: every field, each part with its name under ``part``."""
        return yaml.safe_dump(_plain(self), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, source: str = "recipe") -> Recipe:
        """Read what :meth:`to_yaml` wrote. Raises :class:`InputError` naming source, field and what is allowed."""
        try:
            plain = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{source}, line {mark.line + 1}" if mark else source
            raise InputError(f"{where}: not valid YAML") from None
        if not isinstance(plain, dict):
            raise InputError(f"{source}: a recipe is a mapping with name, sampler, advantage and objective")
        try:
            return _constructed(cls, {key: value for key, value in plain.items() if key != "part"}, "")
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a YAML file. Raises :class:`InputError` when it is missing or wrong."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"recipe file {path}: cannot be read ({error.__class__.__name__})") from None
        return cls.from_yaml(text, str(path))


def _pass_rate(success: Tensor, x: Experience) -> Tensor:
    """Of every group, over its rollouts alone; 0 for a group without any."""
    own = x.played()
    return x.group_of_trajectory.sum((success & own).float()) / x.group_of_trajectory.sum(own).clamp(min=1)


def _flatten(path: str, part: Part) -> Iterator[tuple[str, Any]]:
    if path:
        yield path, part.part_name()
    children = dict(part.children())
    nested = {name.split(".")[0] for name in children}
    for entry in dataclasses.fields(part):
        if entry.init and entry.name not in nested and getattr(part, entry.name) != ():
            yield f"{path}.{entry.name}" if path else entry.name, getattr(part, entry.name)
    for name, child in children.items():
        yield from _flatten(f"{path}.{name}" if path else name, child)


def _with_value(part: Any, full: str, path: list[str], value: Any) -> Any:
    name, rest = path[0], path[1:]
    fields = field_types(type(part))
    if name not in fields:
        raise unknown(f"field of {part.part_name()} in {full!r}:", name, fields)
    current = getattr(part, name)
    if not rest:
        return part.replace(**{name: _built(fields[name], value, full)})
    if isinstance(current, tuple):
        keys = {key.split(".")[1]: child for key, child in part.children() if key.startswith(f"{name}.")}
        if rest[0] not in keys:
            raise unknown(f"part in {full!r}:", rest[0], keys)
        chosen = keys[rest[0]]
        if len(rest) == 1:
            raise InputError(f"{full}: name a field of {chosen.part_name()}: {', '.join(field_types(type(chosen)))}")
        changed = tuple(_with_value(c, full, rest[1:], value) if c is chosen else c for c in current)
        return part.replace(**{name: changed})
    if not isinstance(current, Part):
        raise InputError(f"{full}: {name} of {part.part_name()} has no field {rest[0]!r}")
    return part.replace(**{name: _with_value(current, full, rest, value)})


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        fields = {name: _plain(getattr(value, name)) for name in field_types(type(value))}
        return fields if isinstance(value, Recipe) else {"part": value.part_name(), **fields}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _built(annotation: Any, plain: Any, where: str) -> Any:
    """A value of the annotated type from plain YAML data; anything that is no part is left to the part's validation."""
    expected = _part_type(annotation)
    if expected is None or plain is None or isinstance(plain, Part):
        return plain
    if typing.get_origin(annotation) is tuple:
        if not isinstance(plain, list | tuple):
            raise InputError(f"{where} = {plain!r}: must be a list of parts")
        return tuple(_built(expected, item, f"{where}.{index}") for index, item in enumerate(plain))
    if isinstance(plain, str):
        plain = {"part": plain}
    if not isinstance(plain, dict) or not isinstance(plain.get("part"), str):
        raise InputError(f"{where} = {plain!r}: must be a {expected.kind} part: a mapping with its name under 'part'")
    found = find_part(expected.kind, plain["part"])
    return _constructed(found, {key: value for key, value in plain.items() if key != "part"}, where)


def _constructed(cls: type[_AnyPart], fields: Mapping[str, Any], where: str) -> _AnyPart:
    types = field_types(cls)
    built = {}
    for name, value in fields.items():
        if name not in types:
            raise unknown(f"field of {cls.part_name()}{f' at {where}' if where else ''}:", name, types)
        built[name] = _built(types[name], value, f"{where}.{name}" if where else name)
    required = [
        entry.name
        for entry in dataclasses.fields(cls)
        if entry.init and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in built]
    if missing:
        raise InputError(f"{cls.part_name()}{f' at {where}' if where else ''}: {missing[0]} is missing")
    return cls(**built)


def _part_type(annotation: Any) -> type[Part] | None:
    """The part class an annotation asks for, looking through unions and tuples; None when it asks for no part."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    for argument in typing.get_args(annotation):
        found = _part_type(argument)
        if found is not None:
            return found
    return None
