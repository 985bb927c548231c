"""What a policy is trained and evaluated on: the task contract, the built-in tasks and the registry of all names."""

from stratagem.tasks.app import AppTask
from stratagem.tasks.blueprint import BlueprintTask
from stratagem.tasks.calculator import CalculatorTask
from stratagem.tasks.delegation import AnswerTask, DelegatedTask, Subtask
from stratagem.tasks.experts import ExpertRegistry, Model, Skill
from stratagem.tasks.jsonl import JsonlTask
from stratagem.tasks.key_door import KeyDoorTask
from stratagem.tasks.memory import MemoryTask
from stratagem.tasks.orchestration import ExpertsTask
from stratagem.tasks.proof import ProofTask
from stratagem.tasks.python import PythonTask
from stratagem.tasks.registry import TaskCard, known, make
from stratagem.tasks.search import SearchTask
from stratagem.tasks.sokoban import SokobanTask
from stratagem.tasks.sql import SqlTask
from stratagem.tasks.structured import StructuredTask
from stratagem.tasks.task import CheckReport, Environment, Observation, Split, Step, Task, state_key
from stratagem.tasks.tool_chain import ToolChainTask
from stratagem.tasks.toolbox import ToolboxTask

__all__ = [
    "AnswerTask",
    "AppTask",
    "BlueprintTask",
    "CalculatorTask",
    "CheckReport",
    "DelegatedTask",
    "Environment",
    "ExpertRegistry",
    "ExpertsTask",
    "JsonlTask",
    "KeyDoorTask",
    "MemoryTask",
    "Model",
    "Observation",
    "ProofTask",
    "PythonTask",
    "SearchTask",
    "Skill",
    "SokobanTask",
    "Split",
    "SqlTask",
    "Step",
    "StructuredTask",
    "Subtask",
    "Task",
    "TaskCard",
    "ToolChainTask",
    "ToolboxTask",
    "known",
    "make",
    "state_key",
]
