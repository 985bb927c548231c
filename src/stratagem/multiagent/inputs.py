"""What agents read to act again on a batch: what each saw, the state for critics, and which agent it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.control.inputs import ControlInputs


@dataclass(frozen=True, eq=False)
class AgentInputs(ControlInputs):
    """Observations of all turns, trajectory after trajectory; a trajectory is what one agent did in one episode.

    state: of the whole game, for critics.  agent: who acted.  legal: which actions it might take; of continuous ones
    there are no columns.  noted: what a policy noted as it acted and reads again to say how likely that was.
    final_observation, final_state, final_legal: after the last turn of a trajectory; None once turns stand alone.
    memory: what the agent remembered before the first turn of a trajectory, zeros where that begins an episode. One
    that a segment has cut off goes on with what was remembered as it was acted, by the weights of that time. None for
    agents that remember nothing.
    """

    state: Float[Tensor, "turns state_features"]
    agent: Int[Tensor, " turns"]
    legal: Bool[Tensor, "turns actions"]
    noted: Float[Tensor, "turns noted"] | None = None
    final_observation: Float[Tensor, "trajectories features"] | None = field(
        default=None, metadata={"level": "trajectory"}
    )
    final_state: Float[Tensor, "trajectories state_features"] | None = field(
        default=None, metadata={"level": "trajectory"}
    )
    final_legal: Bool[Tensor, "trajectories actions"] | None = field(default=None, metadata={"level": "trajectory"})
    memory: Float[Tensor, "trajectories memory"] | None = field(default=None, metadata={"level": "trajectory"})

    def by_turn(self) -> Self:
        """As of a control policy. Raises ``ValueError`` for agents with a memory, who read whole trajectories."""
        if self.memory is not None:
            raise ValueError(
                "agents with a memory cannot be taken apart by turn; shuffle trajectories or groups instead"
            )
        return super().by_turn()
