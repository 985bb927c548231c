"""The claim of online DPO: votes on the policy's own answers are worth more than as many on the reference's."""

from __future__ import annotations

from stratagem.claims.reasoning.normalized import QUESTIONS, QUIZ, first_policy
from stratagem.lab.world import LabTask
from stratagem.preferences import BradleyTerry, SingleVote
from stratagem.recipes import preferences
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import learn

BATCHES = 30

VOTERS = SingleVote(BradleyTerry(0.5))
"""They vote for the right one of two answers in 88 % of cases."""

STRENGTH = 0.1


@claim(
    "online_dpo",
    statement="With votes on pairs that the policy itself has just sampled, DPO does better than with pairs "
    "sampled beforehand: human raters prefer online feedback to offline methods and to reinforcement learning from a "
    "reward model in several tasks.",
    source="arXiv 2402.04792, abstract; its tables were not available",
    baseline="DPO on pairs of the reference, as many votes and optimizer steps",
    rule=(Expect("final_gain", above=0),),
    scale="A table of 64 questions with eight answers, one of them right, success rates of the reference from "
    "Beta(0.6, 2.4); votes for the right one of two answers in 88 % of cases, strength 0.1. Both arms see 1,920 "
    "votes and take 30 steps of AdamW at the lab's rate; the offline arm takes each on a thirtieth of the votes, and "
    "offline_twice takes every vote twice, with as many more steps, which gained far more in first runs than being "
    "online did: a cheap control that the effect is small beside. Exact returns. Questions share no parameters.",
)
def online_dpo(seed: int) -> dict[str, float]:
    """Exact returns after learning."""
    start = first_policy(seed)
    recipe = preferences.online_dpo(STRENGTH, VOTERS)
    online = recipe.with_values({"sampler.prompts_per_step": QUESTIONS})
    offline = recipe.with_values({"sampler.prompts_per_step": QUESTIONS * BATCHES, "optimization.minibatches": BATCHES})
    arms = {
        "online": (online, BATCHES),
        "offline": (offline, 1),
        "offline_twice": (offline.with_values({"optimization.epochs": 2}), 1),
    }
    final = {
        name: learn(arm, LabTask(QUIZ), seed, batches, start).last.expected_return
        for name, (arm, batches) in arms.items()
    }
    return {
        "final_gain": final["online"] - final["offline"],
        "final_gain_over_twice": final["online"] - final["offline_twice"],
        "final_return": final["online"],
        "first_return": start.expected_return,
    }
