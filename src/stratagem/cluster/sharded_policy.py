"""A language policy whose weights, gradients and moments are divided among the processes of a group (FSDP)."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

from stratagem.cluster.process_group import ShardGroup
from stratagem.cluster.weights import Adapters
from stratagem.errors import InputError
from stratagem.experience import PolicyOutput
from stratagem.language.inputs import TokenInputs
from stratagem.language.layers import decoder_layers
from stratagem.language.policy import LanguagePolicy, ReferencePolicy
from stratagem.language.team import Team
from stratagem.objectives.views import AnswerHead, Perturbed
from stratagem.parts import View
from stratagem.shards import divided_like, own_part, whole
from stratagem.training.world import check_asked

_MERGED, _ADAPTERS, _BELOW = range(3)
"""What shard 0 may give away: weights with adapters merged, adapters, or what lies below them."""

WORDS = 6
"""That shard 0 may tell each member of a policy: to begin with one of these, and to go on."""


def shard(policy: LanguagePolicy | Team, group: ShardGroup, *, offload: bool = False) -> None:
    """Divide a policy among the group, every shard its own: from now on it is a :class:`ShardedPolicy`.

    Like ``fully_shard`` this changes the policy itself, so that whatever holds it (a world, a team) has the divided
    one. The weights that shard 0 gives are everyone's. Until then every process holds the model whole, best in main
    memory: from there one layer after the other comes to the device, to be divided there. That was tried on processors
    alone. Engines that copy the policy are made before.

    offload: keep the divided weights, their gradients and the optimizer's state in main memory, and bring a layer to
    the device while it computes. It was never run on a CUDA device by the tests here.

    Raises :class:`InputError` for a model whose layers cannot be told, and for ``offload`` without CUDA.
    """
    if offload and group.device.type != "cuda":
        raise InputError(f"offload: is from a CUDA device to main memory, and this shard computes on {group.device}")
    for number, member in enumerate(policy.members if isinstance(policy, Team) else [policy]):
        if isinstance(member, ShardedPolicy):
            raise InputError("this policy is divided among shards already")
        member.answer_head = None
        for tensor in member.state_dict().values():
            dist.broadcast(tensor, 0)
        _divide(member, group, number, offload)


class ShardedPolicy(LanguagePolicy):
    """A :class:`LanguagePolicy` that every process of a group has a part of; all of them must ask it the same.

    Asked about a batch, each shard computes the rows of its share of the trajectories, and all of them get all rows.
    So each computes the whole loss, and what depends on it stays alike; gradients are of the own rows and add up over
    the group to the gradient of the loss. Shares hold about as many tokens, and their trajectories are neighbours, so
    that an opening that several begin with is computed once in a share.

    Tensors of its ``state_dict`` are divided; :func:`stratagem.shards.whole` brings one together, and a state of whole
    tensors can be loaded. A perturbed view is missing: each shard would draw noise of its own. So
    is a head of answers, which is no part of the divided model.

    In bfloat16 the casts of all layers' weights are kept for the backward pass, two bytes for each weight on every
    shard, unless the policy has ``gradient_checkpointing``. FSDP's own mixed precision is not used instead: what a
    module gathers would be rounded as a whole, norms and the embedding among it.
    """

    views: ClassVar[tuple[type[View], ...]] = tuple(
        view for view in LanguagePolicy.views if view not in (AnswerHead, Perturbed)
    )

    _shards: _Shards

    @property
    def device(self) -> torch.device:
        """Where this shard computes, wherever its weights are kept."""
        return self._shards.group.device

    def about(
        self, inputs: TokenInputs, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """What the policy says about the actions of ``inputs``: all of it on every shard, each computing a share.

        Raises :class:`InputError` as :meth:`LanguagePolicy.about` does, and when shard 0 asks while it acts alone.
        """
        check_asked(self, also, view)
        group = self._shards.group
        if group.acting:
            raise InputError("a divided policy cannot be asked by its world alone, since it takes all shards to answer")
        if len(inputs.action_positions) == 0:
            return super().about(inputs, temperature, also, view)
        mine, counts = shares(inputs, group.size, group.rank)
        # A set of names has another order in every process.
        names = tuple(sorted(also))
        figures = self._shards.root(mine, temperature, names, view)
        own = counts[group.rank]
        return PolicyOutput(**{name: group.rows(figure[:own], counts) for name, figure in figures.items()})

    def view_parameters(self, view: View | None) -> list[nn.Parameter]:
        """None. Raises :class:`InputError` for the view that has some, and that this policy has not."""
        check_asked(self, (), view)
        return []

    def frozen(self) -> ReferencePolicy:
        """The policy as it is now, frozen and divided. With adapters no copy is made."""
        return super().frozen() if self.has_adapters else ReferencePolicy(self.copy(), without_adapters=False)

    @torch.no_grad()
    def copy(self) -> Self:
        """A copy that no longer moves, divided in the same way."""
        shards = self._shards
        copied: Any = shards.blank()
        copied.tokenizer = self.tokenizer
        _divide(copied, shards.group, shards.number, shards.offload)
        for mine, other in zip(self.parameters(), copied.parameters(), strict=True):
            own_part(other).copy_(own_part(mine))
        return copied  # type: ignore[no-any-return]

    # ---- whole weights ----------------------------------------------------------------------------------------------

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Whole tensors, one at a time, as :meth:`LanguagePolicy.weights` has them; all shards must go through them.

        While shard 0 serves them to an engine (:meth:`ShardGroup.lead`), the others follow every step it takes.
        """
        return self._given(_MERGED)

    def unmerged(self, *, adapters: bool) -> Iterator[tuple[str, Tensor]]:
        """Whole tensors as :meth:`LanguagePolicy.unmerged` has them; everything else as in :meth:`weights`."""
        return self._given(_ADAPTERS if adapters else _BELOW)

    def _given(self, what: int) -> Iterator[tuple[str, Tensor]]:
        group = self._shards.group
        if not group.acting:
            yield from self._whole(what)
            return
        if not group.serving:
            raise InputError("a divided policy gives its weights to an engine when it is served, and at no other time")
        word = WORDS * self._shards.number + 2 * what
        group.tell(word)
        tensors = self._whole(what)
        while True:
            group.tell(word + 1)
            item = next(tensors, None)
            if item is None:
                return
            yield item

    def follow(self, word: int) -> None:
        """Take part in what shard 0 does, by the word it told this policy: begin, or go on to the next tensor."""
        shards, (what, going_on) = self._shards, divmod(word, 2)
        if going_on:
            next(shards.followed, None)
        else:
            shards.followed = self._whole(what)

    @torch.no_grad()
    def _whole(self, what: int) -> Iterator[tuple[str, Tensor]]:
        if what == _MERGED and self.has_adapters:
            # Merged once they are whole, the bits are those that a worker comes to.
            adapters = Adapters.among(self.model, dict(self._whole(_ADAPTERS)))
            if adapters is not None:
                yield from adapters.into(self._whole(_BELOW))
                return
        given = super().weights() if what == _MERGED else super().unmerged(adapters=what == _ADAPTERS)
        for name, tensor in given:
            yield name, whole(tensor)

    def save(self, path: str | Path, card: str | None = None) -> None:
        """Write the model as :meth:`LanguagePolicy.save` does; all shards take part, and shard 0 writes."""
        group = self._shards.group
        kept = {name: tensor.cpu() for name, tensor in self.weights() if group.leads}
        group.lead(lambda: self.write(path, kept, card))


@dataclass(eq=False)
class _Shards:
    """What a divided policy knows of its group; a module would take ``root``, which holds the policy, for its part.

    number: of the policy in its team.  root: what computes.  pattern: the policy without its weights.
    followed: the weights that shard 0 is going through.
    """

    group: ShardGroup
    number: int
    offload: bool
    root: nn.Module
    pattern: LanguagePolicy
    followed: Iterator[tuple[str, Tensor]] = iter(())

    def blank(self) -> LanguagePolicy:
        """A policy of the pattern with memory for weights, of which only what is written to is taken."""
        return _with_parameters_on(self.pattern, "cpu")


class _Root(nn.Module):
    """The policy as FSDP wants it: one forward pass in, a dictionary of tensors out."""

    def __init__(self, policy: LanguagePolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self, inputs: TokenInputs, temperature: float, also: tuple[str, ...], view: View | None
    ) -> dict[str, Tensor]:
        out = LanguagePolicy.about(self.policy, inputs, temperature, also, view)
        figures = {name: getattr(out, name) for name in ("logp", *also)}
        # FSDP hangs its hooks on what comes out, and warns of a view, from which they may be lost.
        return {name: figure.clone() if figure._is_view() else figure for name, figure in figures.items()}


def shares(inputs: TokenInputs, size: int, rank: int) -> tuple[TokenInputs, list[int]]:
    """What shard ``rank`` of ``size`` reads, and how many of the actions each shard has.

    A shard without actions reads the shortest trajectory that has some, since it must take part in all that the others
    compute together. ``inputs`` must have actions.
    """
    actions = inputs.actions_per_trajectory
    tokens = torch.where(actions > 0, inputs.lengths, 0)
    end = tokens.cumsum(0)
    # A trajectory goes to the share that its middle lies in.
    owner = ((2 * end - tokens) * size).div(2 * int(end[-1]), rounding_mode="floor").clamp(max=size - 1)
    owner = owner.cummax(0).values
    counts = torch.zeros(size, dtype=torch.int64, device=actions.device).index_add(0, owner, actions).tolist()
    mine = torch.nonzero((owner == rank) & (actions > 0)).squeeze(1)
    if not counts[rank]:
        mine = torch.where(actions > 0, inputs.lengths, int(inputs.lengths.max()) + 1).argmin().unsqueeze(0)
    return inputs.select(mine), counts


def _divide(policy: LanguagePolicy, group: ShardGroup, number: int, offload: bool) -> None:
    layers = list(decoder_layers(policy.model))
    pattern = _with_parameters_on(policy, "meta")
    root = _Root(policy)
    kept = CPUOffloadPolicy() if offload else OffloadPolicy()
    for module in (*layers, root):
        # The root, too, so that what is found in the policy between two passes is always the divided weights.
        fsdp: Any = fully_shard(module, mesh=group.mesh, reshard_after_forward=True, offload_policy=kept)
        fsdp.set_gradient_divide_factor(1.0)
        fsdp.set_force_sum_reduction_for_comms(True)
    policy.__class__ = ShardedPolicy
    divided: Any = policy
    divided._shards = _Shards(group, number, offload, root, pattern)
    divided.register_load_state_dict_pre_hook(_divide_state)


def _with_parameters_on(policy: LanguagePolicy, device: str) -> LanguagePolicy:
    """A copy of a policy that is not divided, with parameters that nothing was written to, and no tokenizer."""
    memo: dict[int, Any] = {id(policy.tokenizer): None}
    for parameter in policy.parameters():
        empty = torch.empty_like(parameter, device=device, requires_grad=False)
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    copied: LanguagePolicy = copy.deepcopy(policy, memo)
    return copied


def _divide_state(module: nn.Module, state: dict[str, Any], prefix: str, *others: object) -> None:
    """Of the whole tensors about to be loaded take the part of this shard; those of another shape are refused later."""
    for name, own in module.state_dict().items():
        given = state.get(prefix + name)
        if given is not None and given.shape == own.shape:
            state[prefix + name] = divided_like(given, own)
