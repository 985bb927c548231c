"""Tasks by name: the specification ``name[:argument][,option=value...]``, resolved when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stratagem.errors import InputError, unknown
from stratagem.tasks.task import AnyTask

GROUP = "stratagem.tasks"
"""Entry-point group of third-party tasks: a name and the function ``from_spec(argument, options) -> Task``."""

_SPEC = re.compile(r"(?P<name>[^:,\s]+)(?::(?P<rest>.*)|,(?P<options>.*))?", re.DOTALL)
_OPTION = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class TaskCard:
    """How a task is called and what it needs.

    ``name``: the first word of its specification. ``pattern``: how a specification looks. ``description``: one line.
    ``target``: ``module:function`` of ``from_spec(argument: str | None, options: Mapping[str, str]) -> Task``.
    ``extra``: the extra of this package that installs what the task needs, or ``None``.
    """

    name: str
    pattern: str
    description: str
    target: str
    extra: str | None = None


_BUILT_IN = (
    TaskCard(
        "key_door",
        "key_door[:size=6,max_turns=32,step_cost=0]",
        "take the key, open the door between two rooms, reach the goal",
        "stratagem.tasks.key_door:from_spec",
    ),
    TaskCard(
        "sokoban",
        "sokoban[:size=6,boxes=1,view=grid,max_turns=32,step_cost=0]",
        "push every box onto a goal",
        "stratagem.tasks.sokoban:from_spec",
    ),
    TaskCard(
        "calculator",
        "calculator[:terms=3,largest=99,max_turns=4]",
        "work out an expression, with a calculator as a tool",
        "stratagem.tasks.calculator:from_spec",
    ),
    TaskCard(
        "sql",
        "sql[:tables=3,rows=6,max_turns=4,seconds=1]",
        "answer a question about a small database, with SQL queries as a tool",
        "stratagem.tasks.sql:from_spec",
    ),
    TaskCard(
        "sql_exploration",
        "sql_exploration[:tables=3,rows=6,spellings=false,max_turns=6,seconds=1]",
        "answer a question about a small database with a query, after others in tags",
        "stratagem.tasks.sql_exploration:from_spec",
        extra="agents",
    ),
    TaskCard(
        "python",
        "python[:max_turns=4,seconds=2,max_new_tokens=160]",
        "work out a small problem, with a Python interpreter as a tool",
        "stratagem.tasks.python:from_spec",
    ),
    TaskCard(
        "proof",
        "proof[:steps=3,atoms=4,max_turns=1,max_new_tokens=256,legality=true]",
        "prove a theorem of implication and conjunction, line by line",
        "stratagem.tasks.proof:from_spec",
    ),
    TaskCard(
        "structured",
        "structured:TASK[,option=value]",
        "another task, whose turns state a sub-goal beside the action",
        "stratagem.tasks.structured:from_spec",
    ),
    TaskCard(
        "routes",
        "routes[:size=6]",
        "a route across a grid, with four rewards that no route gets all of",
        "stratagem.tasks.routes:from_spec",
    ),
    TaskCard(
        "sets",
        "sets:TASK[,candidates=3,option=value]",
        "another task of one turn, answered with a set of candidates",
        "stratagem.tasks.sets:from_spec",
    ),
    TaskCard(
        "guided",
        "guided:TASK[,prefixes=PATH,share=0.25,longest=CHARACTERS,option=value]",
        "another task, with copies of its problems that begin part of the way along a solution",
        "stratagem.tasks.guided:from_spec",
    ),
    TaskCard(
        "improve",
        "improve:TASK[,attempts=16,shown=2,feedback=score,judged=best,divergence=0.2,option=value]",
        "another task of one turn, whose attempts are to be improved",
        "stratagem.tasks.improve:from_spec",
    ),
    TaskCard(
        "formats",
        "formats:TASK[,format_reward=0.2,format_seed=0,option=value]",
        "another task with short answers, each question as a choice, to fill in, and open",
        "stratagem.tasks.formats:from_spec",
    ),
    TaskCard(
        "skilled",
        "skilled:TASK,skills=PATH[,audit_every=20,validation=64,shown=3,option=value]",
        "another task, whose prompts begin with skills from a bank",
        "stratagem.skills.task:from_spec",
    ),
    TaskCard(
        "synthesized",
        "synthesized:TASK,goals=PATH[,option=value]",
        "goals that were found by exploring another task",
        "stratagem.synthesis.task:from_spec",
    ),
    TaskCard(
        "environments",
        "environments[:PATH][,level=0,max_new_tokens=256]",
        "fresh instances of environments that are written as programs",
        "stratagem.synthesis.environments_task:from_spec",
    ),
    TaskCard(
        "craft",
        "craft[:free=false,most=4,max_turns=24,max_new_tokens=16]",
        "gather materials and make an item by recipes",
        "stratagem.tasks.craft:from_spec",
    ),
    TaskCard(
        "tool_chain",
        "tool_chain[:fewest=3,most=6,reward=hard,max_turns=8,max_new_tokens=64]",
        "make a chain of tool calls with copied arguments and answer with the last result",
        "stratagem.tasks.tool_chain:from_spec",
    ),
    TaskCard(
        "toolbox",
        "toolbox[:kind=mixed,max_turns=4,max_new_tokens=64]",
        "answer questions, some of which need a calculator, a search, or both",
        "stratagem.tasks.toolbox:from_spec",
    ),
    TaskCard(
        "function_calls",
        "function_calls[:category=mixed,distractors=3,max_new_tokens=128]",
        "think, then call the tools that a request needs, with the right arguments, or none",
        "stratagem.tasks.function_calls:from_spec",
    ),
    TaskCard(
        "memory",
        "memory[:notes=6,wanted=2,room=4,editing=true,max_turns=24,max_new_tokens=24]",
        "read notes and answer for some, with too little room to keep them all",
        "stratagem.tasks.memory:from_spec",
    ),
    TaskCard(
        "reading",
        "reading[:kind=mixed,lines=40,part=8,room=24,whole=false,max_new_tokens=96]",
        "answer for a document that is read part by part, with a memory and a plan",
        "stratagem.tasks.reading:from_spec",
    ),
    TaskCard(
        "research",
        "research[:hops=3,people=12,relations=4,iterative=true,max_report=120,max_turns=12,max_new_tokens=64]",
        "follow relations through a graph of facts, remembering no more than a report written anew each round",
        "stratagem.tasks.research:from_spec",
    ),
    TaskCard(
        "experts",
        "experts[:require_call=true,newcomer=false,fuzzy=false,seed=0,max_turns=4,max_new_tokens=64]",
        "answer questions by calling simulated experts, each good at something else",
        "stratagem.tasks.orchestration:from_spec",
    ),
    TaskCard(
        "search",
        "search[:kind=mixed,people=12,length=24,top_k=3,reward=f1,max_turns=6,max_new_tokens=64]",
        "answer questions of one to three steps by searching documents",
        "stratagem.tasks.search:from_spec",
        extra="agents",
    ),
    TaskCard(
        "delegated",
        "delegated:TASK[,planner_turns=6,option=value]",
        "another task, whose agent hands sub-tasks to agents of their own contexts",
        "stratagem.tasks.delegation:from_spec",
    ),
    TaskCard(
        "house",
        "house[:distractors=2,rooms=3,staleness=0.2,walk_cost=0.05,ask_cost=0.1,fatigue=0.5,memory_cost=0.01]",
        "find the thing that is meant, by walking, asking and remembering, each at a cost",
        "stratagem.tasks.house:from_spec",
    ),
    TaskCard(
        "rooms",
        "rooms[:rooms=6,hit=0.8,alarm=0.1,max_turns=16,max_new_tokens=12]",
        "find a key in a house of rooms where looks may deceive",
        "stratagem.tasks.rooms:from_spec",
    ),
    TaskCard(
        "belief",
        "belief:TASK[,judge=rule,pay=beliefs,discount=0.9,belief_tokens=256,option=value]",
        "another task, whose policy sees a belief in words in place of the history",
        "stratagem.tasks.belief:from_spec",
    ),
    TaskCard(
        "documents",
        "documents[:pages=6,wanted=1,entries=3,fine=0.75,noise=0.3,reward=dense,matching=clipped,max_turns=10]",
        "find the page, look closely at a region of it, and answer with what stands there",
        "stratagem.tasks.documents:from_spec",
    ),
    TaskCard(
        "shop",
        "shop[:items=30,attributes=3,page=5,max_turns=12,max_new_tokens=32]",
        "search a catalogue, choose options, and buy what is asked for within a budget",
        "stratagem.tasks.shop:from_spec",
    ),
    TaskCard(
        "household",
        "household[:goal=mixed,rooms=3,objects=8,max_turns=50,max_new_tokens=24]",
        "find a thing in a household, treat it, and bring it where it belongs",
        "stratagem.tasks.household:from_spec",
    ),
    TaskCard(
        "t_maze",
        "t_maze[:length=6,aliased=true,max_turns=12,step_cost=0]",
        "remember the sign at the start, walk down a corridor, take the arm that the sign meant",
        "stratagem.tasks.t_maze:from_spec",
    ),
    TaskCard(
        "video",
        "video[:tools=count-first,steps=1,communication=true,dropout=0.2,max_new_tokens=48]",
        "agents with different tools look at a sequence, tell each other what they saw, and vote",
        "stratagem.tasks.video:from_spec",
    ),
    TaskCard(
        "decompose",
        "decompose[:solver=noisy,error=0.05,fewest_steps=3,most_steps=6,when_down=fail,r4_mode=released]",
        "ask sub-questions that help a frozen solver",
        "stratagem.tasks.decomposition:from_spec",
    ),
    TaskCard(
        "collaborate",
        "collaborate[:agents=3,solver=noisy,expert=exact,eval_cost=0,create_cost=0.1,defer_cost=0.3,taught=PATH]",
        "believe a peer, solve anew, or ask an expert",
        "stratagem.tasks.collaboration:from_spec",
    ),
    TaskCard(
        "blueprint",
        "blueprint:TASK[,most=10,subgoal_turns=16,declared=true,penalty=0.1,option=value]",
        "another task, whose first turn plans the sub-goals of the others",
        "stratagem.tasks.blueprint:from_spec",
    ),
    TaskCard(
        "app",
        "app[:screens=15,buttons=6,max_turns=16,reward=steps]",
        "tap through the screens of a made-up app, a sub-goal and an action at a time",
        "stratagem.tasks.app:from_spec",
    ),
    TaskCard(
        "jsonl",
        "jsonl:PATH[,verifier=exact,test_share=0.1,max_new_tokens=256]",
        "prompts from a JSON-lines file with a verifier",
        "stratagem.tasks.jsonl:from_spec",
    ),
    TaskCard(
        "pairs",
        "pairs:PATH[,inconsistent=keep,one_sided=refuse,annotator=NAME,test_share=0.1,max_new_tokens=256]",
        "pairs of answers that were labelled, from a JSON-lines file",
        "stratagem.tasks.pairs:from_spec",
    ),
    TaskCard(
        "rg",
        "rg:DATASET[,option=value]",
        "a procedural data set of Reasoning Gym",
        "stratagem.tasks.reasoning_gym:from_spec",
    ),
    TaskCard(
        "textworld",
        "textworld[:LEVEL][,option=value]",
        "generated text games of TextWorld",
        "stratagem.tasks.textworld:from_spec",
        extra="text",
    ),
    TaskCard(
        "textgym",
        "textgym:ID[,option=value]",
        "a Gymnasium environment that speaks text",
        "stratagem.tasks.text_gymnasium:from_spec",
    ),
    TaskCard(
        "textarena",
        "textarena:ID[,option=value]",
        "a single-player game of TextArena",
        "stratagem.tasks.textarena:from_spec",
        extra="text",
    ),
    TaskCard(
        "verifiers",
        "verifiers:MODULE[,option=value]",
        "an environment of the verifiers library",
        "stratagem.tasks.verifiers:from_spec",
        extra="environments",
    ),
    TaskCard(
        "openenv",
        "openenv:URL[,option=value]",
        "an OpenEnv environment behind its server",
        "stratagem.tasks.openenv:from_spec",
        extra="environments",
    ),
    TaskCard(
        "gym",
        "gym:ID[,option=value]",
        "a Gymnasium environment for a control policy",
        "stratagem.control.task:from_spec",
        extra="control",
    ),
    TaskCard(
        "pettingzoo",
        "pettingzoo:MODULE[,option=value]",
        "a PettingZoo environment for several agents that learn",
        "stratagem.multiagent.pettingzoo:from_spec",
        extra="multiagent",
    ),
    TaskCard(
        "spiel",
        "spiel:GAME[,seat=alternating,opponents=FOLDER]",
        "a seat of a game of OpenSpiel, against players at random or of a run; or the game for stratagem solve",
        "stratagem.games.task:from_spec",
        extra="games",
    ),
    TaskCard(
        "matrix",
        "matrix[:PAYOFFS][,scale=1]",
        "two agents, one turn, one payoff: climbing, penalty or nonmonotonic",
        "stratagem.multiagent.games:matrix",
    ),
    TaskCard(
        "two_step",
        "two_step",
        "one agent chooses a safe game of two, or one that pays more to agents who coordinate",
        "stratagem.multiagent.games:two_step",
    ),
    TaskCard(
        "meeting",
        "meeting[:size=5,agents=2,sight=2,max_turns=25,step_cost=0.02]",
        "agents on a grid, who see little of it, are to meet",
        "stratagem.multiagent.games:meeting",
    ),
    TaskCard(
        "coordination",
        "coordination[:agents=3,flip=0.1,max_turns=20]",
        "bits that several agents are to set alike, of which one way pays more than the other",
        "stratagem.multiagent.games:coordination",
    ),
    TaskCard(
        "recall",
        "recall[:agents=2,cues=2,delay=4]",
        "a cue seen at first is to be answered together later, when nobody sees it",
        "stratagem.multiagent.games:recall",
    ),
    TaskCard(
        "resources",
        "resources[:agents=2+4,cells=12,landmarks=3,places=8,max_turns=12]",
        "agents on a ring share what landmarks pay; episodes have different numbers of them",
        "stratagem.multiagent.resources:from_spec",
    ),
    TaskCard(
        "pathfinding",
        "pathfinding[:size=12,density=0.2,agents=16,sight=5,view=3,static=true,dynamic=true,pay=waypoint]",
        "agents on a grid go from goal to goal, planning their own paths",
        "stratagem.multiagent.pathfinding:from_spec",
    ),
    TaskCard(
        "discs",
        "discs[:agents=4,gap=0.8,jitter=0.2,radius=0.15,obstacle=0.4,safety=0.02,reach=1.5,max_turns=200]",
        "discs change places past obstacles, kept safe by barriers whose parameters they set",
        "stratagem.multiagent.discs:from_spec",
    ),
    TaskCard(
        "pogema",
        "pogema[:size=12,density=0.2,agents=16,sight=5,view=3,static=true,dynamic=true,pay=waypoint]",
        "the same game played by the POGEMA library (pip install --no-deps pogema)",
        "stratagem.multiagent.pogema:from_spec",
    ),
    TaskCard(
        "door_key_grid",
        "door_key_grid[:size=5,max_turns=100,step_cost=0.9]",
        "one agent on a grid takes a key, opens a door and reaches a goal; with subgoals",
        "stratagem.multiagent.subgoal_grids:door_key_grid",
    ),
    TaskCard(
        "trash_grid",
        "trash_grid[:size=5,agents=2,small=2,large=1,capacity=3,max_turns=50]",
        "agents on a grid fetch trash and put it into a bin, large pieces crushed; with subgoals",
        "stratagem.multiagent.subgoal_grids:trash_grid",
    ),
    TaskCard(
        "followers",
        "followers:TASK[,cost=0.5,timeout=N,option=value]",
        "agents that practise to reach given subgoals of a task that has them",
        "stratagem.multiagent.subgoals:followers",
    ),
    TaskCard(
        "leaders",
        "leaders:TASK,followers=FOLDER[,discount=0.99,timeout=N,adaptive=false,kappa=2,option=value]",
        "agents that choose subgoals of a task, which trained followers then reach",
        "stratagem.multiagent.leaders:leaders",
    ),
    TaskCard(
        "lab",
        "lab:GAME[,option=value]",
        "a token game small enough to enumerate, judged exactly",
        "stratagem.lab.world:from_spec",
    ),
    TaskCard(
        "diffusion",
        "diffusion:PUZZLE[,option=value]",
        "a puzzle answered by a small masked-diffusion policy",
        "stratagem.diffusion.tasks:from_spec",
    ),
    TaskCard(
        "hybrid",
        "hybrid:QUESTION[,steps=4,dims=8,concentration=8,latents=sampled]",
        "a question about a picture, thought over in latent directions and answered with a token",
        "stratagem.hybrid.task:from_spec",
    ),
    TaskCard(
        "openended",
        "openended:grid[,side=7,horizon=50,objects=3,options=2,atoms=2,walls=0.1,negations=0.25,flips=false,players=1]",
        "a universe of grid worlds with goals made of predicates, for a policy that reads them",
        "stratagem.openended.task:from_spec",
    ),
)


def make(spec: str) -> AnyTask:
    """The task of a specification ``name[:argument][,option=value...]``.

    Examples: ``key_door``, ``key_door:size=8``, ``sokoban:size=6,boxes=1``, ``jsonl:data/sums.jsonl,verifier=number``.
    After the colon, a first piece that is not ``option=value`` is the argument.

    Raises :class:`InputError` for a malformed specification, an unknown task or option, a value out of range, and when
    what the task needs is not installed.
    """
    name, argument, options = parse(spec)
    cards = _cards()
    if name not in cards:
        raise unknown("task", name, cards)
    card = cards[name]
    task = _load(card, argument, options)
    if not hasattr(task, "family"):
        raise InputError(f"task {name!r}: {card.target} returned {type(task).__name__}, not a task")
    return task  # type: ignore[no-any-return]


def known() -> list[TaskCard]:
    """The cards of all tasks, built in first, then those that installed packages register."""
    return list(_cards().values())


def parse(spec: str) -> tuple[str, str | None, dict[str, str]]:
    """Name, argument and options of a specification. Raises :class:`InputError` when it is malformed."""
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise InputError(f"task {spec!r} is malformed; write name[:argument][,option=value...]")
    pieces = [piece.strip() for piece in _pieces(match["rest"] or match["options"] or "") if piece.strip()]
    argument = pieces.pop(0) if match["rest"] and pieces and not _OPTION.fullmatch(pieces[0]) else None
    options: dict[str, str] = {}
    for piece in pieces:
        option = _OPTION.fullmatch(piece)
        if option is None:
            raise InputError(f"task {spec!r}: {piece!r} is no option; write option=value")
        if option["name"] in options:
            raise InputError(f"task {spec!r}: option {option['name']!r} is given twice")
        options[option["name"]] = option["value"].strip()
    return match["name"], argument, options


def _pieces(text: str) -> list[str]:
    """What commas part, but for those in parentheses, as in ``goofspiel(num_cards=4,imp_info=True)``."""
    if text.count("(") != text.count(")"):
        return text.split(",")
    pieces, depth = [""], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += sign
    return pieces


def _cards() -> dict[str, TaskCard]:
    cards = {card.name: card for card in _BUILT_IN}
    for entry in entry_points(group=GROUP):
        if entry.name in cards:
            raise InputError(f"task {entry.name!r} is registered by {cards[entry.name].target} and by {entry.value}")
        provider = f"from {entry.dist.name} {entry.dist.version}" if entry.dist else f"from {entry.value}"
        cards[entry.name] = TaskCard(entry.name, f"{entry.name}[:ARGUMENT][,option=value]", provider, entry.value)
    return cards


def _load(card: TaskCard, argument: str | None, options: Mapping[str, str]) -> Any:
    try:
        return EntryPoint(card.name, card.target, GROUP).load()(argument, options)
    except ModuleNotFoundError as error:
        remedy = f"pip install 'stratagem[{card.extra}]'" if card.extra else f"install {error.name}"
        raise InputError(f"task {card.name!r} needs the module {error.name!r}: {remedy}") from error
