"""What runs first inside the sandbox: it takes the limits upon itself and becomes the policy's program.

A script that imports nothing of this package, since nothing of it can be seen from inside. Its arguments are the path
of the program and limits as ``NAME=VALUE``, each the name of an ``RLIMIT``. An exception is shown as if the program had
been run alone; running out of memory exits with ``OUT_OF_MEMORY``.
"""

from __future__ import annotations

import resource
import sys

OUT_OF_MEMORY = 99


def main(path: str, limits: list[str]) -> None:
    for limit in limits:
        name, _, value = limit.partition("=")
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(value), int(value)))
    with open(path, "rb") as file:
        source = file.read()
    program = type(sys)("__main__")
    sys.modules["__main__"] = program
    sys.argv = [path]
    try:
        exec(compile(source, path, "exec"), program.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(OUT_OF_MEMORY if isinstance(error, MemoryError) else 1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
