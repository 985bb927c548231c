"""A graph to color with three colors, made from a coloring. An instance is the coloring, and then the edges."""

import random


class Environment:
    kind = "planted"

    def generate(self, seed: int, level: int) -> list[list[int]]:
        source = random.Random(seed)
        nodes = 5 + 2 * level
        colors = [source.randrange(3) for _ in range(nodes)]
        pairs = [[a, b] for a in range(nodes) for b in range(a) if colors[a] != colors[b]]
        return [colors, *sorted(source.sample(pairs, min(len(pairs), 3 * nodes // 2)))]

    def prompt(self, instance: list[list[int]]) -> str:
        edges = ", ".join(f"{a}-{b}" for a, b in instance[1:])
        count = len(instance[0])
        return (
            f"Color the nodes 0 to {count - 1} of a graph with R, G and B so that no edge joins two of one color. "
            f"Edges: {edges}. Write {count} letters without spaces, that of node 0 first."
        )

    def reference(self, instance: list[list[int]]) -> str:
        return "".join("RGB"[color] for color in instance[0])

    def alternative(self, instance: list[list[int]], seed: int) -> str:
        renamed = random.Random(seed).sample("RGB", 3)
        return "".join(renamed[color] for color in instance[0])

    def score(self, instance: list[list[int]], response: str) -> float:
        said = response.strip()
        right = len(said) == len(instance[0]) and set(said) <= set("RGB")
        return float(right and all(said[a] != said[b] for a, b in instance[1:]))
