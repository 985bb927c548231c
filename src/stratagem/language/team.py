"""A team: language policies that act in one episode, each in the turns of its roles and with weights of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, Self, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.language.engine import Completion, Engine, Request, WeightMismatchError, WeightSource, exclusive
from stratagem.language.inputs import TokenInputs
from stratagem.language.policy import LanguagePolicy, token_inputs
from stratagem.objectives.views import ResponseOnly
from stratagem.parts import View
from stratagem.training.run_directory import whole_directory
from stratagem.training.world import check_asked

OTHERS = "others"
"""Name of the member that plays every role that no other member plays."""

_FILE = "team.json"


class Team(nn.Module):
    """A policy made of language policies; what it says of a token is what the member of the token's role says.

    So the gradient of a token reaches one member only. A member reads a conversation as it stands, with what others
    wrote in it. ``hidden`` of a member lies in columns of its own, since no inner product between members means
    anything.

    players: the member of every role, by number; None: of all roles that are not named. One policy in several places
    is one member. Members are in the order of their first roles, the one of all others last.

    Raises :class:`InputError` for no member, a role below 0, and members whose tokenizers differ: an episode is one
    list of tokens, in whichever turn they were written.
    """

    def __init__(self, players: Mapping[int | None, LanguagePolicy]) -> None:
        super().__init__()
        named = sorted(role for role in players if role is not None)
        if not players or min(named, default=0) < 0:
            raise InputError(f"team: needs members for roles from 0 on, got {list(players)}")
        roles: list[int | None] = [*named, *([None] if None in players else [])]
        distinct = {id(players[role]): players[role] for role in roles}
        places = {key: place for place, key in enumerate(distinct)}
        self.seats: dict[int | None, int] = {role: places[id(players[role])] for role in roles}
        self._members = nn.ModuleList(distinct.values())
        for name, member in zip(self.names[1:], self.members[1:], strict=True):
            _check_tokenizers(self.names[0], self.members[0], name, member)

    @classmethod
    def from_directory(cls, directory: str | Path, **options: Any) -> Self:
        """What :meth:`save` wrote; ``options`` are those of every :class:`LanguagePolicy`."""
        seats = cls.folders(directory)
        members = {folder: LanguagePolicy.from_path(folder, **options) for folder in dict.fromkeys(seats.values())}
        return cls({role: members[folder] for role, folder in seats.items()})

    @staticmethod
    def folders(directory: str | Path) -> dict[int | None, Path]:
        """Of each role of a saved team, where its model lies. Raises :class:`InputError` when that cannot be read."""
        try:
            named = json.loads((Path(directory) / _FILE).read_text(encoding="utf-8"))
            return {read_role(name): Path(directory).resolve() / str(folder) for name, folder in named.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"team {directory}: no readable {_FILE} ({type(error).__name__})") from None

    @staticmethod
    def is_saved(directory: str | Path) -> bool:
        """Whether this is the folder of a team."""
        return (Path(directory) / _FILE).is_file()

    # ---- members ---------------------------------------------------------------------------------------------------

    @property
    def members(self) -> list[LanguagePolicy]:
        """The policies, each once."""
        return cast(list[LanguagePolicy], list(self._members))

    @property
    def names(self) -> list[str]:
        """Of the members: ``roleN`` by the first role each plays, or ``others``."""
        first: dict[int, str] = {}
        for role, place in self.seats.items():
            first.setdefault(place, _name(role))
        return [first[place] for place in range(len(first))]

    def member_of(self, role: int) -> int:
        """Number of the member that plays a role. Raises :class:`InputError` when nobody does."""
        place = self.seats.get(role, self.seats.get(None))
        if place is None:
            played = ", ".join(map(_name, self.seats))
            raise InputError(f"team: nobody plays role {role}, only {played}; give the team a member for it")
        return place

    @property
    def says(self) -> frozenset[str]:
        """What every member says."""
        return frozenset.intersection(*(member.says for member in self.members))

    @property
    def views(self) -> tuple[type[View], ...]:
        """Views that every member has."""
        first, *others = self.members
        return tuple(view for view in first.views if all(view in other.views for other in others))

    @property
    def tokenizer(self) -> Any:
        """The one all members share."""
        return self.members[0].tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.members[0].device

    # ---- as a policy -----------------------------------------------------------------------------------------------

    def forward(
        self, x: Experience, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """What the members say about the action tokens of ``x``, each about those of its roles, in their order.

        Arguments and errors are those of :meth:`LanguagePolicy.forward`. Without ``turn_role`` all roles are 0.
        """
        check_asked(self, also, view)
        return _said(self, self.members, x, temperature, also, view)

    def places(self, x: Experience) -> Int[Tensor, " tokens"]:
        """Number of the member of every token."""
        role = x.role_of_turn
        roles, which = torch.unique(role, return_inverse=True)
        place = torch.tensor([self.member_of(number) for number in roles.tolist()], dtype=torch.int64, device=x.device)
        return x.turn_of_token.spread(place[which])

    def policy_parameters(self) -> list[nn.Parameter]:
        """Of all members, one after the other."""
        return list(chain(*(member.policy_parameters() for member in self.members)))

    def critic_parameters(self) -> list[nn.Parameter]:
        """Of all members, one after the other."""
        return list(chain(*(member.critic_parameters() for member in self.members)))

    def hidden_matrices(self) -> list[Tensor]:
        """Of all members, one after the other."""
        return list(chain(*(member.hidden_matrices() for member in self.members)))

    def view_parameters(self, view: View | None) -> list[nn.Parameter]:
        """Of all members, one after the other."""
        return list(chain(*(member.view_parameters(view) for member in self.members)))

    def frozen(self) -> ReferenceTeam:
        """Every member as it was before training, or a copy of what it is."""
        return ReferenceTeam(self, [member.frozen() for member in self.members])

    def copy(self) -> Self:
        """A copy that no longer moves."""
        copies = [member.copy() for member in self.members]
        return type(self)({role: copies[place] for role, place in self.seats.items()})

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The members' tensors, their names after the member's."""
        for name, member in zip(self.names, self.members, strict=True):
            yield from ((f"{name}.{key}", tensor) for key, tensor in member.weights())

    def save(self, directory: str | Path, card: str | None = None) -> None:
        """Write every member to a folder of its name, who plays which role to ``team.json``, and the card."""
        with whole_directory(Path(directory)) as folder:
            for name, member in zip(self.names, self.members, strict=True):
                member.save(folder / name)
            seats = {_name(role): self.names[place] for role, place in self.seats.items()}
            (folder / _FILE).write_text(json.dumps(seats) + "\n", encoding="utf-8")
            if card is not None:
                (folder / "README.md").write_text(card, encoding="utf-8")


class ReferenceTeam:
    """A frozen team for reference log-probabilities; its outputs carry no gradient."""

    def __init__(self, team: Team, members: Sequence[_Answering]) -> None:
        self._team, self._members = team, members

    @torch.no_grad()
    def __call__(
        self, x: Experience, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """As :meth:`Team.forward`, without gradient and without values."""
        return _said(self._team, self._members, x, temperature, also, view)


class _Answering(Protocol):
    def about(
        self, inputs: TokenInputs, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput: ...


def _said(
    team: Team,
    members: Sequence[_Answering],
    x: Experience,
    temperature: float,
    also: Collection[str],
    view: View | None,
) -> PolicyOutput:
    """What each member says of its own tokens, in the order of all."""
    inputs = token_inputs(x)
    if isinstance(view, ResponseOnly):
        # What comes before the first action of a conversation, whoever's that is.
        inputs, view = inputs.without_opening(team.members[0].beginning()), None
    place = team.places(x)
    rows = [torch.nonzero(place == number).squeeze(1) for number in range(len(members))]
    outputs = [
        member.about(inputs.of_actions(mine), temperature, also, view)
        for member, mine in zip(members, rows, strict=True)
    ]
    order = torch.cat(rows).argsort()

    def in_order(name: str) -> Tensor:
        figures = [cast(Tensor, getattr(output, name)) for output in outputs]
        return torch.cat(_beside(figures) if name == "hidden" else figures)[order]

    return PolicyOutput(**{name: in_order(name) for name in ("logp", *also)})


def _beside(figures: Sequence[Tensor]) -> list[Tensor]:
    """Matrices with columns of their own, and 0 in those of the others."""
    widths = [figure.shape[1] for figure in figures]
    return [
        nn.functional.pad(figure, (sum(widths[:place]), sum(widths[place + 1 :])))
        for place, figure in enumerate(figures)
    ]


def _check_tokenizers(first_name: str, first: LanguagePolicy, name: str, other: LanguagePolicy) -> None:
    ours, theirs = cast(Any, first.tokenizer), cast(Any, other.tokenizer)
    if ours is theirs:
        return
    differs = {
        "vocabulary": ours.get_vocab() != theirs.get_vocab(),
        "end token": ours.eos_token_id != theirs.eos_token_id,
        "chat template": ours.chat_template != theirs.chat_template,
    }
    found = [what for what, is_so in differs.items() if is_so]
    if found:
        raise InputError(
            f"team: {first_name} and {name} must have one tokenizer, but theirs differ in {' and '.join(found)}"
        )


def _name(role: int | None) -> str:
    return OTHERS if role is None else f"role{role}"


def read_role(name: str) -> int | None:
    """The role called ``roleN``; None for ``others``. Raises :class:`InputError` for another name."""
    number = name.removeprefix("role")
    if name == OTHERS:
        return None
    if name.startswith("role") and number.isascii() and number.isdigit():
        return int(number)
    raise InputError(f"team: {name!r} is no role; must be role0, role1, ... or {OTHERS}")


@dataclass(eq=False)
class _Conversation:
    """A session: all its tokens, and by member that acted in it, its own session and how many tokens that holds."""

    tokens: list[int] = field(default_factory=list)
    seats: dict[int, tuple[int, int]] = field(default_factory=dict)


class TeamEngine:
    """Serves a team: an engine for every member (see :class:`~stratagem.language.engine.Engine`).

    Each turn is sampled by the member whose role it is. Where several act in one conversation, each has a session of
    its own, and reads what the others wrote since its last turn.

    engines: one for each member, in their order.
    """

    def __init__(self, team: Team, engines: Sequence[Engine]) -> None:
        if len(engines) != len(team.members):
            raise InputError(f"team engine: {len(engines)} engines for {len(team.members)} members")
        self._team, self._engines = team, list(engines)
        self._lock = threading.RLock()
        self._conversations: dict[int, _Conversation] = {}
        self._opened = 0

    @property
    def version(self) -> int:
        """Of the weights being served."""
        return self._engines[0].version

    @property
    def prefilled(self) -> int:
        """Tokens that the members computed so far, and did not sample."""
        return sum(engine.prefilled for engine in self._engines)

    @property
    def taken_over(self) -> int:
        """Tokens so far that a member read in one session and had computed in another one."""
        return sum(engine.taken_over for engine in self._engines)

    @contextmanager
    def keeping(self, most: int) -> Iterator[None]:
        """While it lasts, what up to ``most`` closed sessions of every member computed stays."""
        with ExitStack() as stack:
            for engine in self._engines:
                stack.enter_context(engine.keeping(most))
            yield

    @exclusive
    def open(self, count: int) -> list[int]:
        """Start ``count`` empty sessions; the limit is that of the engines, and met when members act."""
        numbers = list(range(self._opened, self._opened + count))
        self._opened += count
        self._conversations |= {number: _Conversation() for number in numbers}
        return numbers

    @exclusive
    def close(self, sessions: Sequence[int]) -> None:
        """Forget these sessions, at every member."""
        closed = [self._conversation(number) for number in dict.fromkeys(sessions)]
        for number in sessions:
            self._conversations.pop(number, None)
        for place, engine in enumerate(self._engines):
            held = [one.seats[place][0] for one in closed if place in one.seats]
            if held:
                engine.close(held)

    @exclusive
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One turn of each of these sessions, each by the member of its role, in the order of the requests."""
        answers: dict[int, Completion] = {}
        by_member: dict[int, list[int]] = {}
        for number, request in enumerate(requests):
            by_member.setdefault(self._team.member_of(request.role), []).append(number)
        for place, numbers in by_member.items():
            completions = self._generate(place, [requests[number] for number in numbers])
            answers |= dict(zip(numbers, completions, strict=True))
        return [answers[number] for number in range(len(requests))]

    def _generate(self, place: int, requests: Sequence[Request]) -> list[Completion]:
        engine = self._engines[place]
        conversations = [self._conversation(request.session) for request in requests]
        strangers = [one for one in conversations if place not in one.seats]
        for one, session in zip(strangers, engine.open(len(strangers)) if strangers else [], strict=True):
            one.seats[place] = session, 0
        asked = []
        for one, request in zip(conversations, requests, strict=True):
            session, heard = one.seats[place]
            asked.append(replace(request, session=session, tokens=[*one.tokens[heard:], *request.tokens]))
        completions = engine.generate(asked)
        for one, request, completion in zip(conversations, requests, completions, strict=True):
            if completion.tokens:  # Otherwise the context is full, and the session is as it was.
                one.tokens += [*request.tokens, *completion.tokens]
                one.seats[place] = one.seats[place][0], len(one.tokens)
        return completions

    @exclusive
    def load_weights(self, policy: WeightSource, version: int) -> None:
        """Serve the members' weights from now on. Raises :class:`WeightMismatchError` for what is no such team."""
        if not isinstance(policy, Team) or len(policy.members) != len(self._engines):
            raise WeightMismatchError(f"the engine of a team of {len(self._engines)} was given {type(policy).__name__}")
        for engine, member in zip(self._engines, policy.members, strict=True):
            engine.load_weights(member, version)

    def _conversation(self, number: int) -> _Conversation:
        if number not in self._conversations:
            raise InputError(f"session {number} is not open")
        return self._conversations[number]


def read_models(models: Iterable[str]) -> str | dict[str, str] | None:
    """What the command line says of models: one path as it is, ``ROLE=PATH`` pairs by role, nothing as None.

    Beside pairs a path alone is of all ``others``; of several the last counts, as with any option. Raises
    :class:`InputError` for a role named twice or without a path.
    """
    found: dict[str, str] = {}
    for text in models:
        name, sign, path = text.partition("=")
        if not (sign and name.startswith("role") and name.removeprefix("role").isdigit()):
            found[OTHERS] = text
            continue
        if name in found or not path:
            raise InputError(f"--model {text}: give each role one model, as --model role0=PATH --model role1=PATH")
        found[name] = path
    if set(found) == {OTHERS}:
        return found[OTHERS]
    return found or None
