"""Letters to insert, delete or replace to make one word of another."""

import random


class Environment:
    def generate(self, seed: int, level: int) -> list[str]:
        source = random.Random(seed)
        lengths = [source.randint(2, 14 + 4 * level) for _ in range(2)]
        return ["".join(source.choices("abcdef", k=length)) for length in lengths]

    def prompt(self, instance: list[str]) -> str:
        first, second = instance
        return (
            f"How many letters must be inserted, deleted or replaced, at least, to turn {first} into {second}? "
            "Write a number."
        )

    def reference(self, instance: list[str]) -> int:
        first, second = instance
        row = list(range(len(second) + 1))
        for place, letter in enumerate(first, 1):
            above, row = row, [place]
            for column, other in enumerate(second, 1):
                row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (letter != other)))
        return row[-1]

    def score(self, instance: list[str], response: str) -> float:
        return float(response.strip() == str(self.reference(instance)))
