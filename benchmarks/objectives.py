"""Time of every recipe's objective, forward and backward, on a large batch, as a multiple of plain clipped PPO's."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from stratagem import catalogue
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import Clip, PolicyGradient, TokenMean
from stratagem.objectives.directions import unit
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.seeding import generator

try:
    from benchmarks.advantages import GROUP, TOKENS, TRAJECTORIES, batch, milliseconds
except ModuleNotFoundError:  # run as a file
    from advantages import GROUP, TOKENS, TRAJECTORIES, batch, milliseconds

MOST = 3.0
"""Times of plain clipped PPO that an objective may take."""

WIDE = 64
"""Numbers for each token in what few objectives read of it: what the last layer reads, likely tokens, directions.

These objectives get one in ``WIDE`` tokens, and clipped PPO beside them, too.
"""


def measured(objective: Objective, x: Experience, said: dict[str, Tensor], repeats: int = 9) -> float:
    """Milliseconds of loss and derivative."""

    def both() -> None:
        out = PolicyOutput(**said)
        # A fresh copy, so that nothing remembered from the last call is left out of the time.
        objective(out, x.replace()).loss.backward()

    return milliseconds(both, repeats)


def clipped_ppo(x: Experience) -> float:
    """Milliseconds of plain clipped PPO on this batch."""
    x, said = prepared(catalogue.card("grpo").recipe(), x)
    return measured(PolicyGradient(gate=Clip(), aggregation=TokenMean()), x, said, repeats=15)


def prepared(recipe: Recipe, x: Experience) -> tuple[Experience, dict[str, Tensor]]:
    """The batch credited, with what the recipe reads, and what a policy says of it."""
    random = generator(0, "policy")
    assert x.old_logp is not None

    def normal(*width: int) -> Tensor:
        return torch.randn(x.tokens, *width, generator=random)

    flags = torch.rand(x.trajectories, generator=random) < 0.4
    fields = {
        "success": flags,
        "seed": torch.arange(x.trajectories),
        "truncated": torch.zeros_like(flags),
        "version": torch.zeros(x.tokens, dtype=torch.int64),
        "previous_logp": x.old_logp + 0.01 * normal(),
        "old_mean_logp": normal() - 5,
    }
    needs = recipe.needs()
    if "ref_direction" in needs:
        fields |= {"latent": torch.rand(x.tokens, generator=random) < 0.5, "ref_direction": unit(normal(WIDE))}
    x = x.replace(**{name: value for name, value in fields.items() if name in needs or name in ("success", "latent")})
    x = x.replace(ref_logp=x.ref_logp if "ref_logp" in needs else None)
    if isinstance(recipe.sampler, Rollouts) and recipe.sampler.demonstrations:
        x = x.replace(demonstrated=torch.arange(x.trajectories) % GROUP == 0)
    x = recipe.prepare(x)  # A selection may leave fewer tokens.
    assert x.old_logp is not None
    said = {"logp": (x.old_logp + 0.01 * normal()).requires_grad_()}
    asked = recipe.output_needs()
    for name in {"entropy", "value", "median"} & asked:
        said[name] = normal().requires_grad_()
    for name in {"mean_logp", "hidden_square", "score_square", "score_variance"} & asked:
        said[name] = normal().abs()
    if "direction" in asked:
        said["direction"] = unit(normal(WIDE)).requires_grad_()
    if "hidden" in asked:
        said["hidden"] = normal(WIDE)
    if "top_id" in asked:
        said["top_id"] = torch.randint(1000, (x.tokens, WIDE), generator=random)
        said["top_probability"] = torch.softmax(normal(WIDE), 1)
    return x, said


def main() -> None:
    """Print one line for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--trajectories", type=int, default=TRAJECTORIES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {False: (arguments.tokens, arguments.trajectories)}
    sizes[True] = (arguments.tokens // WIDE, max(arguments.trajectories // WIDE // GROUP, 1) * GROUP)
    batches = {wide: batch(*size) for wide, size in sizes.items()}
    batches = {wide: x.replace(reward=(x.returns > 0).float()) for wide, x in batches.items()}
    units = {wide: clipped_ppo(x) for wide, x in batches.items()}
    print(
        f"{sizes[False][0]:,} tokens in groups of {GROUP}, one thread; clipped PPO: {units[False]:.0f} ms; "
        f"at most {MOST:g} times that"
    )
    for card in catalogue.cards():
        recipe = None if isinstance(card.build, type) else card.build()
        if not isinstance(recipe, Recipe):
            continue
        wide = recipe.output_needs() & {"hidden", "top_id", "direction"}
        x, said = prepared(recipe, batches[bool(wide)])
        times = measured(recipe.objective, x, said) / units[bool(wide)]
        note = f"   reads {WIDE} numbers of {', '.join(sorted(wide))} for each of {x.tokens:,} tokens" if wide else ""
        print(f"{card.name:24}{times:8.2f} times{'' if times <= MOST else '   missed'}{note}")


if __name__ == "__main__":
    main()
