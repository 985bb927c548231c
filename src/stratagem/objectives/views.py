"""Other ways to ask a policy about what it did, for losses on something else than what it acted by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from stratagem.errors import InputError
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
