"""Time of every recipe's objective, forward and backward, on a large batch, as a multiple of plain clipped PPO's."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from stratagem import catalogue
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import Clip, PolicyGradient, TokenMean
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.seeding import generator

try:
    from benchmarks.advantages import GROUP, TOKENS, TRAJECTORIES, batch, milliseconds
except ModuleNotFoundError:  # run as a file
    from advantages import GROUP, TOKENS, TRAJECTORIES, batch, milliseconds

MOST = 3.0
"""Times of plain clipped PPO that an objective may take."""

WIDE = 16
"""Width of the last layer's features and number of likely tokens, for the few objectives that read them."""


def measured(objective: Objective, x: Experience, said: dict[str, Tensor]) -> float:
    """Milliseconds of loss and derivative."""

    def both() -> None:
        out = PolicyOutput(**said)
        # A fresh copy, so that nothing remembered from the last call is left out of the time.
        objective(out, x.replace()).loss.backward()

    return milliseconds(both, repeats=5)


def prepared(recipe: Recipe, x: Experience) -> tuple[Experience, dict[str, Tensor]]:
    """The batch credited, with what the recipe reads, and what a policy says of it."""
    random = generator(0, "policy")
    assert x.old_logp is not None

    def normal() -> Tensor:
        return torch.randn(x.tokens, generator=random)

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
    x = x.replace(**{name: value for name, value in fields.items() if name in needs or name == "success"})
    x = x.replace(ref_logp=x.ref_logp if "ref_logp" in needs else None)
    x = recipe.prepare(x)  # A selection may leave fewer tokens.
    assert x.old_logp is not None
    said = {"logp": (x.old_logp + 0.01 * normal()).requires_grad_()}
    for name in ("entropy", "value", "median"):
        if name in recipe.output_needs():
            said[name] = normal().requires_grad_()
    for name in ("mean_logp", "hidden_square", "score_square", "score_variance"):
        if name in recipe.output_needs():
            said[name] = normal().abs()
    return x, said


def main() -> None:
    """Print one line for each recipe that learns from rollouts of tokens alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--trajectories", type=int, default=TRAJECTORIES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plain = batch(arguments.tokens, arguments.trajectories)
    plain = plain.replace(reward=(plain.returns > 0).float())
    x, said = prepared(catalogue.card("grpo").recipe(), plain)
    clipped = PolicyGradient(gate=Clip(), aggregation=TokenMean())
    measured(clipped, x, said)
    unit = measured(clipped, x, said)
    print(
        f"{x.tokens:,} tokens in groups of {GROUP}, one thread; clipped PPO: {unit:.0f} ms; at most {MOST:g} times that"
    )
    for card in catalogue.cards():
        recipe = None if isinstance(card.build, type) else card.build()
        if not isinstance(recipe, Recipe):
            continue
        wide = recipe.output_needs() & {"hidden", "top_id", "top_probability", "direction", "experts"}
        if wide:
            print(f"{card.name:24} reads {', '.join(sorted(wide))}, which no batch of this size has")
            continue
        x, said = prepared(recipe, plain)
        times = measured(recipe.objective, x, said)
        print(f"{card.name:24}{times:8.0f} ms{times / unit:8.2f} times{'' if times <= MOST * unit else '   missed'}")


if __name__ == "__main__":
    main()
