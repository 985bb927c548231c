"""What to roll out: groups of episodes (that must disagree, or are denoised), segments, windows, demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Reward, Sampler
from stratagem.sampling.likelihoods import Likelihood, MaskedElbo


@dataclass(frozen=True)
class Rollouts(Sampler):
    """Whole episodes by the current policy: ``prompts_per_step`` start states, ``group_size`` episodes from each.

    temperature, top_p, top_k: of token sampling (top_k 0: no limit). ``behavior_logp`` is of the distribution sampled
    from; the learner's log-probabilities are at the same temperature, without the cut of top_p and top_k, so with these
    a recipe should have a correction.
    refill_rounds: how often groups that were lost or rejected are replaced by fresh ones in one step.
    start_states: numbers of the start states to roll out, over and over in this order; none: the task's own order. One
    number is training on a single example.
    demonstrations: so many by the task's solver from every group's start state, as further trajectories of the group
    that are marked ``demonstrated``. They are not sampled, so no budget counts them; where the solver knows one way
    alone, they are that one again. Their ``behavior_logp`` is 0: how likely they were is not known, and a denominator
    of 1 is what arXiv 2504.14945 takes for it.
    similar_states: turns of a group whose observations read alike count as in one state, so that advantages which
    compare turns by state compare them. A turn gets the key (``turn_state``) of the first turn of its group with a text
    so similar: twice the longest common subsequence over the characters of both is at least this, such as 0.95, in
    (0, 1]; only with the first members of such clusters a text is compared. None: states are equal or they are not.
    Only text can be similar.

    Raises :class:`InputError` for similar states together with demonstrations, whose turns are not looked at then.
    """

    temperature: Annotated[float, Gt(0)] = 1.0
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    top_k: Annotated[int, Ge(0)] = 0
    refill_rounds: Annotated[int, Ge(0)] = 1
    start_states: tuple[Annotated[int, Ge(0)], ...] = ()
    demonstrations: Annotated[int, Ge(0)] = 0
    similar_states: Annotated[float, Gt(0), Le(1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.similar_states is not None and self.demonstrations:
            raise InputError(
                f"{self.part_name()}.similar_states = {self.similar_states}: must be None where there are "
                f"demonstrations, here {self.demonstrations}"
            )

    @property
    def policy_temperature(self) -> float:
        return self.temperature

    def tagged(self) -> frozenset[str]:
        return super().tagged().union({"initialisation.stage.instruction_tuning"} if self.demonstrations else ())

    def check_no_text(self, who: str) -> None:
        """Raise :class:`InputError` for what only a language policy can be asked: top_p, top_k, similar_states."""
        if self.top_p < 1 or self.top_k > 0:
            raise InputError(f"sampler {self.part_name()}: {who} samples without top_p and top_k")
        if self.similar_states is not None:
            raise InputError(
                f"sampler {self.part_name()}: similar_states = {self.similar_states}: {who} reads no text in which "
                "states could be similar"
            )

    def check_from_start(self, who: str) -> None:
        """Raise :class:`InputError` when episodes are to be gone on with from the middle, which not everybody can."""

    def check_no_exploration(self, who: str) -> None:
        """Raise :class:`InputError` when actions are to be drawn by chance, which not everybody can."""

    def start_state(self, group: int) -> int:
        """The start state of this group, counted over the whole run: the group's own number when none are given."""
        return self.start_states[group % len(self.start_states)] if self.start_states else group


@dataclass(frozen=True)
class DynamicSampling(Rollouts):
    """Rollouts that drop groups whose trajectories all earned the same, and sample on (DAPO, arXiv 2503.14476).

    After ``refill_rounds`` further rounds the step learns from the groups it has.

    judged_by: the reward by which a group's trajectories are compared; None: the task's own. A recipe that replaces the
    task's reward needs it here, too, or groups are chosen by a reward it must not know.
    """

    refill_rounds: Annotated[int, Ge(0)] = 3
    judged_by: Reward | None = None

    def keep(self, x: Experience) -> Bool[Tensor, " groups"]:
        returns = x.returns if self.judged_by is None else self.judged_by(x).returns
        return x.group_of_trajectory.max(returns) > x.group_of_trajectory.min(returns)


@dataclass(frozen=True)
class Exploring(Rollouts):
    """Rollouts in which an action is drawn uniformly at times: ``mu = (1 - epsilon) pi + epsilon / K``.

    ``behavior_logp`` is that of ``mu``, so a recipe should have a correction. For policies over a few actions, such as
    latent states; over a vocabulary it would write noise, and a language policy refuses it.

    epsilon: in [0, 1]. 0: rollouts; 1: the policy is not asked at all.
    """

    epsilon: Annotated[float, Ge(0), Le(1)] = 0.1

    def check_no_exploration(self, who: str) -> None:
        if self.epsilon:
            raise InputError(
                f"sampler {self.part_name()}: epsilon = {self.epsilon}: {who} does not draw actions uniformly; "
                "policies of the lab do"
            )

    def explored(self, logits: Float[Tensor, "*states actions"]) -> Float[Tensor, "*states actions"]:
        """``log mu`` where the policy has these logits."""
        odds = (1 - self.epsilon) * torch.softmax(logits, -1) + self.epsilon / logits.shape[-1]
        return odds.log() if self.epsilon else logits


@dataclass(frozen=True)
class Denoising(Rollouts):
    """Rollouts of a masked-diffusion policy: an answer starts all masked and is revealed step by step.

    In every step the policy proposes a token for each masked position, and some proposals stay; what is revealed is not
    masked again.

    steps: evaluations of the network per answer, each revealing an equal share of it; None: one for every position.
    order: which positions are revealed, ``random`` ones or those whose proposal is most ``confident`` (low-confidence
    remasking, as LLaDA samples, arXiv 2502.09992). Only at random and one by one is the ELBO a bound on the likelihood
    of what is sampled.
    likelihood: how ``log pi`` of an answer is estimated. The masks are drawn once for a batch, so that new, old and
    reference policy are compared under the same ones.

    Where a policy knows its likelihood (text, the lab) steps, order and likelihood mean nothing, and these are
    rollouts.
    """

    steps: Annotated[int, Ge(1)] | None = None
    order: Literal["random", "confident"] = "random"
    likelihood: Likelihood = MaskedElbo()


@dataclass(frozen=True)
class Candidates(Sampler):
    """Complete groups: every candidate action of a start state once, whatever the policy would have done.

    What the candidates are is the task's to say (:meth:`stratagem.tasks.Task.candidates`); in the lab they are the
    first tokens, what follows them being the policy's. Nothing was sampled from the policy, so a recipe needs a ratio
    to some other one than the behaviour. Candidates that fail (an expert who does not answer) are left out of their
    group and counted.

    prompts_per_step: groups in a batch.  group_size: the least candidates of a group worth learning from, 2 or more;
    smaller groups are left out.  without: numbers of candidates that are left out, such as an expert who is away.
    """

    prompts_per_step: Annotated[int, Ge(1)] = 16
    group_size: Annotated[int, Ge(2)] = 2
    without: tuple[Annotated[int, Ge(0)], ...] = ()

    def keep(self, x: Experience) -> Bool[Tensor, " groups"]:
        return x.group_of_trajectory.size() >= self.group_size


@dataclass(frozen=True)
class Segments(Sampler):
    """A fixed number of turns from environments that run on across steps; what a control policy usually learns from.

    prompts_per_step: environments side by side, each one a group.  turns: per environment and step. An episode cut by
    the end of the segment is marked truncated and carries the critic's ``final_value``.
    """

    prompts_per_step: Annotated[int, Ge(1)] = 8
    group_size: Annotated[int, Ge(1), Le(1)] = 1
    turns: Annotated[int, Ge(1)] = 128


@dataclass(frozen=True)
class Windows(Sampler):
    """At most ``tokens`` more of each of ``prompts_per_step`` responses that run on across steps (arXiv 2506.15050).

    A response that ends makes room for the next prompt in the next step; one that does not goes on from its prefix with
    the new weights. Nobody waits for the longest response: a step costs ``tokens`` decode steps at most.

    The batch has a trajectory for each response, with all of it so far, as a group of its own. ``mask`` is True for the
    tokens of this window, each of which is so in one batch; ``critic_mask`` for all tokens of a response that has
    ended, its reward known; ``running`` marks the others, which are ``truncated``, too. A response that reaches the
    task's own limit has ended.

    tokens: the window.  temperature: of token sampling.
    """

    prompts_per_step: Annotated[int, Ge(1)] = 64
    group_size: Annotated[int, Ge(1), Le(1)] = 1
    tokens: Annotated[int, Ge(1)] = 32
    temperature: Annotated[float, Gt(0)] = 1.0

    @property
    def policy_temperature(self) -> float:
        return self.temperature


@dataclass(frozen=True)
class Demonstrations(Sampler):
    """Episodes played by the task's own solver: ``prompts_per_step`` of them.

    held_out: from start states that no training batch begins with, to validate on. The lab's games have none to spare:
    there they are demonstrations of their own.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"initialisation.stage.instruction_tuning"})

    prompts_per_step: Annotated[int, Ge(1)] = 64
    group_size: Annotated[int, Ge(1), Le(1)] = 1
    held_out: bool = False
