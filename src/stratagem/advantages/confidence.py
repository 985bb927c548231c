"""An advantage that pays for what the policy was not sure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class ConfidenceDiscounted(Advantage):
    """``A_i + strength (c - c_i)``: what the policy was sure to answer gains less (ProGRPO, arXiv 2602.05281).

    ``c_i = exp(mean of the lowest log-probabilities of answer i)``, in [0, 1] for tokens: of the ``share`` of its
    tokens that were least likely, ``ceil(share n)`` of ``n`` that may train and at least one. Log-probabilities are
    those of the policy before the update, or else of whoever sampled. A mean of probabilities would hide a few
    unlikely tokens among many that follow by themselves.

    ``c`` is the same for answers to one prompt, so among them only ``c_i`` tells answers apart. As reported, it is the
    confidence in the *prompt*, by the same formula on the prompt's tokens (``x.prompt_confidence``): language policies
    say it, of all they read before they first act. Other policies read no prompt. Then, and for a prompt of one token,
    ``c`` is the mean of the group's ``c_i``, with which the term adds up to 0 over the group and pushes it neither up
    nor down as a whole.

    Groups in which all returns are 0 keep their ``A``. Groups that were all right have a credit, too: they learn to
    prefer their less likely answers. Wrong answers of other groups are paid like right ones unless ``rewarded_only``.

    How ``c_i`` is formed from its lowest log-probabilities is a reconstruction from the paper's words; its formula and
    its ``strength`` were not available.

    of: the advantage it is added to.  strength: 0 is ``of``.  share: in (0, 1].
    prompt: where ``c`` is from. ``auto``: the policy, if it says so, else the group's mean. ``policy``: from it alone;
    who cannot say it is refused. None: the group's mean. A number in [0, 1]: that.
    rewarded_only: add nothing to answers whose return is not above 0; not the paper's.

    Raises ``ValueError`` when log-probabilities are missing, or with ``policy`` the confidence in the prompts, and when
    the log-probability of a token that may train is not finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"behavior_logp"})
    minimum_group: ClassVar[int] = 2

    of: Advantage = GroupStandardized()
    strength: Annotated[float, Ge(0)] = 0.5
    share: Annotated[float, Gt(0), Le(1)] = 0.2
    prompt: Annotated[float, Ge(0), Le(1)] | Literal["auto", "policy"] | None = "auto"
    rewarded_only: bool = False

    def needs(self) -> frozenset[str]:
        """And ``prompt_confidence``, where nothing may stand in for it."""
        return super().needs() | ({"prompt_confidence"} if self.prompt == "policy" else frozenset())

    @property
    def prompt_share(self) -> float | None:
        return self.share if self.prompt in ("auto", "policy") else None

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = self.of(x)
        if self.strength == 0:
            return credit
        group, returns = x.group_of_trajectory, x.returns
        lowest, lengths = least_likely(x, self.share)
        spoke = lengths > 0
        own = torch.where(spoke, lowest.exp(), 0.0)
        usual = group.sum(own) / group.sum(spoke.double()).clamp(min=1)
        prompt = self._of_prompt(x, group.spread(usual))
        paid = group.spread(group.max((returns != 0).long()) > 0)
        if self.rewarded_only:
            paid = paid & (returns > 0)
        addend = torch.where(paid, self.strength * (prompt - own), 0.0)
        return x.of_learnable(credit + x.to_tokens(trajectory=addend.to(credit.dtype)))

    def _of_prompt(self, x: Experience, usual: Float[Tensor, " trajectories"]) -> Float[Tensor, " trajectories"]:
        """The confidence in the prompt of every trajectory; ``usual`` where nothing else is known."""
        if isinstance(self.prompt, float):
            return torch.full_like(usual, self.prompt)
        if self.prompt == "policy" and x.prompt_confidence is None:
            raise ValueError(f"{self.part_name()} by the policy needs x.prompt_confidence")
        if self.prompt is None or x.prompt_confidence is None:
            return usual
        said = x.prompt_confidence.to(usual.dtype)
        return torch.where(said.isnan(), usual, said)


def least_likely(x: Experience, share: float) -> tuple[Float[Tensor, " trajectories"], Float[Tensor, " trajectories"]]:
    """Mean log-probability of the share of each trajectory's tokens that was least likely, and how many may train.

    Both in float64; 0 for a trajectory without a token that may train. Tokens are put in order by their
    log-probabilities in float32.
    """
    said = x.behavior_logp if x.old_logp is None else x.old_logp
    if said is None:
        raise ValueError("the confidence of an answer needs x.old_logp or x.behavior_logp")
    logp, trajectory = said, x.trajectory_of_token.labels
    if x.mask is not None:
        logp, trajectory = logp[x.mask], trajectory[x.mask]
    if not bool(logp.isfinite().all()):
        bad = int(torch.nonzero(x.learnable()).squeeze(1)[~logp.isfinite()][0])
        raise ValueError(f"log-probability of token {bad} is not finite")
    return mean_of_lowest(logp, trajectory, x.trajectories, share)


def mean_of_lowest(
    values: Float[Tensor, " rows"], owner: Int[Tensor, " rows"], owners: int, share: float
) -> tuple[Float[Tensor, " owners"], Float[Tensor, " owners"]]:
    """Mean of the share of each owner's values that is lowest, and how many values it has, both in float64.

    Of ``n`` values ``ceil(share n)``; 0 for an owner of none. They are put in order in float32.

    owner: of every value, ascending.  owners: how many there are.
    """
    lengths = torch.bincount(owner, minlength=owners)
    # A share of a number of tokens may be a whole number and miss it by a rounding.
    wanted = (share * lengths.double() * (1 - 1e-12)).ceil().long()
    # One sort of integers, by owner and then by value, is ten times as fast as two stable ones.
    order = ((owner << 32) + _ascending(values)).argsort()
    place = torch.arange(len(order), device=order.device) - (lengths.cumsum(0) - lengths)[owner]
    chosen = order[place < wanted[owner]]
    total = torch.zeros(owners, dtype=torch.float64, device=values.device)
    total.index_add_(0, owner[chosen], values[chosen].double())
    return total / wanted.clamp(min=1), lengths.double()


def _ascending(values: Float[Tensor, " rows"]) -> Tensor:
    """Integers from 0 below 2^32 in the order of the values: a float's bits, those of a negative one turned around."""
    bits = values.detach().float().contiguous().view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() + 2**31
