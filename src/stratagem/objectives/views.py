"""Other ways to ask a policy about what it did, for losses on something else than what it acted by."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from stratagem.errors import InputError
from stratagem.experience import PolicyOutput
from stratagem.parts import View

Stream = Literal["residual", "attention", "feed_forward", "attention_input", "feed_forward_input"]


@dataclass(frozen=True)
class ResponseOnly(View):
    """``log P(y_t | y_<t)``: a response without what was read before it, the pre-train space of arXiv 2604.14142.

    Everything before the first action of a trajectory, the opening of the reply in the chat format included, gives way
    to one token that begins a text; positions restart there, and the first action is predicted from that token alone.
    What is read between later turns stays: it is no prompt, and without it the turns would not follow one another.

    A critic is not asked in this view, and ``behavior_logp`` is of the policy that saw the prompt: an advantage or an
    objective that reads either is refused.
    """

    forbids: ClassVar[frozenset[str]] = frozenset({"behavior_logp", "value", "output.value", "output.median"})


@dataclass(frozen=True)
class InternalLayer(View):
    """``softmax(E_u H^l)``: what the model would say if it ended behind layer ``l`` (arXiv 2512.19673).

    ``H^l = H^{l-1} + A^l + F^l`` is the residual stream, from the embeddings ``H^0`` to ``H^L``, ``E_u`` the output
    embedding. It is applied to the raw stream, and behind the final norm only for ``l = L``, which is the policy itself
    (as in the released code). Nothing above the layer is computed, so nothing there has a gradient: with gradients of
    None an optimizer does not touch it, whatever its momentum or weight decay.

    layer: ``l``, from 0, the embeddings. The one that configurations counting from 0 call 5 is 6 here.
    stream: ``residual``; or a module's policy: of the output of the layer's ``attention`` (``A^l``) or ``feed_forward``
    (``F^l``) alone, or, to compare with, of its normalised input. These exist from layer 1 on, and only in models whose
    residual stream is that sum.

    A critic is not asked in this view, and ``behavior_logp`` is of the whole model: an advantage or an objective that
    reads either is refused.
    """

    forbids: ClassVar[frozenset[str]] = frozenset({"behavior_logp", "value", "output.value", "output.median"})

    layer: Annotated[int, Ge(0)]
    stream: Stream = "residual"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer == 0 and self.stream != "residual":
            raise InputError(f"internal_layer.layer = 0: has no {self.stream}; the first layer is 1")


@dataclass(frozen=True)
class Perturbed(View):
    """``h^l + sigma_l xi^l`` in the place of every layer's input, ``xi ~ N(0, I)`` (arXiv 2603.19470).

    Only in forward passes with gradients, which are those of the update: ``old_logp``, the reference, rollouts and
    evaluations are not perturbed. ``sigma_l = exp(omega_l)``, at most ``largest`` times the root mean square of the
    layer's input; ``omega_l`` is a parameter of the policy, one for each layer, and learned with a rate of its own and
    without weight decay. A run must begin with this view to learn them.

    The noise of a layer follows from the run's seed, the batch, the optimizer step, the number of the micro-batch and
    the layer, so it is the same when activations are computed again for the backward pass; how a batch is cut does
    change it. Tokens that trajectories of a group share are computed once, and share their noise.

    initial: ``sigma`` at the beginning; 0 is no noise, for good.
    learning_rate: of ``omega``.
    largest: bound on ``sigma`` in units of the signal. The paper's own bound, if it has one, was not available: this
    one is ours, and far above any published ``sigma``.
    layers: whose input is perturbed, counted from 1; None: all.
    """

    initial: Annotated[float, Ge(0)] = 1e-2
    learning_rate: Annotated[float, Ge(0)] = 1e-6
    largest: Annotated[float, Gt(0)] = 1.0
    layers: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] | None = None

    @property
    def own_learning_rate(self) -> float:
        return self.learning_rate


@dataclass(frozen=True)
class AnswerHead(View):
    """``v = W h`` of what was read so far, no log-probabilities: how reward and preference models are asked.

    ``h`` is the last hidden state at a token, ``v`` is ``output.embedding`` there; at the last token of an answer it
    is of prompt and answer as a whole. ``W`` [dims, hidden] is a parameter of the policy that is saved with it, and
    learned with a rate of its own and without weight decay. A run must begin with this view. Of tokens nothing else is
    said, and ``logp`` is NaN.

    dims: 1 is a score; an even number is a preference embedding (:func:`stratagem.preferences.models.lead`).
    radius: length to which ``v`` is scaled; None: as it is.
    learning_rate: of ``W``.

    Raises :class:`InputError` for another odd number, and for a score with a radius.
    """

    forbids: ClassVar[frozenset[str]] = frozenset(
        {f"output.{entry.name}" for entry in fields(PolicyOutput)} - {"output.logp", "output.embedding"}
        | {"behavior_logp", "confidence", "entropy", "old_logp", "old_mean_logp", "past_logp", "previous_logp"}
        | {"ref_direction", "ref_log_probs", "ref_logp", "value"}
    )

    dims: Annotated[int, Ge(1)] = 1
    radius: Annotated[float, Gt(0)] | None = None
    learning_rate: Annotated[float, Ge(0)] = 5e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dims > 1 and self.dims % 2:
            raise InputError(f"answer_head.dims = {self.dims}: must be 1, a score, or even, a preference embedding")
        if self.dims == 1 and self.radius is not None:
            raise InputError(f"answer_head.radius = {self.radius}: a score has none, since all would be the same")

    @property
    def own_learning_rate(self) -> float:
        return self.learning_rate
