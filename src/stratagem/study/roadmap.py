"""Which of the four slots of a system that reasons a recipe or a run fills, and what a run's rollouts show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.slots import by_slot, recipe_tags
from stratagem.study.behaviours import Behaviours
from stratagem.taxonomy import SLOTS, VERSION, check_tags, in_order
from stratagem.training.run_directory import RunDirectory


@paper(
    "2412.14135",
    title="Scaling of Search and Learning: A Roadmap to Reproduce o1 from Reinforcement Learning Perspective",
    family="reasoning",
    roles=("metric", "diagnostic"),
    year=2024,
    name="o1_roadmap_survey",
    tags=SLOTS,
)
@dataclass(frozen=True)
class Roadmap:
    """Which of four slots are filled: policy initialisation, reward design, search, learning.

    ``Roadmap.of(recipe)`` reads them from the parts, ``Roadmap.of_run(directory)`` from a run, together with the tokens
    it sampled and the reasoning behaviours in its samples. ``stratagem show NAME`` and ``stratagem show RUN`` print it,
    ``stratagem methods --slot search`` lists techniques by slot.

    The words are those of :mod:`stratagem.taxonomy`; ``version`` says of which edition.

    tags: what is there.  recipe: its name.  tokens: all that the training sampled, with what was thrown away or failed
    and without evaluations, as the engine counted them; None where nothing was sampled yet.
    behaviours: of the rollouts in ``samples.jsonl``.

    Raises :class:`InputError` for a tag there is not.
    """

    tags: tuple[str, ...] = ()
    recipe: str = ""
    tokens: int | None = None
    behaviours: Behaviours = Behaviours()
    version: int = VERSION

    def __post_init__(self) -> None:
        check_tags(self.tags)
        object.__setattr__(self, "tags", in_order(self.tags))

    @classmethod
    def of(cls, recipe: Recipe) -> Roadmap:
        """Of a recipe, before anything is run."""
        return cls(recipe_tags(recipe), recipe.name)

    @classmethod
    def of_run(cls, directory: str | Path) -> Roadmap:
        """Of a run as its directory tells, finished or not.

        Raises :class:`InputError` when the directory holds no run or a file of it is broken.
        """
        run = RunDirectory.existing(directory)
        recipe = Recipe.load(run.path / "recipe.yaml")
        tags = recipe_tags(recipe)
        metrics = run.rows("metrics.jsonl")
        tokens = int(sum(row.get("tokens/sampled", 0) for row in metrics)) if metrics else None
        return cls(tags, recipe.name, tokens, Behaviours.of(run.rows("samples.jsonl")))

    @property
    def slots(self) -> dict[str, list[str]]:
        """Tags of each of the four slots; an empty list where nothing is."""
        return by_slot(self.tags)

    @property
    def empty(self) -> tuple[str, ...]:
        """Slots that nothing fills."""
        return tuple(slot for slot, tags in self.slots.items() if not tags)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        found = self.behaviours
        return {
            "recipe": self.recipe,
            "taxonomy": self.version,
            "tags": list(self.tags),
            "slots": self.slots,
            "empty": list(self.empty),
            "tokens": self.tokens,
            "rollouts": found.rollouts,
            "rollouts_without_text": found.silent,
            "behaviours": {
                name: {"count": count, "per_rollout": found.per_rollout(name), "rollouts": found.shown[name]}
                for name, count in found.counts.items()
            },
        }
