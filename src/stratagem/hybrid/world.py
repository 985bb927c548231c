"""The world of a hybrid policy: pictures, chains of latents with an answer, and the batches that come of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.hybrid.policy import HybridPolicy, Shape
from stratagem.hybrid.task import COLOURS, HybridTask, Pictures
from stratagem.hybrid.warm_start import chains, demonstrations, warm_start
from stratagem.objectives.directions import DirectionKL
from stratagem.parts import Sampler
from stratagem.recipe import Recipe
from stratagem.sampling import Demonstrations, Rollouts, kept_groups
from stratagem.seeding import derive, generator
from stratagem.tasks.task import state_key
from stratagem.training.statistics import evaluation
from stratagem.training.world import Collected, Evaluation

SMALL = {"optimization.learning_rate": 2e-3}
"""What any recipe is set to for hybrid policies: these networks are small."""


@dataclass(frozen=True, eq=False)
class _Round:
    """Chains that were taken together: their pictures, what was said, and whether it was right."""

    x: Experience
    pictures: Pictures
    said: list[int]
    solved: Bool[Tensor, " chains"]


class HybridWorld:
    """A hybrid policy answering questions about pictures: reward 1 for the right answer, 0 otherwise.

    Every position is an action: a latent or the answer. Recipes that know nothing of latents train both alike, each by
    its ratio: ``exp(kappa <mu - mu_old, z>)`` for a latent. ``behavior_logp`` of a latent is ``kappa <mu, z>``, without
    the normaliser. The temperature of a sampler is that of the answer alone.

    policy: None for one that is warm-started here, which takes seconds and follows from the seed.

    Raises :class:`InputError` when the policy does not fit the task, or a sampler asks for what it cannot do.
    """

    def __init__(self, task: HybridTask, seed: int, policy: HybridPolicy | None = None) -> None:
        self.task, self.task_name, self._seed = task, task.name, seed
        self.policy = warm_start(task, derive(seed, "warm start")) if policy is None else policy
        needed, shape = Shape.of(task), self.policy.shape
        if needed != Shape(shape.steps, shape.dims, shape.concentration, shape.answers):
            raise InputError(f"task {task.name} needs a policy with {needed}; this one has {shape}")
        self._served, self._version = self.policy.frozen(), 0
        self._next_picture = self._episodes = 0

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe with a learning rate of 2e-3, and this task's concentration in every :class:`DirectionKL`."""
        own = DirectionKL.part_name()
        parts = [path for path, value in recipe.flat().items() if value == own]
        return recipe.with_values({**SMALL, **{f"{path}.concentration": self.task.concentration for path in parts}})

    def serve(self, version: int) -> None:
        """Act with the policy's present weights from now on."""
        self._served.load_state_dict(self.policy.state_dict())
        self._version = version

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Groups of chains by the policy, or the solver's own.

        Groups the sampler rejects are replaced by fresh ones, up to ``refill_rounds`` times.
        """
        if isinstance(sampler, Demonstrations):
            shown = self._demonstrated(sampler.prompts_per_step, step)
            return Collected(shown.x, shown.x.tokens, self._metrics([shown]), self._transcripts(shown, 1))
        if not isinstance(sampler, Rollouts):
            raise InputError(f"sampler {sampler.part_name()}: a hybrid task takes rollouts or demonstrations")
        sampler.check_no_text("a hybrid policy")
        sampler.check_no_exploration("a hybrid policy")
        sampler.check_from_start("a hybrid policy")
        rounds: list[_Round] = []

        def roll(groups: int, attempt: int) -> Experience:
            rounds.append(self._answered(sampler, groups, generator(self._seed, "act", step, attempt)))
            return rounds[-1].x

        kept = kept_groups(sampler, roll)
        return Collected(
            kept.x,
            sum(taken.x.tokens for taken in rounds),
            self._metrics(rounds) | kept.metrics,
            self._transcripts(rounds[0], sampler.group_size),
        )

    def _fresh(self, count: int) -> range:
        self._next_picture += count
        return range(self._next_picture - count, self._next_picture)

    def _demonstrated(self, count: int, step: int) -> _Round:
        numbers = self._fresh(count)
        pictures = self.task.pictures("train", numbers)
        x = demonstrations(self._served, self.task, pictures, generator(self._seed, "demonstrate", step))
        x = x.replace(demonstrated=torch.ones(count, dtype=torch.bool))
        return self._round(x, pictures, numbers, 1)

    def _answered(self, sampler: Rollouts, groups: int, source: torch.Generator) -> _Round:
        numbers = [sampler.start_state(number) for number in self._fresh(groups)]
        size = sampler.group_size
        alone = self.task.pictures("train", numbers)
        pictures = Pictures(*(rows.repeat_interleave(size, 0) for rows in vars(alone).values()))
        action, logp = self._act(pictures, source, sampler.temperature)
        x = chains(pictures, action, size).replace(behavior_logp=logp)
        return self._round(x, pictures, numbers, size)

    def _act(
        self, pictures: Pictures, source: torch.Generator | None, temperature: float
    ) -> tuple[Float[Tensor, "chains positions dims"], Float[Tensor, " actions"]]:
        device, sampled = self._served.device, self.task.latents == "sampled"
        action, logp = self._served.act(
            pictures.picture.to(device), pictures.question.to(device), source, sampled, temperature
        )
        return action.cpu(), logp.cpu()

    def _round(self, x: Experience, pictures: Pictures, numbers: Sequence[int], size: int) -> _Round:
        assert x.action is not None
        said = x.action[x.trajectory_of_token.last(), 0].long()
        solved, count = said == pictures.answer, x.trajectories
        first, self._episodes = self._episodes, self._episodes + count
        states = [state_key(self.task.name, number) for number in numbers]
        x = x.replace(
            version=torch.full((x.tokens,), self._version),
            turn_reward=solved.float(),
            turn_state=torch.tensor(states).repeat_interleave(size),
            turn_role=torch.zeros(count, dtype=torch.int64),
            turn_done=torch.ones(count, dtype=torch.bool),
            reward=solved.float(),
            success=solved,
            finished=torch.ones(count, dtype=torch.bool),
            truncated=torch.zeros(count, dtype=torch.bool),
            episode=torch.arange(first, first + count),
            seed=torch.tensor([derive(self._seed, "episode", number) for number in range(first, first + count)]),
            answer=said,
            task_id=torch.tensor(list(numbers)),
        )
        return _Round(x, pictures, said.tolist(), solved)

    def _metrics(self, rounds: Sequence[_Round]) -> dict[str, float]:
        solved = torch.cat([taken.solved for taken in rounds]).float()
        return {
            "episodes": float(len(solved)),
            "reward": float(solved.mean()),
            "reward_std": float(solved.std(correction=0)),
            "success": float(solved.mean()),
            "completions/mean_length": float(self.task.steps + 1),
            "latents/concentration_per_dim": self.task.concentration / self.task.dims,
        }

    def _transcripts(self, taken: _Round, size: int, count: int = 3) -> list[dict[str, Any]]:
        """The first chain of a few groups as a person reads it."""
        assert taken.x.episode is not None
        colours, solved, asked = list(COLOURS), taken.solved.tolist(), taken.pictures.question.tolist()
        return [
            {
                "episode": int(taken.x.episode[row]),
                "reward": float(solved[row]),
                "success": solved[row],
                "truncated": False,
                "failure": None,
                "messages": [
                    {
                        "role": "user",
                        "content": f"{self.task.question} {', '.join(dict.fromkeys(colours[c] for c in asked[row]))}",
                    },
                    {
                        "role": "assistant",
                        "content": f"{self.task.steps} latents, then: {self.task.answers[taken.said[row]]}",
                        "reward": float(solved[row]),
                    },
                ],
            }
            for row in range(0, len(solved), size)[:count]
        ]

    # ---- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """``episodes`` held-out pictures from number ``first`` on. Greedy takes means and likeliest answers."""
        pictures = self.task.pictures("test", range(first, first + episodes))
        source = None if mode == "greedy" else generator(self._seed, "evaluate", first)
        action, _ = self._act(pictures, source, 1.0)
        said = action[:, -1, 0].long()
        solved = said == pictures.answer
        x = chains(pictures, action, 1).replace(episode=torch.arange(first, first + episodes))
        return evaluation(
            mode,
            [float(right) for right in solved.tolist()],
            [self.task.steps + 1] * episodes,
            solved.tolist(),
            samples=self._transcripts(_Round(x, pictures, said.tolist(), solved), 1),
        )

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Counters; everything random follows from seed and step."""
        return {}, {"next_picture": self._next_picture, "episodes": self._episodes}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the counters."""
        self._next_picture, self._episodes = int(plain["next_picture"]), int(plain["episodes"])

    def close(self) -> None:
        """Nothing to release."""
