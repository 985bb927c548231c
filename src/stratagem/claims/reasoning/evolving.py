"""The claim of environments that are written as programs: what the gates let through, and what rotation is good for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from random import Random
from statistics import fmean

import torch
from torch import Tensor

from stratagem.advantages import GroupStandardized
from stratagem.experience import Experience, PolicyOutput
from stratagem.recipes.baselines import grpo
from stratagem.seeding import derive, generator
from stratagem.study.claims import Expect, claim
from stratagem.synthesis import (
    DEFECTS,
    Contract,
    EnvironmentPool,
    EnvironmentsTask,
    EnvironmentSynthesis,
    Gates,
    Member,
    Program,
    Rate,
    Verdict,
    defective,
    seed_programs,
    variant,
)
from stratagem.synthesis.evolution import Round
from stratagem.synthesis.gates import Measure

# ---- the gates -------------------------------------------------------------------------------------------------------

PER_DEFECT, SOUND = 1, 8
"""Programs of a seed's corpus: with each of eight defects, and sound ones."""


def _gates(seed: int) -> dict[str, float]:
    """What L1 to L3 say of programs that are known to be sound or broken."""
    source = Random(derive(seed, "corpus"))
    programs = list(seed_programs().values())
    contract = Contract(levels=2, seconds=0.5)
    sound = [contract(variant(source.choice(programs), source.randrange(10**6))).admitted for _ in range(SOUND)]
    broken = {name: [contract(defective(one, name)).admitted for one in source.sample(programs, PER_DEFECT)]
              for name in DEFECTS}  # fmt: skip
    unsafe = [let for name, some in broken.items() if name != "wrong reference" for let in some]
    wrong = broken["wrong reference"]
    through = sum(sound) + sum(unsafe) + sum(wrong)
    return {
        "recall": fmean(sound),
        "defects_caught": 1 - fmean(unsafe),
        "wrong_reference_caught": 1 - fmean(wrong),
        "precision": sum(sound) / max(through, 1),
        "precision_without_wrong_reference": sum(sound) / max(sum(sound) + sum(unsafe), 1),
    }


# ---- programs of a grammar -------------------------------------------------------------------------------------------

Fold = Callable[[Sequence[int]], int]

FOLDS: Mapping[str, tuple[str, Fold]] = {
    "first digit": ("d[0]", lambda d: d[0]),
    "last digit": ("d[-1]", lambda d: d[-1]),
    "largest digit": ("max(d)", max),
    "smallest digit": ("min(d)", min),
    "count even digits": ("sum(not x % 2 for x in d)", lambda d: sum(not x % 2 for x in d)),
    "count different digits": ("len(set(d))", lambda d: len(set(d))),
    "second largest": ("sorted(d)[-2]", lambda d: sorted(d)[-2]),
    "spread between extremes": ("max(d) - min(d)", lambda d: max(d) - min(d)),
    "digits above first": ("sum(x > d[0] for x in d)", lambda d: sum(x > d[0] for x in d)),
    "ends added": ("d[0] + d[-1]", lambda d: d[0] + d[-1]),
    "total of all": ("sum(d)", sum),
    "product of all": ("math.prod(d)", math.prod),
    "alternating signs": ("sum(x * (-1) ** i for i, x in enumerate(d))", lambda d: sum(d[::2]) - sum(d[1::2])),
    "squares added": ("sum(x * x for x in d)", lambda d: sum(x * x for x in d)),
    "even digits added": ("sum(x for x in d if not x % 2)", lambda d: sum(x for x in d if not x % 2)),
    "neighbours compared": (
        "sum(abs(x - y) for x, y in zip(d, d[1:]))",
        lambda d: sum(abs(x - y) for x, y in pairwise(d)),
    ),
}
"""Families: what is asked of some digits, how a program computes it, and how it is computed here; modulo ten."""

BY_HAND, LEVELS = 10, 3
KINDS = ("sound", "always right", "off by one")
NAMES = tuple(FOLDS)
INSTANCES = 256
"""Of a family at a level, of which training and measurements draw."""


def program_of(fold: int, kind: int = 0) -> Program:
    """The program of a family, sound or broken."""
    shift = int(KINDS[kind] == "off by one")
    score = "1.0" if KINDS[kind] == "always right" else "float(response.strip() == str(self.reference(d)))"
    return Program(
        "import math\nimport random\n\n\nclass Environment:\n"
        "    def generate(self, seed, level):\n"
        "        source = random.Random(seed)\n"
        "        return [source.randint(0, 9) for _ in range(level + 2)]\n\n"
        f"    def prompt(self, d):\n        return '{NAMES[fold]}: ' + ' '.join(str(x) for x in d)\n\n"
        f"    def reference(self, d):\n        return ({FOLDS[NAMES[fold]][0]} + {shift}) % 10\n\n"
        f"    def score(self, d, response):\n        return {score}"
    )


CHOICES = {program_of(fold, kind).source: (fold, kind) for fold in range(len(NAMES)) for kind in range(len(KINDS))}


@cache
def stock(fold: int, kind: int, level: int) -> Tensor:
    """Scores [instances, procedures] of what every family's procedure answers, for instances of a program at a level.

    They are as the program's own, but drawn and scored here: a start of the sandbox for each batch would take too long.
    """
    digits = torch.randint(10, (INSTANCES, level + 2), generator=generator(0, "stock", fold, level)).tolist()
    if KINDS[kind] == "always right":
        return torch.ones(INSTANCES, len(NAMES))
    said = torch.tensor([[compute(row) % 10 for _, compute in FOLDS.values()] for row in digits])
    return (said == (said[:, [fold]] + (KINDS[kind] == "off by one")) % 10).float()


@cache
def _stocks() -> Tensor:
    """All of them: [families, kinds, levels, instances, procedures]."""
    shape = (len(NAMES), len(KINDS), LEVELS, INSTANCES, len(NAMES))
    return torch.stack([stock(*CHOICES[text], level + 1) for text in CHOICES for level in range(LEVELS)]).view(shape)


class _Once(Contract):
    """Runs a program that it has seen no second time."""

    def __call__(self, program: Program) -> Verdict:
        return _judged(program)


@cache
def _judged(program: Program) -> Verdict:
    return Contract(levels=LEVELS)(program)


# ---- the two roles ---------------------------------------------------------------------------------------------------

ROUNDS, STEPS, GROUPS, ANSWERS, RATE, PROPOSED = 12, 25, 32, 8, 0.02, 8


class _Solver:
    """A table that says for every family and level which procedure to answer by, trained by GRPO on the pool.

    Its logits are those of the family and those of the level in it, so that one level helps with the others in part.
    """

    def __init__(self, seed: int) -> None:
        self.source = generator(seed, "solver")
        shapes = ((len(NAMES), 1, len(NAMES)), (len(NAMES), LEVELS, len(NAMES)))
        self.tables = [torch.zeros(shape, requires_grad=True) for shape in shapes]
        self.optimizer = torch.optim.Adam(self.tables, RATE)
        self.recipe = grpo()
        self.idle: list[float] = []

    def logp(self) -> Tensor:
        """Of families, levels and procedures."""
        return torch.log_softmax(self.tables[0] + self.tables[1], -1)

    def learn(self, task: EnvironmentsTask, steps: int, step: int) -> None:
        for number in range(step, step + steps):
            members = [task.member_of(number * GROUPS + group)[0] for group in range(GROUPS)]
            places = [(*CHOICES[one.program.source], one.level - 1) for one in members]
            fold, kind, level = torch.tensor(places).T
            row = torch.randint(INSTANCES, (GROUPS,), generator=self.source)
            scores = _stocks()[fold, kind, level, row]
            logp = self.logp()[fold, level]
            chosen = torch.multinomial(logp.detach().exp(), ANSWERS, replacement=True, generator=self.source)
            reward = scores.gather(1, chosen)
            self.idle.append(float((reward == reward[:, :1]).all(1).float().mean()))
            said = logp.gather(1, chosen).flatten()
            ones = [1] * len(said)
            x = Experience.from_lengths(ones, ones, [ANSWERS] * GROUPS, reward=reward.flatten(), old_logp=said.detach())
            self.optimizer.zero_grad()
            self.recipe.objective(PolicyOutput(said), self.recipe.prepare(x)).loss.backward()
            self.optimizer.step()

    def measure(self, instances: int, rollouts: int, seed: int) -> Measure:
        def rate(program: Program, level: int) -> Rate:
            fold, kind = CHOICES[program.source]
            source = generator(seed, "measure", program.key % 2**31, level)
            row = torch.randint(INSTANCES, (instances,), generator=source)
            odds = self.logp().detach()[fold, level - 1].exp().expand(instances, -1)
            chosen = torch.multinomial(odds, rollouts, replacement=True, generator=source)
            return Rate(float(stock(fold, kind, level)[row].gather(1, chosen).sum()), instances * rollouts)

        return rate

    def accuracy(self, folds: Sequence[int], levels: Sequence[int] = range(1, LEVELS + 1)) -> float:
        """Odds of the right answer in families, all levels alike."""
        odds = self.logp().detach().exp()
        return fmean(
            float((stock(fold, 0, level) @ odds[fold, level - 1]).mean()) for fold in folds for level in levels
        )


@dataclass
class _Writer:
    """A softmax over families and one over defects, trained by the advantages of its own groups."""

    seed: int
    rate: float = 0.5
    fold: Tensor = field(default_factory=lambda: torch.zeros(len(NAMES)))
    kind: Tensor = field(default_factory=lambda: torch.zeros(len(KINDS)))
    written: list[list[tuple[int, int]]] = field(default_factory=list)

    def write(self, examples: Sequence[Sequence[Program]], count: int, step: int) -> list[list[str]]:
        source = generator(self.seed, "writer", step)

        def drawn(logits: Tensor) -> list[int]:
            return torch.multinomial(logits.softmax(-1), count, replacement=True, generator=source).tolist()

        self.written = [list(zip(drawn(self.fold), drawn(self.kind), strict=True)) for _ in examples]
        return [[program_of(fold, kind).source for fold, kind in group] for group in self.written]

    def learn(self, rewards: Sequence[Sequence[float]], step: int) -> None:
        for group, paid in zip(self.written, rewards, strict=True):
            x = Experience.from_lengths([1] * len(paid), [1] * len(paid), [len(paid)], reward=torch.tensor(paid))
            for (fold, kind), credit in zip(group, GroupStandardized()(x).tolist(), strict=True):
                for logits, choice in ((self.fold, fold), (self.kind, kind)):
                    slope = -logits.softmax(-1)
                    slope[choice] += 1
                    logits += self.rate / len(paid) * credit * slope


# ---- the arms --------------------------------------------------------------------------------------------------------

SYNTHESIS = EnvironmentSynthesis(
    Gates(_Once(levels=LEVELS), novelty=0.95), solver_steps=STEPS, rotate_every=2, prompts=1, group_size=PROPOSED
)


def _run(
    seed: int, synthesis: EnvironmentSynthesis, unfiltered: bool = False, stay: bool = True
) -> tuple[_Solver, _Writer, list[Round]]:
    """A solver trained for as many steps as every other; without gates, all that runs is taken in at some level.

    stay: whether the environments to begin with never retire.
    """
    pool = EnvironmentPool([Member(program_of(fold), highest=LEVELS, seed=stay) for fold in range(BY_HAND)])
    solver, writer, rounds = _Solver(seed), _Writer(seed), []
    source = Random(derive(seed, "unfiltered"))
    for number in range(ROUNDS):
        rounds.append(synthesis.round(pool, solver, writer, number, derive(seed, "rounds")))
        if unfiltered:
            written = writer.write([[]], PROPOSED, number)[0]
            known = {one.program.source for one in pool.members}
            new = {text: Member(Program(text), source.randint(1, LEVELS), LEVELS) for text in written}
            pool.members = (*pool.members, *(one for text, one in new.items() if text not in known))
    return solver, writer, rounds


@claim(
    "evoenv",
    statement="A policy that writes its own environments and trains on those that pass the gates goes on improving "
    "(Qwen3-4B-Thinking: mean of benchmarks 72.4 to 74.8), where training on fixed public data or fixed environments "
    "written by hand lowers it; gates and rotation keep broken and useless environments out of the pool.",
    source="arXiv 2605.14392, abstract, as reported by others",
    baseline="the same solver on the ten fixed environments, on an unfiltered pool, and on a pool without rotation",
    rule=(
        Expect("recall", above=0.9),
        Expect("defects_caught", above=0.95),
        Expect("gain_over_fixed", above=0),
        Expect("gain_over_unfiltered", above=0),
        Expect("idle_drop", above=0),
    ),
    scale="Writing environments takes a capable code model and cannot be shown here: this tests the gates and the "
    "pool, not a model that improves itself. Gates: eight sound variants and eight defective ones of the ten "
    "environments a seed, levels 1 and 2. Of the eight defects a reference that is wrong but agrees with its score is "
    "not meant to be found (wrong_reference_caught). Pool: the writer is a softmax over sixteen families of questions "
    "about digits and three kinds, sound, always right and off by one, whose programs pass the gates in the sandbox; "
    "what is trained on is drawn by the same rules outside of it. The solver is a table of procedures by family and "
    "level, 12 rounds of 25 steps of 256 answers; scores are exact, over all families and three levels, and 'new' of "
    "the six that are not among the ten to begin with. Programs of one grammar are alike, so a copy is what has a "
    "likeness of 0.95, not 0.8. A cheap reason for the gain over the fixed pool: it never shows the new families or "
    "the higher levels. The statement's fall with fixed data is not tested. Changed after first runs: two small "
    "networks, which learned hardly anything, were the solver before, and nothing was decided (gains of -0.014 to "
    "0.041); the rate of learning of the table was then chosen on the fixed pool alone. The gates were tried on forty "
    "programs a seed, too many for the time. Two of the ten environments, edit_distance and graph_coloring, were made "
    "more varied, after sound variants of them were refused. No region of the rule was changed. On families that are "
    "new the evolving pool was behind the unfiltered one in three of five development runs. The drop of idle groups "
    "was small there; with pools whose first ten may go, too, it was larger in two of three (all_may_go_idle).",
)
def evoenv_pool(seed: int) -> dict[str, float]:
    """What the gates let through, and expected scores and idle groups of a small solver by how its pool is kept."""
    fixed = SYNTHESIS.replace(prompts=0, rotate_every=0)
    runs = {
        "ours": _run(seed, SYNTHESIS),
        "still": _run(seed, SYNTHESIS.replace(rotate_every=0)),
        "all_may_go": _run(seed, SYNTHESIS, stay=False),
        "fixed": _run(seed, fixed),
        "unfiltered": _run(seed, fixed, unfiltered=True),
    }
    score = {name: solver.accuracy(range(len(NAMES))) for name, (solver, _, _) in runs.items()}
    new = {name: solver.accuracy(range(BY_HAND, len(NAMES))) for name, (solver, _, _) in runs.items()}
    idle = {name: fmean(solver.idle[-ROUNDS * STEPS // 3 :]) for name, (solver, _, _) in runs.items()}
    writer, rounds = runs["ours"][1:]
    return {
        **_gates(seed),
        "gain_over_fixed": score["ours"] - score["fixed"],
        "gain_over_unfiltered": score["ours"] - score["unfiltered"],
        "gain_over_still": score["ours"] - score["still"],
        "idle_drop": idle["still"] - idle["ours"],
        "new_gain_over_fixed": new["ours"] - new["fixed"],
        "new_gain_over_unfiltered": new["ours"] - new["unfiltered"],
        "admitted": float(sum(len(one.admitted) for one in rounds)),
        "retired": float(sum(len(one.retired) for one in rounds)),
        "writer_sound": float(writer.kind.softmax(-1)[0]),
        "writer_off_by_one": float(writer.kind.softmax(-1)[KINDS.index("off by one")]),
        **{f"{name}_score": value for name, value in score.items()},
        **{f"{name}_idle": value for name, value in idle.items()},
    }
