"""Brackets of three kinds, of which the last ones are missing."""

import random

PAIRS = {"(": ")", "[": "]", "{": "}"}


class Environment:
    def generate(self, seed: int, level: int) -> str:
        source = random.Random(seed)
        text, open_ones = "", 0
        while len(text) < 6 * level or open_ones < 3 + level // 2:
            if open_ones and source.random() < 0.4:
                text, open_ones = text + self.missing(text)[0], open_ones - 1
            else:
                text, open_ones = text + source.choice("([{"), open_ones + 1
        return text

    def missing(self, text: str) -> str:
        stack: list[str] = []
        for sign in text:
            if sign in PAIRS:
                stack.append(PAIRS[sign])
            else:
                stack.pop()
        return "".join(reversed(stack))

    def prompt(self, instance: str) -> str:
        return f"Write the closing brackets that are missing at the end, and nothing else: {instance}"

    def reference(self, instance: str) -> str:
        return self.missing(instance)

    def score(self, instance: str, response: str) -> float:
        return float("".join(response.split()) == self.missing(instance))
