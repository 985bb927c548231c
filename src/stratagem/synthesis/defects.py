"""Programs that are broken on purpose, and others that are not, to see what the gates find."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from types import MappingProxyType

from stratagem.errors import unknown
from stratagem.synthesis.programs import Program

_METHODS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "generate": ("seed, level", "return self.sound.generate(seed, level)"),
        "prompt": ("instance", "return self.sound.prompt(instance)"),
        "reference": ("instance", "return self.sound.reference(instance)"),
        "score": ("instance, response", "return self.sound.score(instance, response)"),
    }
)

DEFECTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "constant answer": {
            "reference": "return '7'",
            "score": "return float(response.strip() == '7')",
        },
        "answer in prompt": {
            "prompt": "return self.sound.prompt(instance) + f' (The answer is {self.sound.reference(instance)}.)'"
        },
        "always right": {"score": "return 1.0"},
        "stale instance": {
            "generate": "self.last = self.sound.generate(seed, level)\nreturn self.last",
            "score": "return self.sound.score(self.last, response)",
        },
        "unseeded": {"generate": "return self.sound.generate(random.randrange(10**9), level)"},
        "endless": {"reference": "while True:\n    pass"},
        "wrong reference": {
            "reference": "return str(self.sound.reference(instance)) + '1'",
            "score": "return float(response.strip() == self.reference(instance))",
        },
        "forbidden import": {"generate": "import os\nreturn self.sound.generate(seed, level)"},
    }
)
"""By name, the methods that are replaced. Of these ``wrong reference`` agrees with itself: no gate that only runs a
program can find it, and only a review can. That it does not pass would mean that the gates guess."""


def defective(program: Program, name: str) -> Program:
    """The program with a defect. Raises :class:`InputError` for one there is not."""
    if name not in DEFECTS:
        raise unknown("defect", name, DEFECTS)
    return _wrapped(program, DEFECTS[name])


def variant(program: Program, number: int) -> Program:
    """The program with other instances and another first sentence, as sound as it was."""
    return _wrapped(
        program,
        {
            "generate": f"return self.sound.generate(seed + {1000 * (number + 1)}, level)",
            "prompt": f"return 'Question of kind {number}. ' + self.sound.prompt(instance)",
        },
    )


def _wrapped(program: Program, changes: Mapping[str, str]) -> Program:
    """A class that asks the sound one for everything but what is changed."""
    methods = []
    for name, (arguments, sound) in _METHODS.items():
        body = textwrap.indent(changes.get(name, sound), " " * 8)
        methods.append(f"    def {name}(self, {arguments}):\n{body}")
    renamed = re.sub(r"^class Environment\b", "class Sound", program.source, flags=re.MULTILINE)
    marks = "".join(
        f"    {name} = Sound.{name}\n"
        for name in ("kind", "unordered")
        if re.search(rf"^    {name} = ", renamed, re.MULTILINE)
    )
    return Program(
        f"import random\n{renamed}\n\nclass Environment:\n    sound = Sound()\n{marks}\n" + "\n\n".join(methods) + "\n"
    )
