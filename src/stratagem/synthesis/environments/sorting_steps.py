"""A list after so many passes of bubble sort."""

import random


class Environment:
    def generate(self, seed: int, level: int) -> dict[str, list[int]]:
        source = random.Random(seed)
        numbers = source.sample(range(10, 100), 4 + level)
        return {"numbers": numbers, "passes": [source.randint(1, 1 + level // 2)]}

    def prompt(self, instance: dict[str, list[int]]) -> str:
        numbers = " ".join(str(number) for number in instance["numbers"])
        return (
            "A pass goes through a list from left to right and swaps neighbours that are not in ascending order. "
            f"What is the list after {instance['passes'][0]} passes? {numbers}"
        )

    def reference(self, instance: dict[str, list[int]]) -> str:
        numbers = list(instance["numbers"])
        for _ in range(instance["passes"][0]):
            for place in range(len(numbers) - 1):
                if numbers[place] > numbers[place + 1]:
                    numbers[place], numbers[place + 1] = numbers[place + 1], numbers[place]
        return " ".join(str(number) for number in numbers)

    def score(self, instance: dict[str, list[int]], response: str) -> float:
        return float(response.split() == self.reference(instance).split())
