"""Several agents that learn in one game: the contract of a game, built-in ones, adapters, policies and their world.

``lattice`` and ``collapse`` are about learners on a lattice, ``repeated``, ``reservoir`` and ``governance`` about games
that are played again and again.
"""

from stratagem.multiagent.adaptation import adapted, code_returns
from stratagem.multiagent.dependent import DependentAgents
from stratagem.multiagent.discs import DiscsGame
from stratagem.multiagent.episodes import Acted, Lanes, TeamRecording, play
from stratagem.multiagent.game import Copies, Frame, MarkovGame, MultiAgentTask, Outcome, chance
from stratagem.multiagent.games import CoordinationGame, MatrixGame, MeetingGame, RecallGame, TwoStepGame
from stratagem.multiagent.inputs import AgentInputs
from stratagem.multiagent.leaders import Leaders, SubgoalFollower, TrainedFollowers
from stratagem.multiagent.mixers import Mixer, Monotone, Sum
from stratagem.multiagent.pathfinding import Follower, PathfindingGame
from stratagem.multiagent.policy import ActorCritics, AgentsPolicy
from stratagem.multiagent.relational import RelationalAgents
from stratagem.multiagent.relations import Relation, TaskEncoder
from stratagem.multiagent.resources import ResourcesGame
from stratagem.multiagent.situations import Situations
from stratagem.multiagent.sketch import Drawable, Sketch, Trajectory
from stratagem.multiagent.subgoal_grids import DoorKeyGrid, TrashGrid
from stratagem.multiagent.subgoals import Followers, Subgoal, SubgoalGame, SubgoalTree, intrinsic_reward
from stratagem.multiagent.values import ValueAgents
from stratagem.multiagent.world import MultiAgentWorld

KINDS: dict[str, type[AgentsPolicy]] = {
    kind.kind: kind for kind in (ActorCritics, DependentAgents, RelationalAgents, ValueAgents)
}
"""Policies of several agents, by the kind their folders name."""

__all__ = [
    "KINDS",
    "Acted",
    "ActorCritics",
    "AgentInputs",
    "AgentsPolicy",
    "CoordinationGame",
    "Copies",
    "DependentAgents",
    "DiscsGame",
    "DoorKeyGrid",
    "Drawable",
    "Follower",
    "Followers",
    "Frame",
    "Lanes",
    "Leaders",
    "MarkovGame",
    "MatrixGame",
    "MeetingGame",
    "Mixer",
    "Monotone",
    "MultiAgentTask",
    "MultiAgentWorld",
    "Outcome",
    "PathfindingGame",
    "RecallGame",
    "Relation",
    "RelationalAgents",
    "ResourcesGame",
    "Situations",
    "Sketch",
    "Subgoal",
    "SubgoalFollower",
    "SubgoalGame",
    "SubgoalTree",
    "Sum",
    "TaskEncoder",
    "TeamRecording",
    "TrainedFollowers",
    "Trajectory",
    "TrashGrid",
    "TwoStepGame",
    "ValueAgents",
    "adapted",
    "chance",
    "code_returns",
    "intrinsic_reward",
    "play",
]
