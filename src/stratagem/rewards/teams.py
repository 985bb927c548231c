"""What a team earned, for each of its agents."""

from __future__ import annotations

from dataclasses import dataclass

from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Reward


@dataclass(frozen=True)
class TeamReward(Reward):
    """Every agent is paid the mean of what all agents of its episode earned in the turn.

    It changes nothing where all are paid the same. Raises ``ValueError`` without ``episode``, by which trajectories of
    one episode are known.
    """

    def __call__(self, x: Experience) -> Experience:
        if x.episode is None:
            raise ValueError(f"{self.part_name()} needs x.episode")
        episode = x.trajectory_of_turn.spread(x.episode)
        turn = Partition.by(episode, x.trajectory_of_turn.position(), within=x.group_of_turn)
        earned = turn.spread(turn.mean(x.turn_rewards()))
        return x.replace(
            turn_reward=earned,
            reward=x.trajectory_of_turn.sum(earned),
            reward_names=("reward",),
            reward_weights=(1.0,),
        )
