"""The process behind the mathematical verifier: reads pairs of reference and response, writes whether they are equal.

One JSON line in, ``[reference, response]``, gives one JSON line out: ``{"equal": bool}`` or ``{"error": str}``.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

from math_verify import parse, verify

_MEMORY_BYTES = 4 * 2**30


def main(seconds: float) -> None:
    """Serve until standard input ends.

    The caller keeps the time of ``seconds`` per answer; an alarm ends this process in case there is no caller left.
    """
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    logging.disable()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        reference, response = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds + 1)
        verdict = _verdict(reference, response)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), flush=True)


def _verdict(reference: str, response: str) -> dict[str, bool | str]:
    marked = reference if "$" in reference or "\\boxed" in reference else f"${reference}$"
    gold = parse(marked, parsing_timeout=None)
    if not gold:
        return {"error": "not a mathematical expression"}
    return {"equal": bool(verify(gold, parse(response, parsing_timeout=None), timeout_seconds=None))}


if __name__ == "__main__":
    main(float(sys.argv[1]))
