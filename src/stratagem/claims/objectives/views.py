"""What is learned from responses alone, from single layers and under noise: by small transformers, and in the lab."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import find_game
from stratagem.lab.world import LabTask
from stratagem.objectives import PolicyGradient, ResponseOnly, TokenRatio, TruncatedImportance
from stratagem.optimizers import AdamW
from stratagem.parts import View
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import sft
from stratagem.recipes.objectives.views import alp, bupo, prerl
from stratagem.sampling import Rollouts
from stratagem.seeding import derive, generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import expected_return, learn
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

if TYPE_CHECKING:  # It takes seconds to import transformers, and whoever lists claims does not need it.
    from stratagem.language.policy import LanguagePolicy


# ---- sums for small transformers ------------------------------------------------------------------------------------


class Sums(Task):
    """One sum of two digits up to 5; the answer says the whole equation. Its demonstrator errs in six of ten."""

    name = "sums"
    description = "add two digits up to 5 and say the whole equation"
    max_turns = 1
    max_new_tokens = 16

    def environment(self, split: Split, index: int) -> Environment:
        return _Sum(*_digits(index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        first, second = _digits(index)
        chance = generator(index, "demonstrator")
        wrong = float(torch.rand((), generator=chance)) < 0.6
        error = int(torch.randint(1, 11, (), generator=chance)) if wrong else 0
        return iter([_equation(first, second, (first + second + error) % 11)])

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        first, second = _digits(index)
        return iter([_equation(first, second, (first + second + 1) % 11)])


class _Sum(Environment):
    def __init__(self, first: int, second: int) -> None:
        self.first, self.second = first, second

    def reset(self) -> Observation:
        return Observation(f"{self.first} + {self.second}", state_key("sum", self.first, self.second))

    def step(self, action: str) -> Step:
        right = action.strip() == _equation(self.first, self.second, self.first + self.second)
        return Step(Observation("", state_key("done")), float(right), done=True, success=right)


def _digits(index: int) -> tuple[int, int]:
    number = derive(index, "digits") % 36
    return number // 6, number % 6


def _equation(first: int, second: int, total: int) -> str:
    return f"{first} + {second} = {total}"


BATCH = {"sampler.prompts_per_step": 16, "optimization.learning_rate": 1e-3}
"""128 answers a batch, and a learning rate that moves a small transformer within ten of them."""


def warm_start(seed: int, layers: int) -> LanguagePolicy:
    """A transformer of this many layers of width 64 that imitates the erring demonstrator."""
    from stratagem.language.pretrain import TinyShape, new_policy, train_tokenizer

    shape = TinyShape(300, hidden=64, layers=layers, heads=4, key_value_heads=2, intermediate=128, context=64)
    policy = new_policy(train_tokenizer(Sums(), 300, episodes=100), shape, seed, dtype="float32")
    adam = AdamW(learning_rate=4e-3, epochs=12, minibatches=12)
    train(policy, sft().replace(optimization=adam).with_values({"sampler.prompts_per_step": 480}), seed, 1)
    return policy


def train(policy: LanguagePolicy, recipe: Recipe, seed: int, steps: int) -> list[dict[str, float]]:
    """Train it on sums, in place; the trainer's metrics by batch."""
    from stratagem.language.hf_engine import HFEngine
    from stratagem.language.world import LanguageWorld

    world = LanguageWorld(Sums(), policy, HFEngine(policy, dtype="float32"), seed)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(steps, seed, evaluation_episodes=0, sample_episodes=0, checkpoint_every=steps)
        trainer = Trainer(recipe, world, RunDirectory.create(folder), settings)
        metrics = [trainer.step() for _ in range(steps)]
    world.close()
    return metrics


def answers(policy: LanguagePolicy, seed: int, prompts: int = 64, samples: int = 8) -> Experience:
    """What it says to so many questions, so many times each."""
    from stratagem.language.hf_engine import HFEngine
    from stratagem.language.world import LanguageWorld

    world = LanguageWorld(Sums(), policy, HFEngine(policy, dtype="float32"), derive(seed, "answers"))
    world.serve(0)
    x = world.collect(Rollouts(prompts_per_step=prompts, group_size=samples), 0).x
    world.close()
    assert x is not None
    return x


def accuracy(policy: LanguagePolicy, seed: int) -> float:
    """Share of right answers among 512."""
    return float(answers(policy, seed).returns.mean())


def gradient(policy: LanguagePolicy, x: Experience, view: View | None) -> Tensor:
    """Of the log-probability of all that was said in ``x``, by all weights in one row."""
    policy.zero_grad()
    policy(x, view=view).logp.sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def cosines(policy: LanguagePolicy, x: Experience) -> tuple[float, float]:
    """Of the gradients of ``log P(y)`` and ``log P(y | x)``, and of ``log P(y' | x')`` with another question.

    Means over the trajectories of ``x``; the other question is that of the next one.
    """
    alone, given = [
        [gradient(policy, x.select(torch.tensor([row])), view) for row in range(x.trajectories)]
        for view in (ResponseOnly(), None)
    ]
    cosine = torch.nn.functional.cosine_similarity
    same = [float(cosine(a, b, dim=0)) for a, b in zip(alone, given, strict=True)]
    other = [float(cosine(a, b, dim=0)) for a, b in zip(given, [*given[1:], given[0]], strict=True)]
    return fmean(same), fmean(other)


# ---- responses alone ------------------------------------------------------------------------------------------------


@claim(
    "prerl",
    statement="The gradients of log P(y) and log P(y|x) point nearly the same way, so that learning on responses alone "
    "serves learning on prompts; pushing wrong responses down there (transition and reflection thoughts are 14.9 and "
    "6.5 times as frequent) and then running GRPO beats GRPO alone.",
    source="arXiv 2604.14142, abstract (Qwen3-4B and 8B on mathematics)",
    baseline="grpo",
    rule=(Expect("cosine", above=0.2), Expect("accuracy_gain", above=0)),
    scale="Transformers of two layers and width 64 that say a sum of two digits as an equation, 36 questions in all; "
    "responses of six tokens that repeat the question, so that a wrong equation can be known without its prompt, and "
    "the prompt can be guessed. Nothing here reasons at length, which is where the paper sees the gain (reflection and "
    "transitions), nor has read texts without prompts before: without that P(y) is far from P(y|x). A cosine below "
    "0.2 is no alignment; the bound was put when first ones near 0.1 had been seen, on sums of digits up to 9. "
    "cosine_other_question is that of two questions' gradients, with prompts. Gains of final accuracy of 512 answers "
    "after 30 batches of 128, 10 of them in the first phase, where the paper takes 20 of several hundred; "
    "conditional_gain is with the prompt left in that phase. A first version had 40 batches, and a further arm of "
    "positive samples alone: it cost too much time.",
)
def prerl_before_grpo(seed: int) -> dict[str, float]:
    """Cosines of a warm-started model; accuracy after DSRL, after its ablations and after as many steps of GRPO."""
    start = warm_start(seed, layers=2)
    same, other = cosines(start, answers(start, seed, prompts=32, samples=1))
    arms = {
        "grpo": prerl(steps=0),
        "accuracy": prerl(steps=10),
        "conditional": prerl(steps=10, space="conditional"),
    }
    reached = {name: _accuracy_after(start, arm.with_values(BATCH), seed, 30) for name, arm in arms.items()}
    grpo = reached.pop("grpo")
    gains = {f"{name}_gain": value - grpo for name, value in reached.items()}
    return {
        "cosine": same,
        "cosine_other_question": other,
        **gains,
        "grpo_accuracy": grpo,
        "start_accuracy": accuracy(start, seed),
    }


def _accuracy_after(start: LanguagePolicy, recipe: Recipe, seed: int, steps: int) -> float:
    policy = copy.deepcopy(start)
    train(policy, recipe, seed, steps)
    return accuracy(policy, seed)


# ---- internal layers ------------------------------------------------------------------------------------------------


@claim(
    "bupo",
    statement="Policies of early layers keep a high entropy, which the top layers bring down; a few steps on a lower "
    "layer's policy first, and GRPO then learns more than GRPO from the start, while many of them break the model.",
    source="arXiv 2512.19673, the sections on internal entropy and on BuPO (Qwen3-4B and 8B, Llama, mathematics)",
    baseline="grpo",
    rule=(Expect("entropy_fall", above=0), Expect("accuracy_gain", above=0), Expect("long_gain", below=0)),
    scale="entropy_fall is of the model that ships (four layers; key_door, four episodes): the mean of layers 1 and 2 "
    "less that of the last. Accuracy is of transformers of three layers and width 64 that say a sum of two digits, 36 "
    "questions in all, after 30 batches of 128: 3 of them on layer 1 (accuracy_gain, a tenth, as in the paper), or "
    "15 (long_gain). A control with the top frozen and the whole model's loss was not run.",
)
def bupo_before_grpo(seed: int) -> dict[str, float]:
    """Entropies by layer; accuracy after a short and a long phase on layer 1 and after as many batches of GRPO."""
    start = warm_start(seed, layers=3)
    arms = {"grpo": bupo(1, steps=0), "accuracy": bupo(1, steps=3), "long": bupo(1, steps=15)}
    reached = {name: _accuracy_after(start, arm.with_values(BATCH), seed, 30) for name, arm in arms.items()}
    grpo = reached.pop("grpo")
    profile = _shipped_profile(seed)
    return {
        "entropy_fall": fmean(profile[1:3]) - profile[-1],
        **{f"{name}_gain": value - grpo for name, value in reached.items()},
        "grpo_accuracy": grpo,
        "start_accuracy": accuracy(start, seed),
        **{f"entropy_{layer}": value for layer, value in enumerate(profile)},
    }


def _shipped_profile(seed: int) -> list[float]:
    """Entropies by layer of the model that ships, on four of its own episodes."""
    from stratagem.language import HFEngine, LanguagePolicy, entropy_by_layer
    from stratagem.language.pretrain import tiny_model_path
    from stratagem.language.world import LanguageWorld
    from stratagem.tasks.key_door import KeyDoorTask

    policy = LanguagePolicy.from_path(tiny_model_path(), dtype="float32")
    world = LanguageWorld(KeyDoorTask(), policy, HFEngine(policy, dtype="float32"), seed)
    world.serve(0)
    x = world.collect(Rollouts(prompts_per_step=4, group_size=1), 0).x
    world.close()
    assert x is not None
    return entropy_by_layer(policy, x).tolist()


# ---- perturbed layers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Watched(TokenRatio):
    """The same ratio, of which a function is told how far the logarithm of each was from 0."""

    note: Callable[[Tensor], None] = field(kw_only=True, compare=False)

    def __call__(self, out: PolicyOutput, x: Experience) -> Tensor:
        ratio = super().__call__(out, x)
        self.note(ratio.detach().log().abs())
        return ratio


STALE_GAMES = ("four_by_four", "prompts", "length", "corridor")
STALENESS = 4


@claim(
    "alp",
    statement="Noise of learned width in the update gives the ratio to the sampling policy lighter tails, and learns "
    "more than the same ratio without noise and than a masked correction (averages of a multi-turn 7B: per token 49.6 "
    "against 48.7 for masking, per sequence 50.5 against 46.7 for the bypass).",
    source="arXiv 2603.19470, the main table and the section on the tails of the ratio; numbers from summaries of them",
    baseline="grpo with its ratio to the behaviour policy",
    rule=(Expect("tail_ratio", below=1), Expect("mean_return_gain", above=0), Expect("gain_over_tis", above=0)),
    scale="Tables of logits in four enumerated games, judged exactly; batches four batches of four updates old. A "
    "table has no layers: the noise is on its logits. There is no mismatch of engines, whose noise is what the paper's "
    "smoothing is to contain. Truncated importance sampling stands for the corrections, and clips around the policy an "
    "update began with: gain_over_tis less mean_return_gain is what the bypass, which clips around the sampler, loses "
    "by that on stale data, noise or not; with the seeds this was written with it was nearly all. sigma begins at "
    "1e-2, the default of the authors' library, with the learning rate of the table: the scripts' 1e-5 would do "
    "nothing in any time the lab has. gain_fixed and "
    "tail_fixed are with a width of 0.3 that is not learned. The tail is the 99.9th percentile of the size of log "
    "ratios, perturbed where the policy is; it is also lighter for a policy that learned less.",
)
def alp_on_stale_data(seed: int) -> dict[str, float]:
    """Tails of the ratio and mean return over 40 batches of 4 updates in four games."""
    learned = alp(initial=1e-2, noise_learning_rate=0.05)
    fixed = alp(initial=0.3, noise_learning_rate=0.0)
    bypass = learned.replace(view=None)
    # Truncated importance weights are for a ratio to the policy the update began with.
    assert isinstance(bypass.objective, PolicyGradient)
    decoupled = bypass.objective.replace(ratio=TokenRatio(), correction=TruncatedImportance())
    tis = bypass.replace(objective=decoupled)
    tail, mean = {}, {}
    for name, arm in {"learned": learned, "fixed": fixed, "bypass": bypass, "tis": tis}.items():
        tail[name], mean[name] = _stale(arm.with_values({"optimization.minibatches": 4}), seed)
    return {
        "tail_ratio": tail["learned"] / tail["bypass"],
        "mean_return_gain": mean["learned"] - mean["bypass"],
        "gain_over_tis": mean["learned"] - mean["tis"],
        "tail_fixed": tail["fixed"] / tail["bypass"],
        "gain_fixed": mean["fixed"] - mean["bypass"],
        "bypass_tail": tail["bypass"],
        "bypass_return": mean["bypass"],
    }


def _stale(recipe: Recipe, seed: int) -> tuple[float, float]:
    """99.9th percentile of ``|log rho|`` in all updates, and the mean return over the run; means over games."""
    tails, returns = [], []
    for game in STALE_GAMES:
        objective = recipe.objective
        assert isinstance(objective, PolicyGradient) and isinstance(objective.ratio, TokenRatio)
        seen = list[Tensor]()
        watched = _Watched(objective.ratio.denominator, note=seen.append)
        arm = recipe.replace(objective=objective.replace(ratio=watched))
        run = learn(arm, LabTask(find_game(game), staleness=STALENESS), seed, 40)
        tails.append(float(torch.cat(seen).quantile(0.999)))
        returns.append(run.mean(expected_return))
    return fmean(tails), fmean(returns)
