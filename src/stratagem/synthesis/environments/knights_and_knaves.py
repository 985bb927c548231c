"""People who always or never tell the truth. An instance: how many there are, who is a knight, and what they say."""

import itertools
import random

NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Environment:
    def generate(self, seed: int, level: int) -> list[list[int]]:
        source = random.Random(seed)
        people = 3 + level
        knights = [source.randrange(2) for _ in range(people)]
        order = source.sample(range(people), people)
        knights[order[0]] = 1
        claims = []
        for place in range(1, people):
            who, other = source.sample([order[place], order[source.randrange(place)]], 2)
            claims.append([who, int(knights[other] == knights[who]), other])
        return [[people, order[0]], *claims]

    def prompt(self, instance: list[list[int]]) -> str:
        (people, known), *claims = instance
        said = "; ".join(
            f"{NAMES[who]}: '{NAMES[other]} is a {'knight' if knight else 'knave'}'" for who, knight, other in claims
        )
        names = ", ".join(NAMES[:people])
        return (
            f"Of {names}, knights always tell the truth and knaves never do. {NAMES[known]} is a knight. They say: "
            f"{said}. For each of {names}, write T for a knight and L for a knave, without spaces."
        )

    def reference(self, instance: list[list[int]]) -> str:
        (people, known), *claims = instance
        for knights in itertools.product((1, 0), repeat=people):
            true = all((knights[other] == knight) == bool(knights[who]) for who, knight, other in claims)
            if knights[known] and true:
                return "".join("LT"[knight] for knight in knights)
        return ""

    def score(self, instance: list[list[int]], response: str) -> float:
        return float(response.strip() == self.reference(instance))
