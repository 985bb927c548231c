"""People who want different things: a few of someone's comparisons tell a latent type, which decides the reward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.preferences.learned.reward_models import Comparisons, comparison_loss, minimise, perceptron
from stratagem.seeding import generator
from stratagem.validation import validate_fields

LARGEST_LOG_VARIANCE = 10.0
"""Logarithms of variances are kept between this and its negative."""


class Belief(NamedTuple):
    """A diagonal Gaussian over the type of every user: ``N(mean, exp(log_variance))``."""

    mean: Float[Tensor, "*users latent"]
    log_variance: Float[Tensor, "*users latent"]

    def divergence(self, prior: Belief) -> Float[Tensor, "*users"]:
        """``KL(self || prior) = 1/2 sum_d (v / v' - 1 - log(v / v') + (m - m')^2 / v')``, nats."""
        apart = self.log_variance - prior.log_variance
        shift = (self.mean - prior.mean).square() * (-prior.log_variance).exp()
        return 0.5 * (apart.exp() - 1 - apart + shift).sum(-1)

    def entropy(self) -> Float[Tensor, "*users"]:
        """``1/2 sum_d log(2 pi e v)``, nats."""
        return 0.5 * (math.log(2 * math.pi * math.e) + self.log_variance).sum(-1)

    def sample(self, count: int, source: torch.Generator) -> Float[Tensor, "count *users latent"]:
        """Independent draws."""
        return self.at(torch.randn(count, *self.mean.shape, generator=source))

    def at(self, noise: Float[Tensor, "*count latent"]) -> Float[Tensor, "*count latent"]:
        """``mean + exp(log_variance / 2) noise``, with gradients."""
        return self.mean + (self.log_variance / 2).exp() * noise


@paper(
    "2408.10075",
    title="Personalizing Reinforcement Learning from Human Feedback with Variational Preference Learning",
    family="preferences",
    roles=("reward", "sampler", "memory"),
    year=2024,
    name="vpl",
    tags=("reward.source.preferences", "reward.verifier.model"),
)
@dataclass(frozen=True)
class LatentUsers:
    """VPL: a reward ``r(s, z)`` with the user's type ``z`` as a few comparisons tell it: a variational autoencoder.

    ``max E_(z ~ q(z | pairs)) sum_i log P(label_i | z) - w KL(q || p(z))``, ``P(first > second | z) = sigmoid(sum_t
    r(s_t, z) - sum_t r(s'_t, z))``, the same ``z`` for all pairs of a user. No user has to be named: every set of pairs
    is one person's, and whose is not known.

    latent: numbers in ``z``. 0: everybody is one person, which is ordinary reward learning (Bradley-Terry).
    hidden: width of the networks.
    encoder: ``flat``, three layers that read all pairs in the order in which they were answered, for one number of
    pairs; or ``set``, which adds up what each pair says, for any number. The flat one is the paper's for control; of
    its language models' set encoder we have no details, and the sum is ours.
    decoder: ``reward``, as above; or ``classifier``: ``D(s, s', z) - D(s', s, z)`` in place of a difference of
    rewards, which admits preferences no reward has. The difference of both orders is ours, so that the two
    probabilities add up to 1.
    scaling: what returns are divided by before they are compared.
    kl_weight: ``w``, reached at the end of each of ``cycles`` cosine ramps. The released code leaves out the 1/2 in
    the KL of Gaussians: its weight of 1 is 2 here.
    prior: the standard normal one, or a Gaussian whose mean and variance are learned, too. The paper also has a flow.
    steps, batch, learning_rate: of Adam. Published runs are of 500 epochs with sets of 8 to 16 pairs.

    Raises :class:`InputError` for values out of range.
    """

    latent: Annotated[int, Ge(0)] = 32
    hidden: Annotated[int, Ge(1)] = 256
    encoder: Literal["flat", "set"] = "flat"
    decoder: Literal["reward", "classifier"] = "reward"
    scaling: Annotated[float, Gt(0)] = 1.0
    kl_weight: Annotated[float, Ge(0)] = 1.0
    cycles: Annotated[int, Ge(1)] = 4
    prior: Literal["standard", "learned"] = "standard"
    steps: Annotated[int, Ge(1)] = 2000
    batch: Annotated[int, Ge(1)] = 256
    learning_rate: Annotated[float, Gt(0)] = 1e-3

    def __post_init__(self) -> None:
        validate_fields(self, "vpl")

    def fit(self, data: Comparisons, seed: int = 0) -> UserModel:
        """Learn from sets of pairs, each set answered by one person.

        With the set encoder a user is known by some of the pairs of the set, any number of them, and all are predicted.

        Raises :class:`InputError` unless the pairs lie in sets.
        """
        if data.label.ndim != 2 or not data.label.numel():
            raise InputError(f"vpl: labels have shape {tuple(data.label.shape)}; they must be (sets, pairs)")
        sets, pairs, steps, features = data.first.shape
        model = UserModel(self, pairs, steps, features, seed)

        def loss(step: int) -> Tensor:
            source = generator(seed, "users", step)
            rows = torch.randint(sets, (self.batch,), generator=source) if sets > self.batch else torch.arange(sets)
            shown = int(torch.randint(1, pairs + 1, (), generator=source)) if self.encoder == "set" else pairs
            noise = torch.randn(len(rows), self.latent, generator=source)
            return model.loss(data.select(rows), noise, self.kl_weight * self.ramp(step), shown)

        minimise(loss, model.parameters(), self.steps, self.learning_rate)
        return model

    def ramp(self, step: int) -> float:
        """``(1 + cos(pi (t - 1))) / 2``, ``t`` the share of the cycle that is over: from 0 to 1, and again."""
        length = max(self.steps / self.cycles, 1.0)
        return (1 + math.cos(math.pi * ((step % length) / length - 1))) / 2


class UserModel(nn.Module):
    """What :class:`LatentUsers` learns: from comparisons to a belief about the user, from a type to a reward.

    pairs: of a set the flat encoder reads.  steps, features: of every segment.
    """

    def __init__(self, config: LatentUsers, pairs: int, steps: int, features: int, seed: int = 0) -> None:
        super().__init__()
        self.config, self.pairs, self.steps, self.features = config, pairs, steps, features
        width, hidden, told = config.hidden, (config.hidden,) * 2, 2 * steps * features + 1

        def leaky() -> nn.Module:
            return nn.LeakyReLU(0.2)

        if config.latent:
            flat, both = config.encoder == "flat", 2 * config.latent
            self.reader = perceptron((pairs * told if flat else told, *hidden, width), generator(seed, "reader"), leaky)
            self.heads = perceptron((width, both) if flat else (width, width, both), generator(seed, "heads"), leaky)
        sides = 2 if config.decoder == "classifier" else 1
        self.decoder = perceptron((sides * features + config.latent, *hidden, 1), generator(seed, "decoder"), leaky)
        learned = config.prior == "learned"
        self.prior_mean = nn.Parameter(torch.zeros(config.latent), requires_grad=learned)
        self.prior_log_variance = nn.Parameter(torch.zeros(config.latent), requires_grad=learned)

    # ---- who is asking ---------------------------------------------------------------------------------------------

    @property
    def prior(self) -> Belief:
        """What is believed of somebody who has answered nothing."""
        bound = LARGEST_LOG_VARIANCE
        return Belief(self.prior_mean, self.prior_log_variance.clamp(-bound, bound))

    def belief(self, answered: Comparisons) -> Belief:
        """``q(z | pairs)`` of every set; the prior where there are no pairs.

        Raises :class:`InputError` for segments of another size than those learned from and, with a flat encoder, for
        another number of pairs.
        """
        *sets, pairs, steps, features = answered.first.shape
        if (steps, features) != (self.steps, self.features):
            raise InputError(
                f"vpl: segments have {steps} steps of {features} features; this model reads {self.steps} of "
                f"{self.features}"
            )
        if pairs == 0 or not self.config.latent:
            return Belief(*(figure.expand(*sets, -1) for figure in self.prior))
        flat = self.config.encoder == "flat"
        if flat and pairs != self.pairs:
            raise InputError(f"vpl: {pairs} pairs were answered; a flat encoder reads {self.pairs}, a set encoder any")
        # A label is told as -1, 0 or 1, so that swapping a pair changes its sign.
        label = 2 * answered.label.unsqueeze(-1).to(answered.first.dtype) - 1
        told = torch.cat([answered.first.flatten(-2), answered.second.flatten(-2), label], -1)
        if flat:
            read = self.heads(nn.functional.leaky_relu(self.reader(told.flatten(-2)), 0.2))
        else:
            read = self.heads(self.reader(told).sum(-2))
        mean, log_variance = read.chunk(2, -1)
        return Belief(mean, log_variance.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE))

    # ---- what they want --------------------------------------------------------------------------------------------

    def difference(
        self,
        first: Float[Tensor, "*pairs steps features"],
        second: Float[Tensor, "*pairs steps features"],
        latent: Float[Tensor, "*pairs latent"],
    ) -> Float[Tensor, "*pairs"]:
        """The logit of ``P(first > second | z)``; ``latent`` broadcasts over the pairs."""
        latent = latent.unsqueeze(-2)
        if self.config.decoder == "reward":
            logit = self._decoded(first, latent=latent) - self._decoded(second, latent=latent)
        else:
            logit = self._decoded(first, second, latent=latent) - self._decoded(second, first, latent=latent)
        return logit.sum(-1) / self.config.scaling

    def reward(
        self,
        states: Float[Tensor, "*batch features"],
        latent: Float[Tensor, "*batch latent"],
        among: Float[Tensor, "compared features"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The reward of states to users of these types, without gradients; ``latent`` broadcasts over the states.

        among: None: ``r(s, z)`` itself, whose scale may differ from user to user. Or states to compare with, of which
        there should be many (1000 in published runs): the mean ``P(s > s' | z)``, an expected win rate in [0, 1] that
        is of one scale for all users. Where ``s`` is one of ``n`` of them, it ties with itself, which moves all by up
        to ``1 / 2n``.

        Raises :class:`InputError` for a classifier and nothing to compare with.
        """
        if among is None and self.config.decoder == "classifier":
            raise InputError("vpl: a classifier has no reward of its own; say among which states it is to be compared")
        with torch.no_grad():
            if among is None:
                return self._decoded(states, latent=latent)
            one = states.unsqueeze(-2).unsqueeze(-2)
            logit = self.difference(one, among.unsqueeze(-2), latent.unsqueeze(-2))
            return torch.sigmoid(logit).mean(-1)

    def _decoded(self, *sides: Tensor, latent: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(*(side.shape[:-1] for side in sides), latent.shape[:-1])
        inputs = [each.expand(*shape, each.shape[-1]) for each in (*sides, latent)]
        said: Tensor = self.decoder(torch.cat(inputs, -1))
        return said.squeeze(-1)

    # ---- learning and judging --------------------------------------------------------------------------------------

    def loss(
        self, data: Comparisons, noise: Float[Tensor, "sets latent"], kl_weight: float, shown: int | None = None
    ) -> Float[Tensor, ""]:
        """Mean over sets of ``sum_i -log P(label_i | z) + kl_weight KL(q(z | pairs) || prior)``.

        shown: by how many pairs, the first of each set, the user is known; None: by all.
        """
        known = data if shown is None else Comparisons(*(side[:, :shown] for side in _sides(data)))
        belief = self.belief(known)
        logit = self.difference(data.first, data.second, belief.at(noise).unsqueeze(1))
        return (comparison_loss(logit, data.label).sum(-1) + kl_weight * belief.divergence(self.prior)).mean()

    @torch.no_grad()
    def probability(self, answered: Comparisons, first: Tensor, second: Tensor) -> Float[Tensor, "sets pairs"]:
        """``P(first > second)`` at the mean of the belief that each user's answers lead to."""
        return torch.sigmoid(self.difference(first, second, self.belief(answered).mean.unsqueeze(-2)))

    @torch.no_grad()
    def figures(self, answered: Comparisons, asked: Comparisons) -> dict[str, float]:
        """How well users' further answers are predicted, and whether that is for knowing them.

        ``accuracy`` of the side that is said to be preferred; ``accuracy_as_another`` with the types passed on to the
        next user (the same: ``z`` is ignored); ``kl`` and ``entropy`` of the beliefs; ``contradictions`` in what was
        answered, which are learned from like anything else.
        """
        belief = self.belief(answered)
        found = {}
        for name, mean in (("accuracy", belief.mean), ("accuracy_as_another", belief.mean.roll(1, 0))):
            logit = self.difference(asked.first, asked.second, mean.unsqueeze(-2))
            found[name] = float(((logit.sign() * (asked.label - 0.5).sign() + 1) / 2).mean())
        return found | {
            "kl": float(belief.divergence(self.prior).mean()),
            "entropy": float(belief.entropy().mean()),
            "contradictions": float(answered.contradictions()),
        }


def _sides(data: Comparisons) -> tuple[Tensor, Tensor, Tensor]:
    return data.first, data.second, data.label
