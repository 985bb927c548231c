"""What to roll out: groups of episodes (that must disagree, or are denoised), segments, windows, demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Curriculum, Reward, Sampler, Tempering
from stratagem.prompts import Pool, Prober, PromptHistory, Reader
from stratagem.sampling.likelihoods import Likelihood, MaskedElbo


class Planned(NamedTuple):
    """A group to roll out. start: number of its start state.  size: its trajectories."""

    start: int
    size: int


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
    similar_answers: answers of a group that are worded alike count as one (``answer``), so that advantages which
    compare answers see the meaning and not the wording: those with a cosine of TF-IDF vectors of at least this on
    average, in (0, 1) (:func:`stratagem.clusters.text_clusters`). None: answers are equal or they are not.
    phrases: file of the phrases that plan (:class:`stratagem.grams.Grams`); their tokens are marked (``planning``), and
    metrics say how much of a batch they are. None: no token is looked at.
    States and answers that are similar, and phrases, are of text alone.
    mark_steps: tokens with which a step of a response begins, which is what blank lines separate, are marked
    (``step_start``). It is done unasked where forks are made at steps between blank lines; advantages that look at such
    steps need it beside other rollouts. Games of the lab mark their steps themselves.
    curriculum: which start states come next and how many trajectories each gets, given what came of earlier ones; None:
    they come in their order, with ``group_size`` each. A batch has ``prompts_per_step * group_size`` trajectories
    either way. What came of every start state is remembered only for a curriculum, and outlives its replacement by
    another.
    tempering: what the temperature is multiplied by, token by token; None: nothing. ``behavior_logp`` is of the
    distribution sampled from all the same, and the learner's log-probabilities are at ``temperature`` alone.

    Raises :class:`InputError` for similar states or answers together with demonstrations, which are not looked at then.
    """

    temperature: Annotated[float, Gt(0)] = 1.0
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    top_k: Annotated[int, Ge(0)] = 0
    refill_rounds: Annotated[int, Ge(0)] = 1
    start_states: tuple[Annotated[int, Ge(0)], ...] = ()
    demonstrations: Annotated[int, Ge(0)] = 0
    similar_states: Annotated[float, Gt(0), Le(1)] | None = None
    similar_answers: Annotated[float, Gt(0), Lt(1)] | None = None
    phrases: str | None = None
    curriculum: Curriculum | None = None
    tempering: Tempering | None = None
    mark_steps: bool = False
    _memory: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.curriculum is not None:
            nobody = torch.zeros(0, dtype=torch.int64)
            self._memory.update(PromptHistory.blank(nobody, self.curriculum.window).state_dict())
            # Raises for sizes that no allocation can have.
            self.curriculum.size_bounds(self.prompts_per_step, self.group_size)
        for name in ("similar_states", "similar_answers"):
            if getattr(self, name) is not None and self.demonstrations:
                raise InputError(
                    f"{self.part_name()}.{name} = {getattr(self, name)}: must be None where there are "
                    f"demonstrations, here {self.demonstrations}"
                )

    def needs(self) -> frozenset[str]:
        return super().needs() | ({"step_start"} if self.mark_steps else frozenset())

    @property
    def policy_temperature(self) -> float:
        return self.temperature

    @property
    def smallest_group(self) -> tuple[str, int]:
        if self.curriculum is None:
            return super().smallest_group
        least = self.curriculum.size_bounds(self.prompts_per_step, self.group_size)[0]
        return ("group_size" if least == self.group_size else "curriculum"), least

    @property
    def largest_group(self) -> int:
        """Most rollouts of a group from its start, however failed ones are replaced."""
        if self.curriculum is None:
            return self.group_size
        return self.curriculum.size_bounds(self.prompts_per_step, self.group_size)[1]

    def tagged(self) -> frozenset[str]:
        return super().tagged().union({"initialisation.stage.instruction_tuning"} if self.demonstrations else ())

    def tempered(self, logits: Tensor) -> Tensor:
        logits = super().tempered(logits)
        return logits if self.tempering is None else self.tempering.tempered(logits)

    @property
    def asks(self) -> dict[str, str]:
        """What not everybody who samples can do, by ability, and what is said of ``{who}`` who cannot."""
        asked = {}
        if self.top_p < 1 or self.top_k > 0:
            asked["cuts"] = "{who} samples without top_p and top_k"
        sought = {
            "similar_states": "states could be similar",
            "similar_answers": "answers could be",
            "phrases": "they stood",
        }
        for name, what in sought.items():
            if getattr(self, name) is not None:
                asked[name] = f"{name} = {getattr(self, name)}: {{who}} reads no text in which {what}"
        if self.curriculum is not None:
            curriculum = f"curriculum = {self.curriculum.part_name()}"
            asked["curricula"] = f"{curriculum}: {{who}} takes start states in their order"
        if self.tempering is not None:
            tempering = f"tempering = {self.tempering.part_name()}"
            asked["tempering"] = f"{tempering}: {{who}} samples at one temperature"
        return asked

    def check_asked(self, who: str, *can: str) -> None:
        """Raise :class:`InputError` when this is asked for something ``who`` cannot do. ``can``: abilities it has."""
        for ability, refusal in self.asks.items():
            if ability not in can:
                raise InputError(f"sampler {self.part_name()}: {refusal.format(who=who)}")

    def start_state(self, group: int) -> int:
        """The start state of this group, counted over the whole run: the group's own number when none are given."""
        return self.start_states[group % len(self.start_states)] if self.start_states else group

    # ---- start states by a curriculum ------------------------------------------------------------------------------

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    @property
    def history(self) -> PromptHistory:
        """What came of every start state so far; without a curriculum nothing is remembered."""
        if not self._memory:
            return PromptHistory.blank(torch.zeros(0, dtype=torch.int64))
        return PromptHistory.from_state_dict(self._memory)

    def planned(
        self,
        numbers: range,
        source: Callable[[], torch.Generator],
        step: int = 0,
        known: int | None = None,
        read: Reader | None = None,
        probe: Prober | None = None,
    ) -> list[Planned]:
        """The groups with these running numbers; to plan them is to draw their start states.

        source: the generator of what a curriculum leaves to chance, asked for once.  known: how many start states the
        task has, None when there is no end of them, or nobody knows.  read: their texts.  probe: tries them.

        Raises :class:`InputError` when a curriculum does not know what to choose from.
        """
        if self.curriculum is None:
            return [Planned(self.start_state(number), self.group_size) for number in numbers]
        if not numbers:
            return []
        chance, pool = source(), self._pool(step, known, read, probe)
        place = self.curriculum.choose(pool, len(numbers), chance)
        start, size = pool.number[place], self.curriculum.sizes(pool, place, self.group_size, chance)
        self._remember(pool.history.drawn(start))
        return [Planned(*group) for group in zip(start.tolist(), size.tolist(), strict=True)]

    def note(self, x: Experience, step: int) -> Experience:
        """Remember what came of a round of rollouts, and note its domains in it, if there is a curriculum."""
        if self.curriculum is None:
            return x
        assert x.task_id is not None, "who rolls out says from which start states"
        number = x.task_id.cpu()
        self._remember(self._history.noted(number, x, step))
        domain = self.curriculum.domain(number)
        if domain is None:
            return x
        domain = domain.to(x.device)
        return x.replace(domain=domain, domain_of_group=Partition(domain, int(domain.max()) + 1))

    def figures(self, start: Int[Tensor, " groups"], step: int = 0) -> dict[str, float]:
        """Figures to log of a batch whose groups had these start states: of those start states, and of all.

        ``curriculum/difficulty``: mean over the groups, one minus the recent score of their start state; ``visits``:
        mean number of visits, this one included; ``seen``: start states visited so far.
        """
        if self.curriculum is None or not len(start):
            return {}
        history = self._history
        rolled = history.at(start)
        named = {
            "difficulty": float(rolled.difficulty.nanmean()),
            "visits": float(rolled.visits.double().mean()),
            "seen": float((history.visits > 0).sum()),
            **self.curriculum.figures(Pool(history.number, history, history, step)),
        }
        return {f"curriculum/{name}": value for name, value in named.items()}

    @property
    def _history(self) -> PromptHistory:
        """With as many visits remembered one by one as the present curriculum reads."""
        return self.history if self.curriculum is None else self.history.windowed(self.curriculum.window)

    def _remember(self, history: PromptHistory) -> None:
        self._memory.update(history.state_dict())

    def _pool(self, step: int, known: int | None, read: Reader | None, probe: Prober | None) -> Pool:
        assert self.curriculum is not None
        count = known if self.curriculum.prompts is None else self.curriculum.prompts
        name = f"curriculum {self.curriculum.part_name()}"
        if self.start_states:
            number = torch.tensor(sorted(set(self.start_states)))
        elif count is None:
            raise InputError(f"{name}: prompts = None: must be a number, the task has no end of start states")
        else:
            number = torch.arange(count if known is None else min(count, known))
        if known is not None and int(number[-1]) >= known:
            last = int(number[-1])
            raise InputError(f"{name}: start state {last}: the task has only the start states 0 to {known - 1}")
        history = self._history
        return Pool(number, history.at(number), history, step, read, probe)


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

    @property
    def asks(self) -> dict[str, str]:
        refusal = f"epsilon = {self.epsilon}: {{who}} does not draw actions uniformly; policies of the lab do"
        return super().asks | ({"exploration": refusal} if self.epsilon else {})

    def tempered(self, logits: Float[Tensor, "*states actions"]) -> Float[Tensor, "*states actions"]:
        """``log mu`` where the policy has these logits."""
        logits = super().tempered(logits)
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

    prompts_per_step: groups in a batch.  group_size: the least candidates of a group worth learning from; smaller
    groups are left out.  without: numbers of candidates that are left out, such as an expert who is away.
    """

    prompts_per_step: Annotated[int, Ge(1)] = 16
    group_size: Annotated[int, Ge(1)] = 2
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
