"""Numbers to choose so that they add up to a target, made from a choice."""

import random


class Environment:
    kind = "planted"
    unordered = True

    def generate(self, seed: int, level: int) -> dict[str, list[int]]:
        source = random.Random(seed)
        numbers = source.sample(range(2, 30 + 10 * level), 5 + 2 * level)
        return {"numbers": numbers, "chosen": source.sample(numbers, 3 + level // 2)}

    def prompt(self, instance: dict[str, list[int]]) -> str:
        numbers = " ".join(str(number) for number in instance["numbers"])
        return (
            f"Choose some of these numbers, each at most once, that add up to {sum(instance['chosen'])}: {numbers}. "
            "Write those you choose, with spaces between them."
        )

    def reference(self, instance: dict[str, list[int]]) -> str:
        return " ".join(str(number) for number in instance["chosen"])

    def score(self, instance: dict[str, list[int]], response: str) -> float:
        words = response.split()
        if not all(word.isdigit() for word in words) or len(set(words)) < len(words):
            return 0.0
        said = [int(word) for word in words]
        return float(set(said) <= set(instance["numbers"]) and sum(said) == sum(instance["chosen"]))
