"""The cheapest way through a grid of numbers."""

import random


class Environment:
    def generate(self, seed: int, level: int) -> list[list[int]]:
        source = random.Random(seed)
        size = 2 + level
        return [[source.randint(1, 9) for _ in range(size)] for _ in range(size)]

    def prompt(self, instance: list[list[int]]) -> str:
        rows = "\n".join(" ".join(str(cell) for cell in row) for row in instance)
        return (
            "From the upper left to the lower right corner of this grid, moving right or down, what is the least sum "
            f"of the numbers on the way, both corners included?\n{rows}"
        )

    def reference(self, instance: list[list[int]]) -> int:
        costs: list[int] = []
        for number, row in enumerate(instance):
            new: list[int] = []
            for column, cell in enumerate(row):
                before = ([new[-1]] if column else []) + ([costs[column]] if number else [])
                new.append(cell + (min(before) if before else 0))
            costs = new
        return costs[-1]

    def score(self, instance: list[list[int]], response: str) -> float:
        return float(response.strip() == str(self.reference(instance)))
