"""A graph to color with three colors, made from a coloring."""

import random


class Environment:
    kind = "planted"

    def generate(self, seed: int, level: int) -> dict[str, list]:
        source = random.Random(seed)
        nodes = 5 + 2 * level
        colors = [source.choice("RGB") for _ in range(nodes)]
        pairs = [[a, b] for a in range(nodes) for b in range(a) if colors[a] != colors[b]]
        return {"colors": colors, "edges": sorted(source.sample(pairs, min(len(pairs), 3 * nodes // 2)))}

    def prompt(self, instance: dict[str, list]) -> str:
        edges = ", ".join(f"{a}-{b}" for a, b in instance["edges"])
        count = len(instance["colors"])
        return (
            f"Color the nodes 0 to {count - 1} of a graph with R, G and B so that no edge joins two of one color. "
            f"Edges: {edges}. Write {count} letters without spaces, that of node 0 first."
        )

    def reference(self, instance: dict[str, list]) -> str:
        return "".join(instance["colors"])

    def alternative(self, instance: dict[str, list], seed: int) -> str:
        renamed = random.Random(seed).sample("RGB", 3)
        return "".join(renamed["RGB".index(color)] for color in instance["colors"])

    def score(self, instance: dict[str, list], response: str) -> float:
        said = response.strip()
        right = len(said) == len(instance["colors"]) and set(said) <= set("RGB")
        return float(right and all(said[a] != said[b] for a, b in instance["edges"]))
