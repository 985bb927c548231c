"""The mathematical verifier: math-verify in a process of its own, which is killed when an answer takes too long."""

from __future__ import annotations

import importlib.util
import json
import select
import subprocess
import sys
import threading
from typing import Any

from stratagem.errors import InputError
from stratagem.tasks.answers import Record, final_answer, normalised

_START_SECONDS = 120.0


class MathAnswer:
    """1 when the response's answer is mathematically equal to the reference (LaTeX or plain), else 0.

    ``seconds``: time limit per answer, above 0. The first grading starts a process, which serves all that follow;
    beyond the limit it is killed, ``TimeoutError`` is raised, and the next grading starts another.

    Raises :class:`InputError` when math-verify is not installed.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise InputError("verifier 'math' needs math-verify: pip install 'stratagem[math]'")
        self.seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def score(self, response: str, record: Record) -> float:
        with self._lock:
            verdict = self._ask([record["answer"], response])
        if "error" in verdict:
            raise ValueError(f"the reference answer {record['answer']!r} cannot be graded: {verdict['error']}")
        return float(verdict["equal"])

    def solution(self, record: Record) -> str:
        return f"\\boxed{{{record['answer']}}}"

    def corrupted(self, record: Record) -> str:
        """The reference plus one."""
        return f"\\boxed{{({record['answer']}) + 1}}"

    def answer(self, response: str) -> str | None:
        """As it is written: that ``1/2`` and ``0.5`` are equal is not found out here."""
        return normalised(final_answer(response)) or None

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self.close()

    def _ask(self, question: list[str]) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        return self._receive(process, self.seconds)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            command = [sys.executable, "-m", "stratagem.tasks.math_worker", str(self.seconds)]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
            self._receive(self._process, _START_SECONDS)
        return self._process

    def _receive(self, process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], seconds)[0]:
            self.close()
            raise TimeoutError(f"grading a mathematical answer took longer than {seconds:g} s")
        line = process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError("the process that grades mathematical answers died")
        verdict: dict[str, Any] = json.loads(line)
        return verdict
