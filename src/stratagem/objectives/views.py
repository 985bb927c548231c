"""Other ways to ask a policy about what it did, for losses on something else than what it acted by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stratagem.parts import View


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
