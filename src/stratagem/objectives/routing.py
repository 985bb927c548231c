"""Routing replay: a mixture of experts is asked with the experts that were active before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stratagem.experience import Experience
from stratagem.parts import View


@dataclass(frozen=True)
class RoutingReplay(View):
    """A mixture of experts answers with the experts in ``x.experts`` instead of those its router would choose now.

    The weights among them are still the present router's, softmax over the recorded set, so that gradient reaches the
    router. A token without a record (-1, or a batch without any) is routed freely; ``routing/unrecorded`` is the share
    of those. A dense policy has nothing to replay and answers as ever (arXiv 2512.01374, section 3.2).

    source: ``training`` replays what the policy chose as the update began (R2): the first mini-batch sees the policy as
    it is. ``rollout`` replays what the inference engine chose as it sampled (R3): engines then agree better, and the
    policy that is trained is another one from the first mini-batch on.
    """

    source: Literal["training", "rollout"] = "training"

    @property
    def records(self) -> frozenset[str]:
        """The policy's own experts, unless those of the rollout are replayed."""
        return frozenset({"experts"}) if self.source == "training" else frozenset()

    def figures(self, x: Experience) -> dict[str, float]:
        """Share of the tokens that are routed freely."""
        if x.experts is None:
            return {"routing/unrecorded": 1.0}
        return {"routing/unrecorded": float((x.experts < 0).flatten(1).any(1).float().mean()) if x.tokens else 0.0}
