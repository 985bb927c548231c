"""What a reward is worth where a policy already knows the answers, and where it does not."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float64
from torch import Tensor

from stratagem.lab import Exact, Outcome, TokenGame, Tree, over
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes.objectives.alignment import Signal, alignment_protocol
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import learn

PROMPTS = 8
"""Questions of the game; each has an answer of its own."""

TRAINER = {"sampler.prompts_per_step": 16, "optimization.minibatches": 8}
"""256 samples a batch, and enough optimizer steps on them for the clip to bind."""

BATCHES = 30

WEAK = ("random", "incorrect", "majority", "negative")
"""Arms that do not say which answers are right, or only which are wrong."""

Knowledge = Literal["aligned", "misaligned"]


def _answer(prompt: int, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Token 0 begins an answer of two more tokens; anything else rambles on until it is cut."""
    if len(tokens) < 3:
        return None
    if tokens[0] != 0:
        return over(0.0, truncated=True)
    right = tokens[1:] == _right(prompt)
    return [Outcome(reward=float(right), success=right, components={"format": 1.0})]


def _right(prompt: int) -> tuple[int, int]:
    return prompt % 4, (prompt // 4 + prompt) % 4


GAME = TokenGame(
    "questions",
    "Eight questions with one right answer of sixteen each; an answer that does not begin with token 0 is not read.",
    vocabulary=4,
    starts=tuple((1 / PROMPTS, prompt) for prompt in range(PROMPTS)),
    act=_answer,
    reward_names=("reward", "format"),
)


def start_policy(knowledge: Knowledge, seed: int) -> Exact:
    """A policy that begins an answer in three of five cases; it knows seven answers of eight, or none.

    Its logits are normal, with 1.5 more for beginning an answer, 3.5 more for the tokens of an answer it knows and 1.5
    less for those of one that it does not.
    """
    tree = Tree.enumerate(GAME)
    logits = tree.normal_logits(seed)
    node, action = tree.node.view(-1, 3), tree.action.view(-1, 3)
    starts = tree.leaves.group_of_trajectory.labels.tolist()
    for start, nodes, tokens in zip(starts, node.tolist(), action.tolist(), strict=True):
        if tokens == [0, 0, 0]:
            logits[nodes[0]] /= 2
            logits[nodes[0], 0] += 1.5
        if tokens == [0, *_right(start)]:
            known = knowledge == "aligned" and start != seed % PROMPTS
            for place in (1, 2):
                logits[nodes[place], tokens[place]] += 3.5 if known else -1.5
    return Exact(tree, logits)


@claim(
    "model_task_alignment",
    statement="Where the model already solves the task at pass@k, rewards that say little or nothing of what is right "
    "(random, incorrect, the majority's, negative samples alone) raise accuracy as well; where it does not, only "
    "correct rewards do, their positive samples alone included (Qwen2.5-7B, base / correct / random / incorrect: "
    "MATH500 40.8 / 71.0 / 57.5 / 57.0, SynLogic 1.5 / 42.6 / 10.2 / 0.0; on SynLogic negative samples alone 1.5, "
    "positive 24.8).",
    source="arXiv 2508.21188, the sections on reward signals and on negative samples; numbers from summaries of them",
    baseline="the policy before training",
    rule=(
        *(Expect(f"aligned_{arm}", above=0) for arm in WEAK),
        Expect("misaligned_correct", above=0.1),
        Expect("misaligned_positive", above=0.1),
        *(Expect(f"misaligned_{arm}", below=0.1) for arm in WEAK),
    ),
    scale="A table of logits in an enumerated game of eight questions, judged exactly; the policy knows seven answers "
    "or none. Random and incorrect rewards are paid for readable answers alone, as in the released code, so part of a "
    "gain is the format. aligned_format is what the format alone gives, and with the seeds this was written with it "
    "gave as much as the random reward, which left the share of right answers among readable ones where it was "
    "(aligned_random_beyond_format). A table shares nothing between prompts or answers: a reward for wrong answers can "
    "only make them likelier, where a language model may learn from them how to write; and when the wrong answers of "
    "sixteen are pushed away the right one is left, where a language model has countless others. One example is not "
    "tried, for it teaches a table nothing of the rest. A gain of 0.1 lies between the paper's own strong and weak "
    "results on SynLogic. The bound for weak rewards on the misaligned task was first put on the largest of their "
    "gains; now it is on each, which decides the same.",
)
def model_task_alignment(seed: int) -> dict[str, float]:
    """Gains of exact accuracy by 30 batches of 256 samples and 8 optimizer steps, from either start, for seven arms."""
    values: dict[str, float] = {}
    for knowledge in ("aligned", "misaligned"):
        start = start_policy(knowledge, seed)
        rates = _by_prompt(start)
        for k in (1, 16):
            values[f"{knowledge}_pass_at_{k}"] = float((1 - (1 - rates) ** k).mean())
        for arm, recipe in _arms().items():
            last = learn(recipe, LabTask(GAME), seed, BATCHES, start).last
            values[f"{knowledge}_{arm}"] = last.success - start.success
            if arm in ("random", "majority", "negative"):
                values[f"{knowledge}_{arm}_beyond_format"] = _when_read(last) - _when_read(start)
    return values


def _arms() -> dict[str, Recipe]:
    signals: tuple[Signal, ...] = ("correct", "random", "incorrect", "majority", "format")
    arms = {str(signal): alignment_protocol(signal) for signal in signals}
    arms["positive"] = alignment_protocol(signs="positive")
    arms["negative"] = alignment_protocol(signs="negative")
    return {name: arm.with_values(TRAINER) for name, arm in arms.items()}


def _by_prompt(policy: Exact) -> Float64[Tensor, " prompts"]:
    """Accuracy on every prompt."""
    x = policy.tree.leaves
    assert x.success is not None
    return x.group_of_trajectory.sum(policy.leaf_probability * x.success) * PROMPTS


def _when_read(policy: Exact) -> float:
    """Accuracy among the answers that can be read."""
    x = policy.tree.leaves
    assert x.finished is not None
    return policy.success / policy.expected(x.finished.double())
