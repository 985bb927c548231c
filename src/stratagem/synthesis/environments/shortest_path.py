"""The length of the shortest way between two towns."""

import heapq
import random


class Environment:
    def generate(self, seed: int, level: int) -> list[list[int]]:
        source = random.Random(seed)
        towns = 4 + 2 * level
        roads = {(source.randrange(town), town): source.randint(2, 20) for town in range(1, towns)}
        for _ in range(towns):
            first, second = sorted(source.sample(range(towns), 2))
            roads.setdefault((first, second), source.randint(2, 20))
        return [[first, second, length] for (first, second), length in sorted(roads.items())]

    def prompt(self, instance: list[list[int]]) -> str:
        roads = ", ".join(f"{first} to {second}: {length}" for first, second, length in instance)
        last = max(second for _, second, _ in instance)
        return (
            f"Roads, both ways, with their lengths: {roads}. How long is the shortest way from town 0 to town {last}?"
        )

    def reference(self, instance: list[list[int]]) -> int:
        roads: dict[int, list[tuple[int, int]]] = {}
        for first, second, length in instance:
            roads.setdefault(first, []).append((second, length))
            roads.setdefault(second, []).append((first, length))
        waiting, seen = [(0, 0)], set()
        while waiting:
            gone, town = heapq.heappop(waiting)
            if town == max(roads):
                return gone
            if town not in seen:
                seen.add(town)
                for other, length in roads[town]:
                    heapq.heappush(waiting, (gone + length, other))
        return -1

    def score(self, instance: list[list[int]], response: str) -> float:
        return float(response.strip() == str(self.reference(instance)))
