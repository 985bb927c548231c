"""Runs in the sandbox: reads an environment written as a program, lets it make episodes, and says what came of it.

It imports the standard library only and is given to the sandbox as text. The request is one JSON object on standard
input; the reply is JSON lines. A program sees a few built-in functions and modules and nothing of this one.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import io
import json
import os
import random
import signal
import sys
import time
import tokenize
from keyword import iskeyword
from types import ModuleType, SimpleNamespace
from typing import Any

MODULES = ("bisect", "collections", "fractions", "functools", "heapq", "itertools", "math", "random")
METHODS = {"generate": 3, "prompt": 2, "reference": 2, "score": 3}
"""What an environment must be able to do, and with how many arguments, itself included."""

_BUILTINS = """
    abs all any bin bool bytes chr complex dict divmod enumerate filter float format frozenset hex int isinstance
    issubclass iter len list map max min next object oct ord pow property range repr reversed round set slice sorted
    staticmethod str sum super tuple zip __build_class__ ArithmeticError AssertionError Exception IndexError
    KeyError LookupError NotImplementedError OverflowError RuntimeError StopIteration TypeError ValueError
    ZeroDivisionError
"""
BUILTINS = tuple(_BUILTINS.split())
_FRAMES = """
    ag_code ag_frame cr_code cr_frame f_back f_builtins f_code f_globals f_locals gi_code gi_frame gi_yieldfrom
    tb_frame tb_next
"""
FRAMES = frozenset(_FRAMES.split())
"""Attributes that lead from a value to the code that runs it."""

LONGEST, LONGEST_PROMPT, LONGEST_ANSWER = 20_000, 4_000, 500
NONSENSE = "no such answer"


class Fault(Exception):
    """What is wrong with what a program returned."""


# ---- reading ---------------------------------------------------------------------------------------------------------


def problems(source: str) -> list[str]:
    """What is wrong with the text of a program, before it is run."""
    if len(source) > LONGEST:
        return [f"longer than {LONGEST} characters"]
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [f"does not parse: {type(error).__name__}: {error}"]
    found = [text for node in ast.walk(tree) for text in _forbidden(node)]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Environment"]
    if len(classes) != 1:
        return [*found, "needs one class Environment"]
    methods = {node.name: node.args for node in classes[0].body if isinstance(node, ast.FunctionDef)}
    for name, arguments in METHODS.items():
        if name not in methods:
            found.append(f"has no method {name}")
        elif len(methods[name].posonlyargs + methods[name].args) != arguments:
            found.append(f"method {name} must take {arguments - 1} arguments beside itself")
    return found


def _forbidden(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [f"imports {name.name}" for name in node.names if name.name not in MODULES]
    if isinstance(node, ast.ImportFrom):
        wrong = node.level or node.module not in MODULES or any(name.name[0] in "*_" for name in node.names)
        return [f"imports from {node.module}"] if wrong else []
    names = {ast.Attribute: "attr", ast.Name: "id"}
    name = str(getattr(node, names.get(type(node), ""), "")) if type(node) in names else ""
    hidden = [name, *(node.kwd_attrs if isinstance(node, ast.MatchClass) else ())]
    return [f"uses {one}" for one in hidden if one.startswith("__") or one in FRAMES]


def tokens(source: str) -> list[str]:
    """The program's tokens without comments and layout: own names by order, numbers and texts as such."""
    names: dict[str, str] = {}
    kept = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME and not iskeyword(token.string) and token.string not in _KNOWN:
                kept.append(names.setdefault(token.string, f"n{len(names)}"))
            elif token.type == tokenize.NUMBER:
                kept.append("0")
            elif token.type == tokenize.STRING:
                kept.append("''")
            elif token.type in (tokenize.NAME, tokenize.OP):
                kept.append(token.string)
    except (tokenize.TokenError, SyntaxError):
        pass
    return kept


_KNOWN = frozenset((*BUILTINS, *MODULES, *METHODS, "self", "Environment"))


# ---- running ---------------------------------------------------------------------------------------------------------


def environment(source: str) -> Any:
    """The program's environment, in a world of its own."""
    own = {name: getattr(builtins, name) for name in BUILTINS}
    own.update(__import__=_import, print=lambda *_, **__: None)
    world: dict[str, Any] = {"__builtins__": own, "__name__": "program"}
    exec(compile(source, "program", "exec"), world)
    return world["Environment"]()


def _import(name: str, *_: Any, **__: Any) -> Any:
    if name not in MODULES:
        raise ImportError(f"module {name!r} is not allowed")
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None) or [one for one in dir(module) if not one.startswith("_")]
    chosen = {one: getattr(module, one) for one in public}
    return SimpleNamespace(**{one: value for one, value in chosen.items() if not isinstance(value, ModuleType)})


def instance_of(one: Any, seed: int, level: int) -> Any:
    """An instance, as JSON brings it back."""
    made = one.generate(seed, level)
    try:
        return json.loads(json.dumps(made, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise Fault(f"generate returned what is no JSON: {error}") from None


def text_of(value: Any, what: str, longest: int) -> str:
    """What a program says, as text."""
    text = str(value) if type(value) is int else value
    if type(text) is not str:
        raise Fault(f"{what} returned {type(value).__name__}, not text")
    if len(text) > longest:
        raise Fault(f"{what} returned more than {longest} characters")
    return text


def score_of(one: Any, instance: Any, response: str) -> float:
    """A score; NaN where it is no number."""
    value = one.score(json.loads(json.dumps(instance)), response)
    return float(value) if isinstance(value, int | float) else float("nan")


def episode(one: Any, seed: int, level: int) -> dict[str, Any]:
    """An instance with its prompt and the right answer."""
    instance = instance_of(one, seed, level)
    copy = json.dumps(instance)
    return {
        "instance": instance,
        "prompt": text_of(one.prompt(json.loads(copy)), "prompt", LONGEST_PROMPT),
        "reference": text_of(one.reference(json.loads(copy)), "reference", LONGEST_ANSWER),
    }


def altered(reference: str, others: list[str]) -> list[str]:
    """Answers that are not this one: another instance's, one more, a word less, a letter more."""
    words = reference.split()
    wrong = [next((other for other in others if other != reference), "")]
    if reference.lstrip("-").isdigit():
        wrong.append(str(int(reference) + 1))
    elif len(words) > 1:
        wrong.append(" ".join(words[:-1]))
    wrong.append(f"{reference}x")
    return [text for text in wrong if text]


def examine(source: str, level: int, seeds: list[int]) -> dict[str, Any]:
    """All that the gates want to know of a level.

    Three environments, each in a world of its own: one makes the episodes, one makes them again in another order and
    with another state of ``random``, and one that has made none scores.
    """
    random.seed("first")
    first = environment(source)
    made = [episode(first, seed, level) for seed in seeds]
    random.seed("second")
    second = environment(source)
    again = [episode(second, seed, level) for seed in reversed(seeds)][::-1]
    third = environment(source)
    references = [one["reference"] for one in made]
    scored = []
    for place, (seed, one) in enumerate(zip(seeds, made, strict=True)):
        instance, right = one["instance"], one["reference"]
        wrong = altered(right, references[place + 1 :] + references[:place])
        same = [right, f"  {right} \n"]
        if getattr(third, "unordered", False):
            words = right.split()
            random.Random(seed).shuffle(words)
            same.append(" ".join(words))
        if hasattr(third, "alternative"):
            same.append(text_of(third.alternative(instance, seed), "alternative", LONGEST_ANSWER))
        scored.append(
            {
                "same": [score_of(third, instance, text) for text in same],
                "nothing": [score_of(third, instance, text) for text in ("", NONSENSE)],
                "wrong": [score_of(third, instance, text) for text in wrong],
                "again": score_of(third, instance, right),
            }
        )
    return {"episodes": made, "repeats": made == again, "scores": scored, "planted": may_differ(third)}


def may_differ(one: Any) -> bool:
    """Whether an instance may have other right answers than the one it was planted with."""
    return bool(getattr(one, "kind", "computed") == "planted")


def check(request: dict[str, Any], say: Any) -> None:
    """Read a program, and run it level by level, each within its time, until one fails."""
    source = request["source"]
    found = problems(source)
    say({"problems": found, "tokens": tokens(source)})
    for level in request["levels"] if not found else ():
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        started = time.monotonic()
        try:
            said = examine(source, level, request["seeds"])
        except Exception as error:
            say({"level": level, "error": _described(error)})
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        say({"level": level, "seconds": time.monotonic() - started, **said})


def answer(request: dict[str, Any], say: Any) -> None:
    """Make episodes of a program, and score answers to others."""
    try:
        one = environment(request["source"])
        made = [episode(one, *of) for of in request["episodes"]]
        scores = [score_of(one, *of) for of in request["answers"]]
        say({"episodes": made, "scores": scores})
    except Exception as error:
        say({"error": _described(error)})


def _described(error: Exception) -> str:
    return f"{error}" if isinstance(error, Fault) else f"{type(error).__name__}: {error}"[:300]


def main() -> None:
    """Serve one request."""
    request = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    sys.setrecursionlimit(2_000)
    (check if "levels" in request else answer)(request, say)


if __name__ == "__main__":
    main()
