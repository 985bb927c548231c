"""A number to write in another base."""

import random

DIGITS = "0123456789ABCDEF"


class Environment:
    def generate(self, seed: int, level: int) -> dict[str, int]:
        source = random.Random(seed)
        return {
            "number": source.randrange(20 * 6**level, 20 * 6 ** (level + 1)),
            "base": source.choice((2, 3, 7, 12, 16)),
        }

    def prompt(self, instance: dict[str, int]) -> str:
        return f"Write the decimal number {instance['number']} in base {instance['base']} (digits 0-9, then A-F)."

    def reference(self, instance: dict[str, int]) -> str:
        left, digits = instance["number"], ""
        while left:
            left, digit = divmod(left, instance["base"])
            digits = DIGITS[digit] + digits
        return digits

    def score(self, instance: dict[str, int], response: str) -> float:
        return float(response.strip().upper() == self.reference(instance))
