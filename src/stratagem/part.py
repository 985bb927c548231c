"""What every part of a recipe is: validated when built, written and read by name, able to remember."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Self

from pydantic import InstanceOf, TypeAdapter, ValidationError
from torch import Tensor

from stratagem.errors import InputError, unknown
from stratagem.experience import Experience
from stratagem.taxonomy import check_tags

REGISTRY: dict[str, dict[str, type[Part]]] = {}
"""Part classes by kind (``advantage``, ``gate``, ...) and name (``leave_one_out``, ``clip``, ...)."""


class Part:
    """One interchangeable piece of a recipe: a frozen dataclass of numbers, choices and other parts.

    A subclass states ``requires``: the experience fields it reads that somebody has to compute, and with the prefix
    ``output.`` what it reads of the policy's output beyond ``logp``. ``whole_groups`` says of an objective, or a part
    of one, that it compares the trajectories of a group, which therefore may not be cut. ``tags`` are words of the
    taxonomy (:mod:`stratagem.taxonomy`) that are true of every recipe with this part. Field types carry
    their range (``Annotated[float, Ge(0)]``); a value outside raises :class:`InputError` that names the part, the
    field, the value and what is allowed. A concrete part is registered under its kind by its class name in
    snake_case and is written to YAML by that name.

    Parts are pure tensor code. One that remembers something between batches keeps tensors in ``memory()``; they are
    checkpointed and survive a change of the part's fields. A tensor whose shape only the first batch tells starts
    empty.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    kind: ClassVar[str] = ""
    requires: ClassVar[frozenset[str]] = frozenset()
    whole_groups: ClassVar[bool] = False
    tags: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_tags(cls.tags)
        contract = Part in cls.__bases__
        if not contract and not cls.__name__.startswith("_"):
            known = REGISTRY.setdefault(cls.kind, {})
            earlier = known.setdefault(cls.part_name(), cls)
            if earlier.__module__ != cls.__module__:
                raise InputError(f"{cls.kind} {cls.part_name()!r} is already known, from {earlier.__module__}")
            known[cls.part_name()] = cls

    @classmethod
    def part_name(cls) -> str:
        """The name by which recipes and the command line call this part."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()

    def __post_init__(self) -> None:
        for name, adapter in _adapters(type(self)).items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, adapter.validate_python(value))
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                problem = problem[:1].lower() + problem[1:]
                shown = " ".join(repr(value).split())
                raise InputError(f"{self.part_name()}.{name} = {shown}: {problem}") from None

    def children(self) -> Iterator[tuple[str, Part]]:
        """Parts this one is made of, by the name under which a dotted path finds them."""
        for entry in dataclasses.fields(self):
            yield from _children(entry.name, getattr(self, entry.name))

    def needs(self) -> frozenset[str]:
        """Experience fields this part and its children read."""
        return self.requires.union(*(child.needs() for _, child in self.children()))

    def needs_whole_groups(self) -> bool:
        """Whether this part or one of its children has ``whole_groups``."""
        return self.whole_groups or any(child.needs_whole_groups() for _, child in self.children())

    def tagged(self) -> frozenset[str]:
        """Tags of this part and its children."""
        return self.tags.union(*(child.tagged() for _, child in self.children()))

    def memory(self) -> dict[str, Tensor]:
        """Tensors remembered between batches. Change them in place."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Memory of this part and its children, by dotted path."""
        state = dict(self.memory())
        for name, child in self.children():
            state |= {f"{name}.{key}": value for key, value in child.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned. Raises ``KeyError`` when something is missing."""
        for name, tensor in self.state_dict().items():
            _recall(tensor, state[name])

    def before_steps(self, x: Experience) -> Experience:
        """A whole batch, once, before any optimizer step on it: the place to remember it by.

        :meth:`Recipe.credit` asks sampler and objective and their parts; an objective itself sees pieces, again and
        again. They may note in the batch what its pieces cannot tell.
        """
        for _, child in self.children():
            x = child.before_steps(x)
        return x

    def after_step(self, taken: bool) -> None:
        """An optimizer step on all this part was called with since the last one was taken, or it was given up."""
        for _, child in self.children():
            child.after_step(taken)

    def replace(self, **changes: Any) -> Self:
        """The same part with some fields changed and its memory kept."""
        changed = dataclasses.replace(self, **changes)
        mine = self.state_dict()
        for name, tensor in changed.state_dict().items():
            if name in mine and (mine[name].shape == tensor.shape or not tensor.numel()):
                _recall(tensor, mine[name])
        return changed


def _recall(tensor: Tensor, remembered: Tensor) -> None:
    """Overwrite a tensor of a part's memory; an empty one takes the shape of what is remembered, too."""
    if not tensor.numel():
        tensor.resize_(remembered.shape)
    tensor.copy_(remembered)


def _children(name: str, value: object) -> Iterator[tuple[str, Part]]:
    if isinstance(value, Part):
        yield name, value
    elif isinstance(value, tuple):
        parts = [part for part in value if isinstance(part, Part)]
        names = [part.part_name() for part in parts]
        for index, part in enumerate(parts):
            unique = names.count(names[index]) == 1
            yield (f"{name}.{names[index]}" if unique else f"{name}.{index}"), part


# ---- by name --------------------------------------------------------------------------------------------------------


def find_part(kind: str, name: str) -> type[Part]:
    """The part class of this kind and name, loading third-party parts on first need. Raises :class:`InputError`."""
    if name not in REGISTRY.get(kind, {}):
        load_third_party_parts()
    if name not in REGISTRY.get(kind, {}):
        raise unknown(kind, name, REGISTRY.get(kind, {}))
    return REGISTRY[kind][name]


@cache
def load_third_party_parts() -> None:
    """Import everything installed under the entry-point group ``stratagem.parts``; importing a part registers it."""
    import_entry_points("stratagem.parts")


def import_entry_points(group: str) -> None:
    """Import what other packages installed under this group; one that cannot be imported is skipped with a warning."""
    for entry in entry_points(group=group):
        try:
            entry.load()
        except ImportError as error:
            warnings.warn(f"{group}: {entry.value} cannot be imported: {error}", stacklevel=2)


# ---- validation -----------------------------------------------------------------------------------------------------


def field_types(cls: type[Part]) -> dict[str, Any]:
    """Annotations of the fields a part is built from, by name."""
    return _fields(cls)[0]  # type: ignore[arg-type]  # mypy takes a class for unhashable


def _adapters(cls: type[Part]) -> dict[str, TypeAdapter[Any]]:
    return _fields(cls)[1]  # type: ignore[arg-type]


@cache
def _fields(cls: type[Part]) -> tuple[dict[str, Any], dict[str, TypeAdapter[Any]]]:
    """Annotations of the fields a part is built from and their validators, by name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    annotations = {entry.name: hints[entry.name] for entry in dataclasses.fields(cls) if entry.init}
    return annotations, {name: TypeAdapter(_parts_by_instance(a)) for name, a in annotations.items()}


def _parts_by_instance(annotation: Any) -> Any:
    """The annotation with every part class as a plain isinstance check: parts validated themselves when built."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return InstanceOf[annotation]  # type: ignore[misc]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_parts_by_instance(argument) for argument in arguments)]  # noqa: UP007
    if origin is tuple:
        return types.GenericAlias(tuple, tuple(a if a is Ellipsis else _parts_by_instance(a) for a in arguments))
    return annotation
