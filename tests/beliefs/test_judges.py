"""Who judges beliefs: the rule against a world that can be asked, and a helper that counts."""

from __future__ import annotations

from random import Random
from statistics import fmean

import pytest

from stratagem.beliefs import PROBABILITY, Judgement, ask_judge, by_rule, claims, correctness, written
from stratagem.beliefs.judges import Evidence, ObservedEnvironment
from stratagem.helpers.helper import Counted
from stratagem.helpers.scripted import Scripted
from stratagem.tasks.rooms import RoomsTask


class Told(ObservedEnvironment):
    """Says of a key in a den what the test wants to be said."""

    def __init__(self, *evidence: Evidence) -> None:
        self.told = list(evidence)

    def reset(self):
        raise NotImplementedError

    def step(self, action):
        raise NotImplementedError

    def truth(self, claim):
        return {"key in den": True, "key in hall": False}.get(claim)

    def evidence(self):
        return self.told

    def contradicted(self, claim):
        return claim == "door is shut"

    def state(self):
        return ""

    def belief(self):
        return ""


def judged(before: str, after: str, *evidence: Evidence) -> Judgement:
    return by_rule(claims(before), claims(after), Told(*evidence))


def test_evidence_is_held_when_a_claim_moves_with_it_or_stays():
    glint = Evidence("key in den", supports=True)
    assert judged("- key in den: possible", "- key in den: probable", glint).tracked == (1, 0, 0)
    assert judged("- key in den: possible", "- key in den: possible", glint).tracked == (1, 0, 0)
    assert judged("- key in den: possible", "- key in den: doubtful", glint).tracked == (0, 1, 0)
    assert judged("", "- key in den: doubtful", glint).tracked == (1, 0, 0)
    assert judged("- key in den: possible", "- key in hall: possible", glint).tracked == (0, 1, 0)
    nothing = Evidence("Key in den", supports=False)
    assert judged("- key in den: possible", "- key in den: doubtful", nothing).tracked == (1, 0, 0)
    assert judged("- key in den: possible", "- key in den: probable", nothing).tracked == (0, 1, 0)


def test_what_is_settled_must_be_nearly_certain():
    here, gone = Evidence("door is open", True, True), Evidence("door is shut", False, True)
    assert judged("", "- door is open: almost certain\n- door is shut: ruled out", here, gone).tracked == (2, 0, 0)
    assert judged("", "- door is open: probable\n- door is shut: unlikely", here, gone).tracked == (0, 2, 0)


def test_a_claim_is_stale_that_was_made_before_and_is_kept_against_the_observation():
    assert judged("- door is shut: certain", "- door is shut: possible").tracked == (0, 0, 1)
    assert judged("- door is shut: certain", "- door is shut: doubtful").tracked == (0, 0, 0)
    assert judged("", "- door is shut: certain").tracked == (0, 0, 0)


def test_true_claims_that_are_doubted_are_partly_correct_and_false_ones_must_be_doubted():
    after = "- key in den: {}\n- key in hall: {}\n- it rains: certain\n- key in den"
    assert judged("", after.format("possible", "unlikely")).checked == (2, 0, 2)
    assert judged("", after.format("doubtful", "possible")).checked == (0, 1, 2)


def test_beliefs_from_the_exact_posterior_are_more_correct_than_random_ones_and_get_calibrated():
    """Four rooms, walked round twice: labels by Bayes' rule against random labels, and the Brier score of the key."""
    task = RoomsTask(rooms=4, max_turns=9)
    first, last, exact, random = [], [], [], []
    for index in range(150):
        world, source = task.environment("train", index), Random(index)
        world.reset()
        house = world.house
        room, visited = house.start, [0] * 4
        for step in range(9):
            bullets = claims(world.belief())
            key = [c for c in bullets if c.text.startswith("the key")]
            brier = fmean((c.probability - world.truth(c.text)) ** 2 for c in key)
            noise = claims(written((c.text, source.choice(list(PROBABILITY))) for c in bullets))
            exact.append(correctness(*by_rule([], bullets, world).checked))
            random.append(correctness(*by_rule([], noise, world).checked))
            (first if step == 0 else last if step == 8 else []).append(brier)
            if step < 8:
                visited[room] += 1
                room = min(house.beside(room), key=lambda other: visited[other])
                world.step(f"go {house.rooms[room]}")
    assert fmean(exact) > fmean(random) + 0.2
    assert fmean(last) < 0.6 * fmean(first)


def helper(answer) -> Counted:
    return Counted(Scripted(answer, "test"), "test")


def test_a_helper_is_told_both_beliefs_and_counts():
    asked: list[str] = []

    def answer(messages, seed):
        asked.append(messages[-1]["content"])
        return "New: 3\nmissing = 1, stale: 2\ncorrect: 5 partial: 2 verifiable: 8"

    assert ask_judge(helper(answer), "- a: certain", "It rains.", "- b: certain", "It is wet.", 0) == Judgement(
        (3, 1, 2), (5, 2, 8)
    )
    assert all(said in asked[0] for said in ("- a: certain", "It rains.", "- b: certain", "It is wet."))
    assert ask_judge(helper(answer), "", "", "", None, 0) == Judgement((3, 1, 2), None)
    assert "True state" not in asked[1]


@pytest.mark.parametrize("said", ["I do not know", "new: 3", "correct: 9 partial: 2 verifiable: 8"])
def test_what_a_helper_does_not_count_is_unknown(said):
    assert ask_judge(helper(lambda messages, seed: said), "", "", "", "state", 0) == Judgement(None, None)


def test_a_helper_that_is_down_leaves_terms_unknown_and_is_counted():
    def broken(messages, seed):
        raise OSError("down")

    judge = helper(broken)
    assert ask_judge(judge, "", "", "", "state", 0) == Judgement(None, None)
    assert (judge.asked, judge.failed) == (1, 1)
