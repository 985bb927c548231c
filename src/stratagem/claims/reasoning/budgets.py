"""The claim of predicting a policy's success from its past scores, and of giving rollouts by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stratagem.lab import Outcome, TokenGame, over
from stratagem.lab.world import LabTask
from stratagem.prompt_values import Contexts, ContextValue, train, within_auc
from stratagem.recipes.reasoning import budgets
from stratagem.sampling import ContextMean, Logistic, Neighbours, Predictor
from stratagem.seeding import derive, generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, expected_return, learn

WIDTH, POLICIES, TRAINED = 8, 12, 8
"""Features of a prompt; policies, of which a context model is trained on the first ones."""

SUPPORT, ASKED, CONTEXTS = 64, 32, 16
"""Prompts in a context; prompts asked for; contexts in a step of training."""

STEPS, HELD_OUT = 200, 64
"""Steps of training; held-out contexts to be judged by."""

SYMBOLS, LONGEST, KINDS = 3, 4, 8
"""Answers to prompts are one to four of three symbols; prompts of each length."""

BATCHES = 120


@claim(
    "v0_value_model",
    statement="A model that reads a policy's past scores tells which prompts that policy will solve better than a "
    "value model trained beside one policy (AUC within a policy 0.913 against 0.840), and rollouts given by it teach "
    "more than groups of one size (AIME24 41.0 to 50.2).",
    source="arXiv 2602.03584, tables of prediction and of budget allocation, as reported by others",
    baseline="a value of the prompt alone, the same for all policies; neighbours; the context's mean. In training: "
    "GRPO with groups of one size and as many rollouts",
    rule=(
        Expect("auc_gain_over_prompt_value", above=0),
        Expect("auc_gain_over_neighbours", above=0),
        Expect("return_gain_of_greedy", above=0),
        Expect("return_gain_of_exact", above=0),
    ),
    scale="Prediction: prompts are vectors of eight normal numbers, P(success) = sigmoid(<a, x> - <d, x> + level) with "
    "a difficulty d that all policies share and abilities a that drift; a small attention model of ours is trained on "
    "contexts of eight policies and judged on four others. Neither text nor TabPFN is in it. The prompt value is "
    "sigmoid(-<d, x>) itself, the best that knows no policy. Training: tables on 32 prompts whose answers are one to "
    "four of three symbols, so that a random policy solves 33 to 1 per cent; 120 batches of 64 rollouts, each over "
    "eight prompts; logistic regression on n-grams of the prompt's text, which names its length, predicts the rates. "
    "Returns are exact, means over the run; a table has nothing to carry from one prompt to another, so a rollout "
    "spent on one prompt is lost to all others. The gain that is maximised counts failures, so of 64 rollouts up to 50 "
    "go to a prompt of a few per cent, and return_gain_of_capped is of the exact one with at most 16 of a group; and "
    "Adam moves every node of a table as far, however many rollouts there were, so breadth pays. In first runs, on "
    "other seeds, prediction was as claimed, and logistic regression in context did as well without any training "
    "(auc_of_logistic); both allocations learned less than groups of one size.",
)
def v0_value_model(seed: int) -> dict[str, float]:
    """AUC within held-out policies, and exact returns of runs by allocation."""
    auc = _predicted(seed)
    runs = {method: _learned(seed, method) for method in ("uniform", "greedy", "exact")}
    runs["capped"] = _learned(seed, "exact", 16)
    mean = {method: run.mean(expected_return) for method, run in runs.items()}
    return {
        "auc_gain_over_prompt_value": auc["context"] - auc["prompt"],
        "auc_gain_over_neighbours": auc["context"] - auc["neighbours"],
        "return_gain_of_greedy": mean["greedy"] - mean["uniform"],
        "return_gain_of_exact": mean["exact"] - mean["uniform"],
        "return_gain_of_capped": mean["capped"] - mean["uniform"],
        **{f"auc_of_{name}": value for name, value in auc.items()},
        **{f"final_return_of_{name}": run.last.expected_return for name, run in runs.items()},
        **{f"unanimous_{name}": run.mean_metric("curriculum/unanimous") for name, run in runs.items()},
    }


# ---- prediction ------------------------------------------------------------------------------------------------------


def _predicted(seed: int) -> dict[str, float]:
    """AUC within the contexts of policies that were not trained on."""
    difficulty = torch.randn(WIDTH, generator=generator(seed, "difficulty"))
    model = ContextValue(WIDTH, seed=derive(seed, "model"))
    train(model, _contexts(seed, difficulty, range(TRAINED), CONTEXTS), STEPS)
    held = _contexts(seed, difficulty, range(TRAINED, POLICIES), HELD_OUT)(STEPS)
    with torch.no_grad():
        said = model(held.known, held.score, held.asked)
    judged = {"context": said, "prompt": -held.asked @ difficulty}
    others = {"neighbours": Neighbours(), "logistic": Logistic(), "mean": ContextMean()}
    judged |= {name: _by(predictor, held) for name, predictor in others.items()}
    context = torch.arange(HELD_OUT)[:, None].expand(HELD_OUT, ASKED).reshape(-1)
    return {name: within_auc(rows.reshape(-1), held.truth.reshape(-1), context) for name, rows in judged.items()}


def _by(predictor: Predictor, held: Contexts) -> Tensor:
    rows = zip(held.known.double(), held.score.double(), held.asked.double(), strict=True)
    return torch.stack([predictor(known, score, asked) for known, score, asked in rows])


def _contexts(seed: int, difficulty: Tensor, policies: range, contexts: int) -> Callable[[int], Contexts]:
    """Contexts of these policies, each at a moment of its training."""
    first, last, level = (
        torch.randn(POLICIES, size, generator=generator(seed, name))
        for name, size in (("first", WIDTH), ("last", WIDTH), ("level", 1))
    )

    def draw(step: int) -> Contexts:
        source = generator(seed, "contexts", policies.start, step)
        policy = torch.randint(policies.start, policies.stop, (contexts,), generator=source)
        moment = torch.rand(contexts, 1, generator=source)
        ability = (1 - moment) * first[policy] + moment * last[policy]
        x = torch.randn(contexts, SUPPORT + ASKED, WIDTH, generator=source)
        logit = torch.einsum("cpw,cw->cp", x, ability - difficulty) + level[policy] + moment - 0.5
        score = torch.bernoulli(torch.sigmoid(logit), generator=source)
        return Contexts(x[:, :SUPPORT], score[:, :SUPPORT], x[:, SUPPORT:], score[:, SUPPORT:])

    return draw


# ---- training --------------------------------------------------------------------------------------------------------


def _answered(state: tuple[str, int, int], tokens: tuple[int, ...]) -> Sequence[Outcome] | None:
    """Right is one sequence of symbols, which follows from the prompt."""
    _, length, kind = state
    if len(tokens) < length:
        return None
    return over(float(all(token == (kind + place) % SYMBOLS for place, token in enumerate(tokens))))


LENGTHS = TokenGame(
    "answer_lengths",
    "Prompts with answers of one to four symbols.",
    SYMBOLS,
    tuple(
        (1 / (LONGEST * KINDS), (f"{'symbol ' * length}", length, kind))
        for length in range(1, LONGEST + 1)
        for kind in range(KINDS)
    ),
    _answered,
)


def _learned(seed: int, method: str, most: int = 128) -> Run:
    rule = {"sampler.curriculum.method": method, "sampler.curriculum.most": most}
    recipe = budgets.v0_value_model(prompts=None).with_values(rule)
    return learn(recipe, LabTask(LENGTHS), seed, BATCHES)
