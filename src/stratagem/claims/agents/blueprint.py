"""The claim of declared agents: constraints that hold by construction, latency by what waits for what, equal traces."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from stratagem.blueprint import (
    Action,
    Blueprint,
    BlueprintAgent,
    Choices,
    Situation,
    run_in_process,
    run_in_subprocess,
    simulated,
)
from stratagem.lab import Exact
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.projected import ProjectedPolicy, allowed_tokens
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask
from stratagem.recipes.baselines import grpo
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, learn

# ---- a grid with a forbidden cell -----------------------------------------------------------------------------------

WIDTH, HEIGHT, LIMIT = 3, 2, 6
START, GOAL, FORBIDDEN = (0, 0), (2, 0), (1, 0)
"""The straight way leads over the forbidden cell; the way around takes four moves instead of two."""

MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
BATCHES = 60
PENALTIES = (1.0, 10.0)
"""What entering the forbidden cell costs; the rule is about the first."""


def _moved(cell: tuple[int, int], move: int) -> tuple[int, int]:
    """The cell after a move; walls hold."""
    column, row = cell[0] + MOVES[move][0], cell[1] + MOVES[move][1]
    return min(max(column, 0), WIDTH - 1), min(max(row, 0), HEIGHT - 1)


def _act(state: tuple[tuple[int, int], int], tokens: tuple[int, ...]) -> list[Outcome]:
    """A move. The goal pays 1, less a tenth for every move; after six moves the episode is over."""
    cell, made = _moved(state[0], tokens[0]), state[1] + 1
    entered = float(cell == FORBIDDEN)
    if cell == GOAL:
        return over(1 - 0.1 * made, violations=entered)
    if made == LIMIT:
        return over(0.0, truncated=True, violations=entered)
    return [Outcome((cell, made), components={"violations": entered})]


def _grid(penalty: float) -> TokenGame:
    return TokenGame(
        "forbidden_cell",
        "Six cells of which the middle one on the straight way is forbidden.",
        len(MOVES),
        ((1.0, (START, 0)),),
        _act,
        reward_names=("reward", "violations"),
        reward_weights=(1.0, -penalty),
    )


def violation_rate(policy: Exact) -> float:
    """Probability that an episode enters the forbidden cell, exactly."""
    reward = policy.tree.leaves.reward
    assert reward is not None
    return policy.expected(reward[:, 1] > 0)


def _learned(penalty: float, projected: bool, seed: int) -> Run:
    task = LabTask(replace(_grid(penalty), name=f"forbidden_cell_{penalty:g}"))
    tree = Tree.enumerate(task.game)
    logits = tree.normal_logits(seed)
    if not projected:
        return learn(grpo(), task, seed, BATCHES, Exact(tree, logits))
    allowed = allowed_tokens(tree, lambda state, token: _moved(state[0], token) != FORBIDDEN)
    return learn(grpo(), task, seed, BATCHES, ProjectedPolicy(logits, allowed))


# ---- latency on a simulated clock -----------------------------------------------------------------------------------

PREDICTABLE = (0.2, 0.4, 0.6, 0.8, 0.9)
"""Probabilities that the next call is foreseen."""

TURNS, DECIDE, CALL = 40, 1.0, 0.8
"""Of a run; seconds of a decision and of a call."""


def _tool(name: str) -> dict[str, Any]:
    return {"name": name, "side_effect": "read"}


def _map_reduce(workers: int | None) -> Blueprint:
    maps = [{"id": f"map{n}", "tool": "work", "arguments": {"number": n}} for n in range(8)]
    last = {"id": "reduce", "tool": "work", "arguments": {"number": 8}, "after": [node["id"] for node in maps]}
    return Blueprint.parse(
        {
            "identity": {"name": "map_reduce", "version": "1"},
            "goal": "map, then reduce",
            "tools": [_tool("work")],
            "workflow": [*maps, last],
            "budgets": {"workers": workers},
        }
    )


def _makespan(workers: int | None, seed: int) -> float:
    seconds = torch.rand(9, generator=generator(seed, "durations")).tolist()

    async def work(number: int) -> None:
        await asyncio.sleep(seconds[number])

    agent = BlueprintAgent(_map_reduce(workers), functions={"work": work})
    return simulated(lambda: agent.start(workflow=True)).seconds


class _Caller:
    """Calls the tool with a random number every turn, and foresees it with a probability."""

    def __init__(self, seed: int, predictable: float) -> None:
        self._numbers = torch.randint(1000, (TURNS,), generator=generator(seed, "numbers")).tolist()
        drawn = torch.rand(TURNS, generator=generator(seed, "foreseen"))
        self.foreseen = (drawn < predictable).tolist()

    async def __call__(self, situation: Situation) -> Action:
        await asyncio.sleep(DECIDE)
        return Action("look", {"number": self._numbers[situation.turn]})


class _Foreseeing(_Caller):
    def predict(self, situation: Situation) -> Action:
        right = self.foreseen[situation.turn]
        return Action("look", {"number": self._numbers[situation.turn] if right else -1})


def _looking(policy: _Caller) -> float:
    async def look(number: int) -> int:
        await asyncio.sleep(CALL)
        return number

    blueprint = Blueprint.parse(
        {
            "identity": {"name": "looking", "version": "1"},
            "goal": "look",
            "tools": [_tool("look")],
            "budgets": {"turns": TURNS, "context_tokens": 256},
        }
    )
    agent = BlueprintAgent(blueprint, policy, {"look": look})
    return simulated(lambda: agent.start()).seconds


# ---- one blueprint on two engines -----------------------------------------------------------------------------------


def double(number: int) -> int:
    """A tool of the agent that runs on both engines."""
    return 2 * number


def random_doubling() -> Any:
    """Its policy: three random doublings, of which large ones are forbidden, then the end."""

    def policy(situation: Situation) -> Choices:
        if situation.turn == 3:
            return Choices((Action("finish", {"answer": [turn.result.value for turn in situation.history]}),))
        return Choices(tuple(Action("double", {"number": number}) for number in range(10)), thought="any")

    return policy


def _doubling() -> Blueprint:
    return Blueprint.parse(
        {
            "identity": {"name": "doubling", "version": "1"},
            "goal": "double numbers below five",
            "tools": [
                {
                    **_tool("double"),
                    "input": {"type": "object", "properties": {"number": {"type": "integer"}}},
                    "source": {"kind": "python", "function": f"{__name__}:double"},
                }
            ],
            "constraints": [
                {
                    "kind": "only_with",
                    "name": "small",
                    "tool": "double",
                    "arguments": {"properties": {"number": {"maximum": 4}}},
                }
            ],
            "policy": {"function": f"{__name__}:random_doubling"},
        }
    )


@claim(
    "auton",
    statement="Declaring an agent apart from the engine that runs it makes it portable, auditable and safe by "
    "construction, since its policy is projected on the allowed actions before one is emitted; running what does not "
    "wait at the same time, and predicted calls ahead of their decision, lowers latency.",
    source="arXiv 2602.23720, as summarised elsewhere (no numbers were available)",
    baseline="reinforcement learning that is only penalised for what is forbidden; calls one after the other",
    rule=(
        Expect("violations_projected", above=-1e-12, below=1e-12),
        Expect("violations_penalised", above=0),
        Expect("violations_penalised_last", above=0),
        Expect("parallel_over_sequential", below=1),
        Expect("speculative_over_sequential", below=1),
        Expect("equal_traces", above=0.999),
    ),
    scale="A grid of six cells, exact probabilities, a table learned by GRPO in 60 batches. That a softmax only "
    "penalised keeps some probability of what is forbidden, and the projected one has none, is true by construction; "
    "how much is kept is what was measured (violations_penalised over all of training, _last at its end, _10 with "
    "ten times the penalty), together with what both earn (return_projected, return_penalised, before penalties). "
    "GRPO standardises returns within a group, so a larger penalty changes little; another algorithm may heed it more. "
    "In development, with three seeds, the penalised policy earned much less than the projected one in two of them and "
    "as much in the third; other learning rates and other ways to penalise were not tried. "
    "The constraint is known, complete and about the next state; a constraint that cannot be decided one action ahead "
    "is not shown. Latency is of simulated delays without any overhead: a call is cancelled at no cost, though "
    "(1 - p) of the early calls are wasted work; parallel is eight calls and one after them, speculative the worst of "
    "five probabilities of foreseeing. Equal traces are of an agent without concurrent calls.",
)
def auton(seed: int) -> dict[str, float]:
    """Probabilities of violations, exact; seconds on a simulated clock; whether two engines left one log."""
    projected = _learned(PENALTIES[0], True, seed)
    penalised = _learned(PENALTIES[0], False, seed)
    severe = _learned(PENALTIES[1], False, seed)
    sequential = _makespan(1, seed)
    speculative = {p: _looking(_Foreseeing(seed, p)) / _looking(_Caller(seed, p)) for p in PREDICTABLE}
    expected = {p: _expected_ratio(fmean(_Caller(seed, p).foreseen)) for p in PREDICTABLE}
    blueprint = _doubling()
    equal = run_in_process(blueprint, seed=seed) == run_in_subprocess(blueprint, seed=seed)
    return {
        "violations_projected": max(map(violation_rate, projected.policies)),
        "violations_penalised": penalised.mean(violation_rate),
        "violations_penalised_last": violation_rate(penalised.last),
        "violations_penalised_10": severe.mean(violation_rate),
        "violations_penalised_10_last": violation_rate(severe.last),
        "return_projected": _earned(projected.last),
        "return_penalised": _earned(penalised.last),
        "return_penalised_10": _earned(severe.last),
        "parallel_over_sequential": _makespan(None, seed) / sequential,
        "two_workers_over_sequential": _makespan(2, seed) / sequential,
        "speculative_over_sequential": max(speculative.values()),
        **{f"speculative_over_sequential_{p:g}": ratio for p, ratio in speculative.items()},
        "speculation_off_its_formula": max(abs(speculative[p] - expected[p]) for p in PREDICTABLE),
        "equal_traces": float(equal),
    }


def _expected_ratio(foreseen: float) -> float:
    """``(t_decide + (1 - p) t_call) / (t_decide + t_call)``."""
    return (DECIDE + (1 - foreseen) * CALL) / (DECIDE + CALL)


def _earned(policy: Exact) -> float:
    """What an episode earns before penalties."""
    reward = policy.tree.leaves.reward
    assert reward is not None
    return policy.expected(reward[:, 0])
