"""The world of a diffusion policy: puzzles, denoised answers, and the batches and evaluations that come of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from stratagem.diffusion.denoising import Noise, denoise
from stratagem.diffusion.inputs import DiffusionInputs
from stratagem.diffusion.policy import DiffusionPolicy
from stratagem.diffusion.pretrain import canvases, pretrain
from stratagem.diffusion.tasks import DiffusionTask
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Sampler
from stratagem.recipe import Recipe
from stratagem.sampling import Demonstrations, Denoising, Likelihood, OneStep, Rollouts, kept_groups
from stratagem.seeding import derive, generator
from stratagem.tasks.task import Split, state_key
from stratagem.training.statistics import evaluation
from stratagem.training.world import Collected, Evaluation

SMALL = {"optimization.learning_rate": 1e-3}
"""What any recipe is set to for diffusion: these networks are small."""


@dataclass(frozen=True, eq=False)
class _Answers:
    """Answers on their canvases, group after group.

    canvas: prompt and answer.  lengths: tokens of every answer, its end included.  ended: whether it has its end (or
    needs none).  solved: whether it is right.  index: number of the prompt of every group.  episode: of every answer.
    """

    canvas: Int[Tensor, "answers positions"]
    lengths: list[int]
    ended: list[bool]
    solved: list[bool]
    index: list[int]
    episode: list[int]


class DiffusionWorld:
    """A diffusion policy answering puzzles: reward 1 for a right answer, 0 otherwise.

    A sampler that says nothing of denoising reveals answers one token at a time in random order, and their likelihood
    is that of one step (:class:`OneStep`): what diffu-GRPO does to GRPO. ``behavior_logp`` is the share of each token
    in the estimate, under the policy that was served and the masks of the batch; no sampler of this kind has a token
    likelihood of its own. An answer is its tokens up to and including its first end; the rest of the canvas is masked
    when the answer is judged, and not judged itself.

    policy: None for one that is pretrained here, which takes seconds and follows from the seed.

    Raises :class:`InputError` when the policy does not fit the task, or a sampler asks for what diffusion cannot do.
    """

    def __init__(self, task: DiffusionTask, seed: int, policy: DiffusionPolicy | None = None) -> None:
        self.task, self.task_name, self._seed = task, task.name, seed
        self.policy = pretrain(task, derive(seed, "warm start")) if policy is None else policy
        needed = len(task.symbols), task.prompt_length + task.answer_length
        if (self.policy.shape.vocabulary, self.policy.shape.positions) != needed:
            raise InputError(
                f"task {task.name} needs a policy of {needed[0]} tokens and {needed[1]} positions; this one is of "
                f"{self.policy.shape.vocabulary} and {self.policy.shape.positions}"
            )
        self._served, self._version = self.policy.frozen(), 0
        self._next_index = self._episodes = 0

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe with a learning rate of 1e-3."""
        return recipe.with_values(SMALL)

    def serve(self, version: int) -> None:
        """Answer with the policy's present weights from now on."""
        self._served.load_state_dict(self.policy.state_dict())
        self._version = version

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Groups of answers by the policy, or the task's own solutions.

        Groups the sampler rejects are replaced by fresh ones, up to ``refill_rounds`` times.
        """
        if isinstance(sampler, Demonstrations):
            answers = self._demonstrated(self._fresh(sampler.prompts_per_step))
            x = self._experience(answers, 1, Denoising().likelihood)
            return Collected(x, sum(answers.lengths), self._metrics([answers]), self._transcripts(answers, 1))
        if not isinstance(sampler, Rollouts):
            raise InputError(f"sampler {sampler.part_name()}: a diffusion task takes rollouts or demonstrations")
        sampler.check_no_text("a diffusion policy")
        sampler.check_no_exploration("a diffusion policy")
        sampler.check_from_start("a diffusion policy")
        how = sampler if isinstance(sampler, Denoising) else Denoising(likelihood=OneStep())
        rounds: list[_Answers] = []

        def roll(groups: int, _: int) -> Experience:
            rounds.append(self._answered("train", self._fresh(groups), sampler.group_size, sampler.temperature, how))
            x = self._experience(rounds[-1], sampler.group_size, how.likelihood)
            return x.replace(behavior_logp=self._behavior(x, sampler.temperature))

        kept = kept_groups(sampler, roll)
        return Collected(
            kept.x,
            sum(sum(answers.lengths) for answers in rounds),
            self._metrics(rounds) | kept.metrics,
            self._transcripts(rounds[0], sampler.group_size),
        )

    def _fresh(self, count: int) -> range:
        self._next_index += count
        return range(self._next_index - count, self._next_index)

    def _numbered(self, count: int) -> list[int]:
        self._episodes += count
        return list(range(self._episodes - count, self._episodes))

    def _demonstrated(self, indices: range) -> _Answers:
        canvas = canvases(self.task, "train", indices)
        return self._judged(canvas, list(indices), self._numbered(len(canvas)), 1)

    def _answered(
        self, split: Split, indices: range, size: int, temperature: float, how: Denoising, greedy: bool = False
    ) -> _Answers:
        """``size`` answers to each of these prompts; their noise follows from the number of the episode."""
        task = self.task
        prompts = torch.tensor([task.solved(split, index)[0] for index in indices]).repeat_interleave(size, 0)
        # Held-out episodes have numbers of their own, so that an evaluation disturbs no training.
        episodes = list(indices) if split == "test" else self._numbered(len(prompts))
        noise = None
        if not greedy:
            steps = task.answer_length if how.steps is None else how.steps
            shape = min(steps, task.answer_length), task.answer_length, len(task.symbols)
            noise = Noise.draw(self._seed, f"{split} answer", episodes, *shape).to(self._served.device)
        prompts = prompts.to(self._served.device)
        answer = denoise(self._served, prompts, task.answer_length, how.steps, how.order, temperature, noise)
        return self._judged(torch.cat([prompts, answer], 1).cpu(), list(indices), episodes, size)

    def _judged(self, canvas: Tensor, indices: list[int], episodes: list[int], size: int) -> _Answers:
        task, lengths, ended, solved = self.task, [], [], []
        for row in canvas.tolist():
            prompt, answer = tuple(row[: task.prompt_length]), row[task.prompt_length :]
            ends = task.end is not None and task.end in answer
            said = answer[: answer.index(task.end)] if ends else answer
            lengths.append(len(said) + ends)
            ended.append(ends or task.end is None)
            solved.append(ended[-1] and task.accepts(prompt, tuple(said)))
        return _Answers(canvas, lengths, ended, solved, indices, episodes)

    # ---- what it comes to ------------------------------------------------------------------------------------------

    def _experience(self, answers: _Answers, size: int, likelihood: Likelihood) -> Experience:
        prompt, one_each = self.task.prompt_length, torch.ones(len(answers.canvas), dtype=torch.int64)
        inputs = self._inputs(answers, likelihood)
        lengths, groups = torch.tensor(answers.lengths), len(answers.index)
        reward, ended = torch.tensor(answers.solved).float(), torch.tensor(answers.ended)
        states = [state_key(self.task.name, *row) for row in answers.canvas[:, :prompt].tolist()]
        return Experience(
            turn_of_token=Partition.from_sizes(lengths),
            trajectory_of_turn=Partition.singletons(len(lengths)),
            group_of_trajectory=Partition.from_sizes([size] * groups),
            domain_of_group=Partition.whole(groups),
            action=inputs.tokens[inputs.response],
            version=torch.full((int(lengths.sum()),), self._version),
            turn_reward=reward,
            turn_state=torch.tensor(states),
            turn_role=torch.zeros_like(lengths),
            turn_done=torch.ones_like(ended),
            turn_observation_length=prompt * one_each,
            reward=reward,
            success=torch.tensor(answers.solved),
            finished=ended,
            truncated=~ended,
            episode=torch.tensor(answers.episode),
            task_id=torch.tensor(answers.index),
            inputs=inputs,
        )

    def _inputs(self, answers: _Answers, likelihood: Likelihood) -> DiffusionInputs:
        """The canvases without what follows an end, and their views, which follow from seed and episode."""
        rows, positions = answers.canvas.shape
        place = torch.arange(positions) - self.task.prompt_length
        past_end = place >= torch.tensor(answers.lengths).unsqueeze(1)
        response = (place >= 0) & ~past_end
        chance = torch.empty(rows, likelihood.evaluations, positions)
        clock = torch.empty(rows, likelihood.evaluations)
        for row, episode in enumerate(answers.episode):
            source = generator(self._seed, "masks", episode)
            chance[row].uniform_(generator=source)
            clock[row].uniform_(generator=source)
        views = likelihood.views(response, chance, clock)
        tokens = answers.canvas.masked_fill(past_end, self.policy.mask)
        return DiffusionInputs(tokens, response, views.hidden, views.weight)

    @torch.no_grad()
    def _behavior(self, x: Experience, temperature: float) -> Tensor:
        said: Tensor = self._served(x.to(self._served.device), temperature=temperature).logp
        return said.cpu()

    def _metrics(self, rounds: Sequence[_Answers]) -> dict[str, float]:
        solved = torch.tensor([right for answers in rounds for right in answers.solved]).float()
        lengths = torch.tensor([length for answers in rounds for length in answers.lengths]).float()
        ended = torch.tensor([ends for answers in rounds for ends in answers.ended]).float()
        return {
            "episodes": float(len(solved)),
            "reward": float(solved.mean()),
            "reward_std": float(solved.std(correction=0)),
            "success": float(solved.mean()),
            "completions/mean_length": float(lengths.mean()),
            "episodes/truncated": 1 - float(ended.mean()),
        }

    def _transcripts(self, answers: _Answers, size: int, count: int = 3) -> list[dict[str, Any]]:
        """The first answer of a few groups as a person reads it."""
        prompt = self.task.prompt_length
        return [
            {
                "episode": answers.episode[row],
                "reward": float(answers.solved[row]),
                "success": answers.solved[row],
                "truncated": not answers.ended[row],
                "failure": None,
                "messages": [
                    {"role": "user", "content": self._read(answers.canvas[row, :prompt])},
                    {
                        "role": "assistant",
                        "content": self._read(answers.canvas[row, prompt : prompt + answers.lengths[row]]),
                        "reward": float(answers.solved[row]),
                    },
                ],
            }
            for row in range(0, len(answers.canvas), size)[:count]
        ]

    def _read(self, tokens: Tensor) -> str:
        return self.task.read(tuple(tokens.tolist()))

    # ---- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """``episodes`` held-out prompts from number ``first`` on, one answer each, revealed one token at a time.

        Sampled: in random order at temperature 1. Greedy: the most likely token where the policy is most confident.
        """
        indices = range(first, first + episodes)
        answers = self._answered("test", indices, 1, 1.0, Denoising(), greedy=mode == "greedy")
        return evaluation(
            mode,
            [float(right) for right in answers.solved],
            answers.lengths,
            answers.solved,
            samples=self._transcripts(answers, 1),
        )

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The numbers of the next prompt and the next episode."""
        return {}, {"next_index": self._next_index, "episodes": self._episodes}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Continue with the next prompt."""
        self._next_index, self._episodes = int(plain["next_index"]), int(plain["episodes"])

    def close(self) -> None:
        """Nothing to release."""
