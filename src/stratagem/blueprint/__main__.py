"""The engine as a process: a request on standard input, the audit log on standard output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from stratagem.blueprint.agent import run_in_process
from stratagem.blueprint.schema import Blueprint


def main() -> None:
    """Run what is asked for; what tools print goes to standard error, so that it is not taken for the log."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.buffer.read())
    folder = None if asked["folder"] is None else Path(asked["folder"])
    entries = run_in_process(
        Blueprint.parse(asked["blueprint"]),
        asked["observation"],
        seed=asked["seed"],
        folder=folder,
        workflow=asked["workflow"],
    )
    with out:
        for entry in entries:
            out.write(json.dumps(entry, ensure_ascii=True, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
