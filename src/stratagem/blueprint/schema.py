"""The blueprint: what an agent is, declared apart from the engine that runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Field, ValidationError, model_validator

from stratagem.blueprint.actions import canonical
from stratagem.blueprint.checks import faults_of
from stratagem.blueprint.constraints import Constraint
from stratagem.blueprint.declared import Declared, Name, Reference, plain_json, plain_yaml
from stratagem.errors import InputError
from stratagem.recipe import Recipe

SideEffect = Literal["none", "read", "write", "irreversible"]
"""What a tool does to the world. ``none`` and ``read`` may be called ahead of a decision and thrown away."""

Schema = dict[str, Any]


class BlueprintError(InputError):
    """A blueprint is wrong. ``faults`` has one line for each fault; the message has them all."""

    def __init__(self, source: str, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))
        self.faults = faults


class Identity(Declared):
    """Who it is.  version: of the blueprint, any text of digits, dots and letters."""

    name: Name
    version: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+-]{0,31}$")]
    description: str = ""


class HostSource(Declared):
    """The program that runs the blueprint passes the tool."""

    kind: Literal["host"] = "host"


class PythonSource(Declared):
    """A function, called with the arguments by name; async or not."""

    kind: Literal["python"] = "python"
    function: Reference


class McpSource(Declared):
    """A tool of a Model Context Protocol server that is started as ``command`` and spoken to over stdio.

    tool: by which the server knows it; None: the tool's own name.
    """

    kind: Literal["mcp"] = "mcp"
    command: Annotated[tuple[str, ...], MinLen(1)]
    tool: str | None = None


class TaskSource(Declared):
    """One episode of a task of the library: the tool takes ``{"text": ...}``, an action of that task."""

    kind: Literal["task"] = "task"
    task: str
    split: Literal["train", "test"] = "train"
    index: Annotated[int, Ge(0)] = 0


Source = Annotated[HostSource | PythonSource | McpSource | TaskSource, Field(discriminator="kind")]


class ToolSpec(Declared):
    """A tool.  input: JSON schema of its arguments, an object.  output: of its value; None: any JSON.

    timeout: seconds of one call; None: ``budgets.tool_seconds``.
    """

    name: Name
    description: str = ""
    input: Schema = Field(default_factory=lambda: {"type": "object"})
    output: Schema | None = None
    side_effect: SideEffect
    source: Source = HostSource()
    timeout: Annotated[float, Gt(0)] | None = None


class MemorySpec(Declared):
    """The three layers of memory; :class:`~stratagem.blueprint.memory.LayeredMemory` says what the numbers mean."""

    events: Annotated[int, Ge(1)] = 32
    episodes: Annotated[int, Ge(0)] = 64
    insights: Annotated[int, Ge(1)] = 256
    merge_from: Annotated[float, Ge(-1), Le(1)] = 0.9
    decay: Annotated[float, Gt(0)] = 1000.0
    recency: Annotated[float, Gt(0)] = 1000.0
    retrieved: Annotated[int, Ge(0)] = 4
    reflector: Reference | None = None


class PolicySpec(Declared):
    """What decides: ``function(**arguments)`` gives the policy; which model it asks is one of its arguments.

    None as ``function``: the program passes the policy.  greedy: take the likeliest allowed action, and draw nothing.
    """

    function: Reference | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    temperature: Annotated[float, Gt(0)] = 1.0
    greedy: bool = False


class Node(Declared):
    """A call of a workflow.  after: nodes whose calls must have succeeded before.

    arguments: ``{"$node": "id"}`` in them, at any depth, stands for the value of that node, which it then comes after.
    """

    id: Name
    tool: Name
    arguments: dict[str, Any] = Field(default_factory=dict)
    after: tuple[Name, ...] = ()


class Budgets(Declared):
    """Bounds of a run; None: no bound.

    turns: decisions.  calls: of tools, speculative ones that were thrown away included.  tokens: prompts, thoughts and
    actions of all turns.  seconds: of the whole run.  context_tokens: of one prompt.  tool_seconds: of one call.
    workers: calls of a workflow at the same time.
    """

    turns: Annotated[int, Ge(1)] = 32
    calls: Annotated[int, Ge(0)] | None = None
    tokens: Annotated[int, Ge(1)] | None = None
    seconds: Annotated[float, Gt(0)] | None = None
    context_tokens: Annotated[int, Ge(1)] = 4096
    tool_seconds: Annotated[float, Gt(0)] = 30.0
    workers: Annotated[int, Ge(1)] | None = None


class NullAction(Declared):
    """A call that stands for doing nothing; its tool's side effect is ``none`` or ``read``."""

    tool: Name
    arguments: dict[str, Any] = Field(default_factory=dict)


class Evolution(Declared):
    """How the agent may change itself: 0 not at all, 1 by memory, 2 supervised on its successes, 3 by reinforcement.

    recipe: of the catalogue, for levels 2 and 3; None: ``rejection_sft`` and ``grpo``.
    values: fields of the recipe by dotted path.  task: of the library, on which it learns.
    """

    level: Literal[0, 1, 2, 3] = 1
    recipe: str | None = None
    values: dict[str, Any] = Field(default_factory=dict)
    task: str | None = None

    def build(self) -> Recipe:
        """The recipe of level 2 or 3. Raises :class:`InputError` at the other levels, which change no weights."""
        from stratagem import catalogue

        if self.level < 2:
            raise InputError(f"evolution.level = {self.level}: changes no weights, so it has no recipe")
        name = self.recipe or ("rejection_sft" if self.level == 2 else "grpo")
        return catalogue.card(name).recipe().with_values(self.values)


class Blueprint(Declared):
    """An agent, declared. Building one validates everything that can be known without running it.

    fallback: what is done when no action is allowed; None: ask for help.
    """

    format: Literal[1] = 1
    identity: Identity
    goal: Annotated[str, MinLen(1)]
    tools: tuple[ToolSpec, ...] = ()
    memory: MemorySpec = MemorySpec()
    constraints: tuple[Constraint, ...] = ()
    policy: PolicySpec = PolicySpec()
    workflow: tuple[Node, ...] = ()
    budgets: Budgets = Budgets()
    fallback: NullAction | None = None
    evolution: Evolution = Evolution()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = faults_of(self)
        if found:
            raise ValueError("\n".join(found))
        return self

    def tool(self, name: str) -> ToolSpec | None:
        """The tool of this name, if there is one."""
        return next((tool for tool in self.tools if tool.name == name), None)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: the same whatever the order of keys, another one for any other value.

        A default counts as if it had been written. Code that a blueprint refers to is not part of it.
        """
        return hashlib.sha256(canonical(self.model_dump(mode="json")).encode("utf-8", "surrogatepass")).hexdigest()

    def to_json(self) -> str:
        """The blueprint as JSON, every field."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    def to_yaml(self) -> str:
        """The blueprint as YAML, every field."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def parse(cls, plain: Any, source: str = "blueprint") -> Blueprint:
        """A blueprint from plain data. Raises :class:`BlueprintError` with one line for each fault."""
        try:
            text = json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BlueprintError(source, (f"is no plain data: {error}",)) from None
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise BlueprintError(source, tuple(_lines(error))) from None

    @classmethod
    def from_json(cls, text: str, source: str = "blueprint") -> Blueprint:
        """Read JSON. Raises :class:`BlueprintError`."""
        return cls.parse(_read(plain_json, text, source), source)

    @classmethod
    def from_yaml(cls, text: str, source: str = "blueprint") -> Blueprint:
        """Read YAML. Raises :class:`BlueprintError`."""
        return cls.parse(_read(plain_yaml, text, source), source)

    @classmethod
    def load(cls, path: str | Path) -> Blueprint:
        """Read a ``.json`` file, or YAML of any other name. Raises :class:`BlueprintError`."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BlueprintError(str(path), (f"cannot be read ({type(error).__name__})",)) from None
        return (cls.from_json if path.suffix == ".json" else cls.from_yaml)(text, str(path))


def _read(reader: Any, text: str, source: str) -> Mapping[str, Any]:
    try:
        plain = reader(text)
    except (ValueError, RecursionError) as error:
        raise BlueprintError(source, (" ".join(str(error).split()),)) from None
    if not isinstance(plain, dict):
        raise BlueprintError(source, ("a blueprint is a mapping with identity and goal",))
    return plain


def _lines(error: ValidationError) -> list[str]:
    """One line for each fault, with its place."""
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{where}: is no field here")
            continue
        message = fault["msg"].removeprefix("Value error, ")
        lines += [f"{where}: {line}" if where else line for line in message.split("\n")]
    return lines
