"""Lists the benchmarks of this folder and runs those whose requirements are installed.

    python -m benchmarks [NAME ...]

A benchmark is a file NAME.py that can be run by itself. What it needs beyond Stratagem is in requirements-NAME.txt, if
there is such a file. Without names all are run that can be. The exit code is 1 if one of them failed, 2 for a name that
does not exist or needs something that is not installed.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

FOLDER = Path(__file__).parent


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only these")
    names = parser.parse_args().names
    known = {path.stem: path for path in sorted(FOLDER.glob("[!_]*.py"))}
    for name in names:
        if name not in known:
            parser.error(f"unknown benchmark {name!r}; known: {', '.join(known)}")
    lacking = {name: missing(name) for name in known}
    width = max(map(len, known))
    for name, path in known.items():
        print(f"{name:<{width}}  {summary(path)}")
        if lacking[name]:
            print(f"{'':<{width}}  lacks {', '.join(lacking[name])}: pip install -r {requirements(name)}")
    if any(lacking[name] for name in names):
        return 2
    codes = [run(known[name]) for name in names or known if not lacking[name]]
    return int(any(codes))


def summary(path: Path) -> str:
    """The first line of a benchmark's docstring, read without importing it."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def requirements(name: str) -> Path:
    """Where a benchmark's requirements stand, if it has any."""
    return FOLDER / f"requirements-{name}.txt"


def missing(name: str) -> list[str]:
    """Requirements of a benchmark that are not installed, or in another version."""
    file = requirements(name)
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    wanted = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
    return [str(requirement) for requirement in wanted if not _satisfied(requirement)]


def run(path: Path) -> int:
    """Run a benchmark in a process of its own; returns its exit code."""
    print(f"\n== {path.stem}", flush=True)
    return subprocess.run([sys.executable, path], check=False).returncode


def _satisfied(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
