"""People who always or never tell the truth, and what they say of each other."""

import itertools
import random

NAMES = "ABCDEFGHIJKL"


class Environment:
    def generate(self, seed: int, level: int) -> dict[str, list]:
        source = random.Random(seed)
        people = 3 + level
        knights = [source.random() < 0.5 for _ in range(people)]
        order = source.sample(range(people), people)
        knights[order[0]] = True
        claims = []
        for place in range(1, people):
            pair = [order[place], order[source.randrange(place)]]
            who, other = source.sample(pair, 2)
            claims.append([who, knights[other] == knights[who], other])
        return {"claims": claims, "known": [order[0]], "people": [people]}

    def fits(self, instance: dict[str, list], knights: tuple) -> bool:
        return all((knights[other] == knight) == knights[who] for who, knight, other in instance["claims"])

    def prompt(self, instance: dict[str, list]) -> str:
        said = "; ".join(
            f"{NAMES[who]}: '{NAMES[other]} is a {'knight' if knight else 'knave'}'"
            for who, knight, other in instance["claims"]
        )
        people = ", ".join(NAMES[: instance["people"][0]])
        return (
            f"Of {people}, knights always tell the truth and knaves never do. {NAMES[instance['known'][0]]} is a "
            f"knight. They say: {said}. For each of {people}, write T for a knight and L for a knave, without spaces."
        )

    def reference(self, instance: dict[str, list]) -> str:
        for knights in itertools.product((True, False), repeat=instance["people"][0]):
            if knights[instance["known"][0]] and self.fits(instance, knights):
                return "".join("T" if knight else "L" for knight in knights)
        return ""

    def score(self, instance: dict[str, list], response: str) -> float:
        return float(response.strip() == self.reference(instance))
