"""The contracts of the parts a recipe is made of: what each kind is given, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.masking import only
from stratagem.part import Part
from stratagem.prompts import Pool


@dataclass(frozen=True)
class Tempering(Part):
    """How far the temperature of each token departs from the sampler's, by how sure the policy is of that token.

    One that goes by past batches remembers them in :meth:`before_steps`, which :meth:`Recipe.credit` calls.
    """

    kind: ClassVar[str] = "tempering"

    def __call__(self, entropy: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Factor of the temperature, above 0, given the entropy at the sampler's own temperature, in nats."""
        raise NotImplementedError

    def tempered(self, logits: Float[Tensor, "*batch vocabulary"]) -> Float[Tensor, "*batch vocabulary"]:
        """Logits, at the sampler's own temperature, over the factor."""
        entropy = torch.special.entr(torch.softmax(logits, -1)).sum(-1)
        return logits / self(entropy).unsqueeze(-1)


@dataclass(frozen=True)
class Sampler(Part):
    """What to roll out next: how many prompts (or start states), how many trajectories of each, and how to sample.

    prompts_per_step: groups in a batch.  group_size: trajectories of each group.
    """

    kind: ClassVar[str] = "sampler"

    prompts_per_step: Annotated[int, Ge(1)] = 8
    group_size: Annotated[int, Ge(1)] = 8

    @property
    def policy_temperature(self) -> float:
        """Temperature at which the policy's log-probabilities are meant."""
        return 1.0

    def tempered(self, logits: Float[Tensor, "*batch vocabulary"]) -> Float[Tensor, "*batch vocabulary"]:
        """Logits of the distribution that tokens are drawn from, before any cut."""
        return logits / self.policy_temperature

    @property
    def smallest_group(self) -> tuple[str, int]:
        """Trajectories of the smallest group of a batch in which none is lost, and the field that says so."""
        return "group_size", self.group_size

    def tagged(self) -> frozenset[str]:
        several = {"search.structure.best_of_n", "search.action.solution", "search.phase.training"}
        return super().tagged().union(several if self.smallest_group[1] > 1 else ())

    def keep(self, x: Experience) -> Bool[Tensor, " groups"]:
        """Groups worth learning from. Rejected ones are replaced by fresh ones, up to ``refill_rounds`` times."""
        return torch.ones(x.groups, dtype=torch.bool, device=x.device)


@dataclass(frozen=True)
class Curriculum(Part):
    """Which start states to roll out, given what came of earlier ones, and how many trajectories of each.

    It is a part of :class:`stratagem.sampling.Rollouts`, which keeps the history, tells it of every round of rollouts,
    rejected groups included, and asks for the start states of the next round.

    prompts: it chooses among start states 0 to ``prompts - 1``, as far as the task has them; None: among all there are,
    where the task has an end of them. A sampler that names its ``start_states`` has these chosen from instead.
    window: visits of a start state that are remembered one by one.
    """

    kind: ClassVar[str] = "curriculum"

    prompts: Annotated[int, Ge(1)] | None = None
    window: Annotated[int, Ge(1)] = 8

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> Int[Tensor, " groups"]:
        """Places in the pool of the start states of so many groups. Whatever is left to chance is of ``source``."""
        raise NotImplementedError

    def sizes(
        self, pool: Pool, chosen: Int[Tensor, " groups"], group_size: int, source: torch.Generator
    ) -> Int[Tensor, " groups"]:
        """Trajectories of each group, at least 1, in all ``groups * group_size``."""
        return torch.full_like(chosen, group_size)

    def size_bounds(self, groups: int, group_size: int) -> tuple[int, int]:
        """The least and the most trajectories that a group among so many may get."""
        return group_size, group_size

    def domain(self, number: Int[Tensor, " groups"]) -> Int[Tensor, " groups"] | None:
        """The domain of these start states, from 0 on, which the batch will note; None: it says nothing of domains."""
        return None

    def figures(self, pool: Pool) -> dict[str, float]:
        """What to log once a batch has come back."""
        return {}


@dataclass(frozen=True, eq=False)
class Mixed:
    """A fresh batch with something old in it. ``old``: trajectories that were sampled for an earlier batch."""

    x: Experience
    old: Bool[Tensor, " trajectories"]

    @classmethod
    def nothing(cls, x: Experience) -> Mixed:
        """The batch as it is, all of it fresh."""
        return cls(x, torch.zeros(x.trajectories, dtype=torch.bool, device=x.device))


@dataclass(frozen=True)
class Forking(Part):
    """Where trajectories are gone on with from the middle (:class:`stratagem.sampling.Branching`)."""

    kind: ClassVar[str] = "forking"

    def __call__(self, x: Experience) -> Bool[Tensor, " tokens"]:
        """True for tokens before which a fork is made: what comes before one is kept, the rest is sampled anew."""
        raise NotImplementedError

    def figures(self, x: Experience) -> dict[str, float]:
        """What to log of a batch that has grown."""
        return {}


@dataclass(frozen=True)
class Replay(Part):
    """What of past batches is held, and learned from once more together with a fresh one.

    What is held comes back as it was before it was credited, with the ``behavior_logp`` of the policy that sampled it.
    """

    kind: ClassVar[str] = "replay"
    requires: ClassVar[frozenset[str]] = frozenset({"behavior_logp"})

    def __call__(self, held: Sequence[Experience], fresh: Experience, source: torch.Generator) -> Mixed:
        """``fresh`` with some of what is held, the oldest first; nothing of ``fresh`` itself is held yet."""
        raise NotImplementedError

    def remember(self, held: Sequence[Experience], fresh: Experience) -> list[Experience]:
        """What is held for the batches to come."""
        raise NotImplementedError


@dataclass(frozen=True)
class Reward(Part):
    """Changes what an experience was worth before anybody is credited for it."""

    kind: ClassVar[str] = "reward"
    tags: ClassVar[frozenset[str]] = frozenset({"reward.shaping.added"})

    def __call__(self, x: Experience) -> Experience:
        """The experience with its rewards (per token, turn or trajectory) changed."""
        raise NotImplementedError


@dataclass(frozen=True)
class Selection(Part):
    """Chooses what reaches the learner."""

    kind: ClassVar[str] = "selection"

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        """True for the trajectories to learn from."""
        raise NotImplementedError

    def apply(self, x: Experience) -> Experience:
        """The experience without the others."""
        return x.select(self(x))


@dataclass(frozen=True)
class Advantage(Part):
    """Credit per token. Advantages add up and scale: ``GroupCentered() + 0.5 * GAE()``.

    ``minimum_group`` is the least group size for which the estimate is defined.
    """

    kind: ClassVar[str] = "advantage"
    minimum_group: ClassVar[int] = 1

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        """Credit of every token, detached."""
        raise NotImplementedError

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"] | None:
        """What a critic should have said before each token; None when the estimate uses no critic."""
        return next(
            (t for _, c in self.children() if isinstance(c, Advantage) and (t := c.value_target(x)) is not None), None
        )

    def critic_tokens(self, x: Experience) -> Bool[Tensor, " tokens"] | None:
        """Tokens of which :meth:`value_target` says something, where the critic learns; None: all of them."""
        return next(
            (t for _, c in self.children() if isinstance(c, Advantage) and (t := c.critic_tokens(x)) is not None), None
        )

    def target(self, x: Experience) -> Float[Tensor, " tokens"] | None:
        """The ratio every token is to be pulled towards; None when the estimate says nothing of it."""
        return next(
            (t for _, c in self.children() if isinstance(c, Advantage) and (t := c.target(x)) is not None), None
        )

    def sets_target(self) -> bool:
        """Whether :meth:`target` ever says something."""
        own = type(self).target is not Advantage.target
        return own or any(c.sets_target() for _, c in self.children() if isinstance(c, Advantage))

    @property
    def prompt_share(self) -> float | None:
        """Share of a prompt's tokens, the least likely, of which it reads ``x.prompt_confidence``; None: it does not.

        Who asks the policy fills it in where the policy says how likely prompts are.
        """
        return None

    def least_group(self) -> int:
        """Least group size for this advantage and all it is made of."""
        return max([self.minimum_group, *(c.least_group() for _, c in self.children() if isinstance(c, Advantage))])

    def __add__(self, other: Advantage) -> Advantage:
        return AdvantageSum(_terms(self, AdvantageSum) + _terms(other, AdvantageSum))

    def __mul__(self, factor: float) -> Advantage:
        return ScaledAdvantage(factor, self)

    __rmul__ = __mul__


@dataclass(frozen=True)
class Preference(Part):
    """Which of two answers to a prompt is preferred: ``P(y > y' | x)``, with ``P(y > y') + P(y' > y) = 1``.

    The contract every oracle shares, whatever stands behind it: a reward, a table, a learned model, a judge, people. It
    need not be transitive, so it need not be the difference of any scores. A recipe holds one in the advantage that
    turns it into credit (:class:`stratagem.advantages.WinRate`); losses read the credit and no oracle. An oracle names
    the fields of the batch it reads in ``requires``, as every part does, and answers the same when asked the same.
    """

    kind: ClassVar[str] = "preference"

    def __call__(
        self, x: Experience, first: Int[Tensor, " pairs"], second: Int[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """Probability, in [0, 1], that trajectory ``first`` is preferred to ``second``, both of one group.

        1/2 for an answer against itself, and where who was asked cannot decide. Raises :class:`InputError` for answers
        it cannot judge, :class:`BrokenRunError` when who is to be asked is down.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Mixture(Part):
    """A policy made of those whose log-probabilities stand in a batch: what log-ratios are to, or whom one plays."""

    kind: ClassVar[str] = "mixture"

    @property
    def past(self) -> int:
        """How many policies of past updates it reads, as columns of ``x.past_logp``."""
        return 0

    def logp(self, old: Float[Tensor, " tokens"], x: Experience) -> Float[Tensor, " tokens"]:
        """Its log-probability of every token, given that of the policy the update starts from.

        Summed over an answer it may be off by a constant of the prompt.
        """
        raise NotImplementedError


def past_policies(part: Part) -> int:
    """The columns of ``x.past_logp`` that this part, or one it is made of, reads."""
    own = part.past if isinstance(part, Mixture) else 0
    return max([own, *(past_policies(child) for _, child in part.children())])


@dataclass(frozen=True)
class Ratio(Part):
    """Importance ratio of the policy being trained to a reference denominator."""

    kind: ClassVar[str] = "ratio"

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        """Ratio of every token, with gradient."""
        raise NotImplementedError


@dataclass(frozen=True)
class Gate(Part):
    """Turns ratio and advantage into the surrogate to maximise, and decides whose gradient passes."""

    kind: ClassVar[str] = "gate"
    tags: ClassVar[frozenset[str]] = frozenset({"learning.off_policy.importance_weights"})

    def __call__(
        self, ratio: Float[Tensor, " tokens"], advantage: Float[Tensor, " tokens"], out: PolicyOutput, x: Experience
    ) -> Float[Tensor, " tokens"]:
        """Surrogate of every token."""
        raise NotImplementedError

    def objection(self, ratio: Ratio) -> str | None:
        """Why this gate makes no sense with that ratio; None when it does."""
        return None

    def binds(
        self, ratio: Float[Tensor, " tokens"], advantage: Float[Tensor, " tokens"], out: PolicyOutput, x: Experience
    ) -> Bool[Tensor, " tokens"]:
        """Tokens at which the gate changes the plain surrogate; their share is logged as ``clip_fraction``."""
        return torch.zeros_like(ratio, dtype=torch.bool)


@dataclass(frozen=True)
class Correction(Part):
    """Detached weight of every token: repairs the mismatch between sampling and learning engine, or drops tokens.

    Corrections multiply: ``TruncatedImportance() * CurvatureMask()``.
    """

    kind: ClassVar[str] = "correction"

    def objection(self, ratio: Ratio) -> str | None:
        """Why this correction makes no sense with that ratio; None when it does."""
        return None

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        """Weight of every token, detached."""
        raise NotImplementedError

    def judge(
        self, out: PolicyOutput, x: Experience
    ) -> tuple[Float[Tensor, " tokens"], dict[str, Float[Tensor, " tokens"]]]:
        """Weight of every token, and figures of every token of which the mean over those that may train is logged."""
        return self(out, x), {}

    def __mul__(self, other: Correction) -> Correction:
        return CorrectionProduct(_factors(self) + _factors(other))


@dataclass(frozen=True)
class Aggregation(Part):
    """How a surrogate per token becomes one number: a fixed weight for every token of the whole batch."""

    kind: ClassVar[str] = "aggregation"

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        """Weight of every token of a whole batch; 0 for tokens that may not train."""
        raise NotImplementedError

    def at(self, x: Experience) -> Float[Tensor, " tokens"]:
        """Weight of every token of a batch, or of a micro-batch within its whole; computed once for the whole."""
        whole = x.whole
        return x.piece_of(whole.remembered(self, lambda: self.weights(whole)))

    def __call__(self, values: Float[Tensor, " tokens"], x: Experience) -> Float[Tensor, ""]:
        """``sum(weights * values)``; over the micro-batches of a batch these add up to its own value.

        Tokens of weight 0 cannot poison the sum, whatever their value.
        """
        weights = self.at(x)
        return only(weights != 0, weights * values).sum()


@dataclass(frozen=True)
class Regularizer(Part):
    """A penalty per token, aggregated like the objective it belongs to. Penalties add up and scale."""

    kind: ClassVar[str] = "regularizer"

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        """Penalty of every token, with gradient."""
        raise NotImplementedError

    def __add__(self, other: Regularizer) -> Regularizer:
        return RegularizerSum(_terms(self, RegularizerSum) + _terms(other, RegularizerSum))

    def __mul__(self, factor: float) -> Regularizer:
        return ScaledRegularizer(factor, self)

    __rmul__ = __mul__


@dataclass(frozen=True)
class View(Part):
    """How the policy is asked about the actions of a batch, when not in the way it chose them.

    A view only holds numbers; the policy knows how to answer. ``old_logp`` is asked for in the same view.

    ``forbids``: what neither advantage nor objective may read (names as in ``requires``), since beside this view it
    would be of another distribution, or cannot be said.
    """

    kind: ClassVar[str] = "view"
    forbids: ClassVar[frozenset[str]] = frozenset()

    @property
    def own_learning_rate(self) -> float:
        """Of the parameters a policy has for this view alone (``policy.view_parameters``)."""
        return 0.0

    @property
    def records(self) -> frozenset[str]:
        """Figures the policy says of a batch before the update, in no view, for the view to read from the batch.

        Fields of both :class:`PolicyOutput` and :class:`Experience`; what a policy does not say is not recorded.
        """
        return frozenset()

    def figures(self, x: Experience) -> dict[str, float]:
        """What to log of a batch that is about to be looked at in this view."""
        return {}


@dataclass(frozen=True)
class Proximal(Part):
    """Whose log-probabilities stand in ``old_logp``, when not those of the policy as the update starts.

    A proximal only holds numbers; the trainer keeps the weights it asks for (:mod:`stratagem.training.anchors`).
    """

    kind: ClassVar[str] = "proximal"


class Head(NamedTuple):
    """Small maps from what a policy has read to a number.

    place: ``before`` a turn, at its first token; or ``after`` it, at its last one.  copies: how many, apart.
    """

    place: Literal["before", "after"]
    copies: int = 1


@dataclass(frozen=True)
class Estimator(Part):
    """What is learned beside the policy, batch after batch, for others to credit turns by.

    It names its heads and says what they minimise; the trainer keeps and checkpoints their weights
    (:mod:`stratagem.training.estimation`). Heads read what the policy read, and never move it. Of every batch
    they learn first, from the task's own rewards, and then fill in the fields of ``says``.

    learning_rate: of Adam.  steps: on each batch, every one on all of it; 0: they have learned enough.
    hidden: width of two hidden layers, 0 for a linear map; a table has neither.  max_grad_norm: longer gradients are
    scaled down to it.
    """

    kind: ClassVar[str] = "estimator"
    says: ClassVar[frozenset[str]] = frozenset()
    heads: ClassVar[Mapping[str, Head]] = {}

    learning_rate: Annotated[float, Ge(0)] = 1e-3
    steps: Annotated[int, Ge(0)] = 50
    hidden: Annotated[int, Ge(0)] = 0
    max_grad_norm: Annotated[float, Gt(0)] = 1.0

    @property
    def slow_rate(self) -> float | None:
        """By how much slow copies of the heads follow them after every step, in [0, 1]; None: there are none."""
        return None

    def loss(
        self,
        said: Mapping[str, Float[Tensor, "turns copies"]],
        slow: Mapping[str, Float[Tensor, "turns copies"]],
        x: Experience,
    ) -> Float[Tensor, ""]:
        """What to minimise on a whole batch.

        said: by head, for every turn, with gradient, 0 for a turn without tokens.  slow: of the slow copies, without.
        """
        raise NotImplementedError

    def fill(self, said: Mapping[str, Float[Tensor, "turns copies"]], x: Experience) -> Experience:
        """The batch with the fields of ``says``."""
        raise NotImplementedError

    def figures(self, said: Mapping[str, Float[Tensor, "turns copies"]], x: Experience) -> dict[str, float]:
        """What to log once a batch has been learned from."""
        return {}


@dataclass(frozen=True)
class Architecture(Part):
    """What a fresh policy is made of, for worlds that build one as a recipe asks for it.

    A policy that was saved is what it is; one of another architecture than the recipe's is refused.
    """

    kind: ClassVar[str] = "architecture"

    def build(self, task: Any, seed: int) -> Any:
        """A fresh policy that acts in this task. Raises :class:`InputError` for a task it cannot act in."""
        raise NotImplementedError


@dataclass(frozen=True)
class Objective(Part):
    """A loss to minimise. Objectives add up and scale."""

    kind: ClassVar[str] = "objective"
    tags: ClassVar[frozenset[str]] = frozenset({"learning.family.policy_gradient", "learning.data.all_solutions"})

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        """Loss and metrics of a batch, or a micro-batch's share of them."""
        raise NotImplementedError

    def blanked(self, out: PolicyOutput, x: Experience, *read: str) -> tuple[PolicyOutput, Experience]:
        """Output and batch with 0 in what tokens that may not train hold: no -inf or NaN there reaches a gradient.

        It is done to what this objective requires, and its parts that are no objectives themselves, and to ``read``:
        names as in ``requires``.
        """
        if x.mask is None:
            return out, x
        parts = [part for _, part in self.children() if not isinstance(part, Objective)]
        names = self.requires.union(read, *(part.needs() for part in parts))
        said = {name.removeprefix("output.") for name in names if name.startswith("output.")}
        return out.where(x.mask, said), x.blanked(names)

    def has_signal(self, x: Experience) -> bool:
        """Whether minimising it on this batch can move the policy at all."""
        return True

    def __add__(self, other: Objective) -> Objective:
        return ObjectiveSum(_terms(self, ObjectiveSum) + _terms(other, ObjectiveSum))

    def __mul__(self, factor: float) -> Objective:
        return ScaledObjective(factor, self)

    __rmul__ = __mul__


class Gauge(Protocol):
    """What a run lets its schedules measure. Nothing measured is learned from, and the policy stays as it is."""

    @property
    def objective(self) -> Objective:
        """Of the recipe, as it is now."""

    @property
    def learning_rate(self) -> float:
        """Of the policy, as it is now."""

    def sampled(self, sampler: Sampler) -> Experience | None:
        """A fresh batch of the policy as it is; None when it has no token. The budget counts what is sampled."""

    def completed(self, x: Experience) -> Experience:
        """A fresh batch with the fields that the recipe reads."""

    def gradient(
        self, objective: Objective, x: Experience, *, after: Sequence[Tensor] | None = None
    ) -> Sequence[Tensor]:
        """Of an objective on all of ``x``, by the policy's own parameters; 0 where it says nothing.

        after: where a plain gradient step along this gradient would lead, with the policy's learning rate.
        """

    def product(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
        """Inner product of two gradients, of all shards of the policy together."""


@dataclass(frozen=True)
class Schedule(Part):
    """Changes knobs of the recipe while it runs, and may have something measured on the way.

    A step goes: :meth:`before_batch`, the new values, the batch, its rewards shaped, :meth:`before_credit`, credit,
    :meth:`before_update`, optimizer steps. Figures that these return are logged with the step.
    """

    kind: ClassVar[str] = "schedule"

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """New values by dotted path, given the step about to run and the last step's metrics."""
        raise NotImplementedError

    def before_batch(self, step: int, gauge: Gauge) -> Mapping[str, float]:
        """Measure the policy before it acts."""
        return {}

    def before_credit(self, step: int, x: Experience, gauge: Gauge) -> tuple[Experience, Mapping[str, float]]:
        """The batch to learn from, with rewards weighed anew, say."""
        return x, {}

    def before_update(self, step: int, x: Experience, gauge: Gauge) -> Mapping[str, float]:
        """Measure on the batch about to be learned from, credited."""
        return {}


@dataclass(frozen=True)
class Optimization(Part):
    """How the policy's weights move.

    learning_rate: of the policy.  critic_learning_rate: of the value head (None: the same).
    member_rates: factors of both for the members of a team, in their order; 0: the member does not learn. Members
    beyond them have a factor of 1.
    max_grad_norm: gradients longer than this are scaled down to it, each member's of a team by itself.
    epochs: passes over each batch.  minibatches: pieces each pass is cut into, one optimizer step each; so a batch
    gets ``epochs * minibatches`` optimizer steps.  shuffle: what a mini-batch is drawn from, whole trajectories, whole
    groups (micro-batches then do not cut them either) or, when the policy has no memory, single turns.
    microbatch_tokens: most positions in one forward pass; bounds memory and changes no number. None: no bound.
    """

    kind: ClassVar[str] = "optimization"

    learning_rate: Annotated[float, Ge(0)] = 5e-4
    critic_learning_rate: Annotated[float, Ge(0)] | None = None
    member_rates: tuple[Annotated[float, Ge(0)], ...] = ()
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    epochs: Annotated[int, Ge(1)] = 1
    minibatches: Annotated[int, Ge(1)] = 1
    shuffle: Literal["trajectories", "groups", "turns"] = "trajectories"
    microbatch_tokens: Annotated[int, Ge(1)] | None = None

    def optimizer(
        self, policy: Iterable[Tensor], critic: Iterable[Tensor], hidden: Iterable[Tensor] = ()
    ) -> torch.optim.Optimizer:
        """A fresh optimizer with the policy's parameters in its first group and the critic's in its second.

        hidden: those of ``policy`` that are weights of linear maps between hidden features, [outputs, inputs, ...]; an
        optimizer that steps them in another way moves them to a third group. What it keeps for a parameter must be
        tensors, and its settings plain data, for that is what a checkpoint holds.
        """
        raise NotImplementedError

    def learning_rates(self) -> tuple[float, ...]:
        """Of the optimizer's groups, in their order."""
        critic = self.critic_learning_rate
        return self.learning_rate, self.learning_rate if critic is None else critic


# ---- sums and multiples ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdvantageSum(Advantage):
    """``sum(terms)``."""

    terms: tuple[Advantage, ...]

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return reduce(torch.add, (term(x) for term in self.terms))


@dataclass(frozen=True)
class ScaledAdvantage(Advantage):
    """``factor * term``."""

    factor: float
    term: Advantage

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self.factor * self.term(x)


@dataclass(frozen=True)
class CorrectionProduct(Correction):
    """``prod(factors)``, 1 without any. A figure of two factors is named after the later one's part and place."""

    factors: tuple[Correction, ...] = ()

    def objection(self, ratio: Ratio) -> str | None:
        return next((said for factor in self.factors if (said := factor.objection(ratio)) is not None), None)

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return self.judge(out, x)[0]

    def judge(
        self, out: PolicyOutput, x: Experience
    ) -> tuple[Float[Tensor, " tokens"], dict[str, Float[Tensor, " tokens"]]]:
        weights, figures = torch.ones_like(out.logp.detach()), dict[str, Tensor]()
        for place, factor in enumerate(self.factors):
            weight, said = factor.judge(out, x)
            weights = weights * weight
            for name, value in said.items():
                figures[f"{factor.part_name()}_{place}/{name}" if name in figures else name] = value
        return weights, figures


def _factors(correction: Correction) -> tuple[Correction, ...]:
    return correction.factors if isinstance(correction, CorrectionProduct) else (correction,)


@dataclass(frozen=True)
class RegularizerSum(Regularizer):
    """``sum(terms)``."""

    terms: tuple[Regularizer, ...]

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return torch.stack([term(out, x) for term in self.terms]).sum(0)


@dataclass(frozen=True)
class ScaledRegularizer(Regularizer):
    """``factor * term``."""

    factor: float
    term: Regularizer

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return self.factor * self.term(out, x)


@dataclass(frozen=True)
class ObjectiveSum(Objective):
    """``sum(terms)``. A metric that two terms have is named after the later one's part and place, ``part_1/metric``."""

    tags: ClassVar[frozenset[str]] = frozenset()

    terms: tuple[Objective, ...]

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        losses = [term(out, x) for term in self.terms]
        metrics: dict[str, Tensor] = {}
        for place, (term, loss) in enumerate(zip(self.terms, losses, strict=True)):
            for name, value in loss.metrics.items():
                metrics[f"{term.part_name()}_{place}/{name}" if name in metrics else name] = value
        return Loss(torch.stack([loss.loss for loss in losses]).sum(), metrics)

    def has_signal(self, x: Experience) -> bool:
        return any(term.has_signal(x) for term in self.terms)


@dataclass(frozen=True)
class ScaledObjective(Objective):
    """``factor * term``; its metrics stay those of the term."""

    tags: ClassVar[frozenset[str]] = frozenset()

    factor: float
    term: Objective

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        loss = self.term(out, x)
        return Loss(self.factor * loss.loss, loss.metrics)

    def has_signal(self, x: Experience) -> bool:
        return self.factor != 0 and self.term.has_signal(x)


def _terms(value: Any, sum_class: Any) -> tuple[Any, ...]:
    return value.terms if isinstance(value, sum_class) else (value,)
