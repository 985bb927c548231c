"""What a policy is trained and evaluated on: the task contract, the built-in tasks and the registry of all names."""

from stratagem.tasks.app import AppTask
from stratagem.tasks.blueprint import BlueprintTask
from stratagem.tasks.calculator import CalculatorTask
from stratagem.tasks.collaboration import CollaborateTask
from stratagem.tasks.craft import CraftTask
from stratagem.tasks.decomposition import DecomposeTask
from stratagem.tasks.delegation import AnswerTask, DelegatedTask, Subtask
from stratagem.tasks.documents import DocumentsTask
from stratagem.tasks.experts import ExpertRegistry, Model, Skill
from stratagem.tasks.function_calls import FunctionCallsTask
from stratagem.tasks.guided import Guidance, GuidedTask
from stratagem.tasks.house import HouseTask
from stratagem.tasks.household import HouseholdTask
from stratagem.tasks.improve import ImproveTask
from stratagem.tasks.jsonl import JsonlTask
from stratagem.tasks.key_door import KeyDoorTask
from stratagem.tasks.memory import MemoryTask
from stratagem.tasks.orchestration import ExpertsTask
from stratagem.tasks.pairs import PairsTask
from stratagem.tasks.proof import ProofTask
from stratagem.tasks.python import PythonTask
from stratagem.tasks.reading import ReadingTask
from stratagem.tasks.registry import TaskCard, known, make
from stratagem.tasks.research import ResearchTask
from stratagem.tasks.routes import RoutesTask
from stratagem.tasks.search import SearchTask
from stratagem.tasks.sets import SetTask
from stratagem.tasks.shop import ShopTask
from stratagem.tasks.sokoban import SokobanTask
from stratagem.tasks.sql import SqlTask
from stratagem.tasks.sql_exploration import SqlExplorationTask
from stratagem.tasks.structured import StructuredTask
from stratagem.tasks.t_maze import TMazeTask
from stratagem.tasks.task import CheckReport, Environment, Observation, Split, Step, Task, state_key
from stratagem.tasks.tool_chain import ToolChainTask
from stratagem.tasks.toolbox import ToolboxTask

__all__ = [
    "AnswerTask",
    "AppTask",
    "BlueprintTask",
    "CalculatorTask",
    "CheckReport",
    "CollaborateTask",
    "CraftTask",
    "DecomposeTask",
    "DelegatedTask",
    "DocumentsTask",
    "Environment",
    "ExpertRegistry",
    "ExpertsTask",
    "FunctionCallsTask",
    "Guidance",
    "GuidedTask",
    "HouseTask",
    "HouseholdTask",
    "ImproveTask",
    "JsonlTask",
    "KeyDoorTask",
    "MemoryTask",
    "Model",
    "Observation",
    "PairsTask",
    "ProofTask",
    "PythonTask",
    "ReadingTask",
    "ResearchTask",
    "RoutesTask",
    "SearchTask",
    "SetTask",
    "ShopTask",
    "Skill",
    "SokobanTask",
    "Split",
    "SqlExplorationTask",
    "SqlTask",
    "Step",
    "StructuredTask",
    "Subtask",
    "TMazeTask",
    "Task",
    "TaskCard",
    "ToolChainTask",
    "ToolboxTask",
    "known",
    "make",
    "state_key",
]
