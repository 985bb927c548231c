"""AlphaMath and MedS3: what they learn from searches, on tables, and with a language model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.lab.chains import Chain, Chains, misses
from stratagem.lab.rules import Case, Rules, fits
from stratagem.lab.steps import StepTable, TableSteps, Walk
from stratagem.planning import (
    AlphaMath,
    Ask,
    Fitting,
    HardLabels,
    Limits,
    MedS3,
    Path,
    Place,
    Samples,
    SoftLabels,
    Staged,
    StepBeam,
    TreeSearch,
    chosen_paths,
    labelled,
    learn_from,
)

SHORT = Chains(3)
QUICK = Fitting(learning_rate=5e-2, epochs=4)


def table(world: Chains | Rules, logits: torch.Tensor | None = None) -> TableSteps:
    known = world.half_learned(1000) if logits is None else logits
    return TableSteps(world, StepTable(known, world.most))


def reward(walk: Walk[Chain]) -> float:
    return 1.0 if SHORT.right(walk) else -1.0


def share(walk: Walk[Case]) -> float:
    return float(Rules().right(walk))


# ---- what it is played on --------------------------------------------------------------------------------------------


def test_a_chain_is_right_when_every_sum_is_done_in_the_right_way():
    chain = Chain(7, ((0, 5), (2, 3), (1, 4)))  # ((7 + 5) * 3) - 4
    walk = SHORT.start(chain)
    while not SHORT.ended(walk):
        look = SHORT.look(walk, "reason")
        walk = SHORT.then(walk, misses(SHORT.ways)[look].index(0), "reason")
    assert chain.truth == 32 and SHORT.answer(walk) == 32 and SHORT.right(walk)
    assert str(chain) == "7 + 5 * 3 - 4"


def test_the_exact_chance_of_success_is_what_sampling_comes_to():
    learner = table(SHORT)
    root = SHORT.start(SHORT.questions(1, 1000)[0])
    exact = SHORT.solved(root, torch.softmax(learner.policy.logits.detach().double(), -1))
    [found] = Samples(count=4000)([root], learner)
    sampled = sum(SHORT.right(one.state) for one in found.solutions) / 4000
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))


def test_one_label_of_a_case_fits_and_right_verdicts_find_it():
    world = Rules()
    for case in world.questions(50, 1000):
        assert sum(map(fits, case.facts)) == 1
        walk = world.start(case)
        for facts in case.facts:
            walk = world.then(walk, int(fits(facts)), "reason")
        assert world.right(walk) and case.truth in str(case)


def test_to_reflect_gives_another_verdict_on_the_label_that_was_the_answer():
    world = Rules(labels=3)
    walk = world.start(Case((0, 0, 0), (0, 7, 0)))
    for verdict in (1, 1, 0):
        walk = world.then(walk, verdict, "reason")
    assert world.answer(walk) == "A" and not world.right(walk)
    again = world.then(walk, 0, "reflect")
    assert world.answer(again) == "B" and world.right(again) and len(again.said) == 4
    none = world.then(world.then(again, 0, "reflect"), 0, "reflect")
    assert world.answer(none) is None and world.ended(none)


def test_a_step_that_finishes_gives_all_verdicts_that_are_left():
    world = Rules()
    learner, root = table(world), world.start(world.questions(1, 1000)[0])
    [[step]] = learner.propose([Ask(root, 0, 7, 1, "finish")])
    assert step.ended and step.tokens == 6 and step.state is not None and len(step.state.said) == 6
    odds = torch.softmax(learner.policy.logits.double(), -1)
    product = math.prod(odds[pair].item() for pair in step.state.said)
    assert step.prior == pytest.approx(product ** (1 / 6), rel=1e-5)


def test_what_a_table_is_asked_again_is_what_it_sampled_and_judged():
    learner = table(SHORT)
    with torch.no_grad():
        learner.policy.worth.normal_(generator=torch.Generator().manual_seed(1))
        learner.policy.base.normal_(generator=torch.Generator().manual_seed(2))
        learner.policy.trust.fill_(0.3)
    learner.refresh()
    roots = [SHORT.start(one) for one in SHORT.questions(4, 1000)]
    solutions = [one.solutions[0] for one in Samples()(roots, learner)]
    x = learner.record([(root, one.steps) for root, one in zip(roots, solutions, strict=True)])
    out = learner.policy(x, also=("value_after", "after"))
    states = [step.state for one in solutions for step in one.steps]
    priors = torch.tensor([step.prior for one in solutions for step in one.steps])
    judged = [one.value for one in learner.judge([Place(state, 0, 0) for state in states])]
    torch.testing.assert_close(out.logp.exp(), priors)
    torch.testing.assert_close(out.value_after.tanh(), torch.tensor(judged))
    assert out.after[:, :-5].sum(1).tolist() == [1, 2, 3] * 4


# ---- alphamath -------------------------------------------------------------------------------------------------------


def test_both_are_in_the_catalogue():
    assert catalogue.card("alphamath").build is AlphaMath
    assert catalogue.card("meds3").build is MedS3
    assert AlphaMath().search.limits.simulations == 40 and AlphaMath().search.rule.exploration == 1.5
    assert MedS3().search.rule.unvisited == 5.0 and MedS3().search.limits.right == 4


def paths_of(learner: TableSteps, right: bool) -> list[Path[Walk[Chain]]]:
    roots = [SHORT.start(one) for one in SHORT.questions(20, 1000)]
    found = AlphaMath().search(roots, learner, learner, reward)
    paths = AlphaMath().data(roots, found, 0)
    return [path for path in paths if path.right is right]


def test_targets_are_the_values_of_the_tree_and_the_reward_at_the_end():
    learner = table(SHORT)
    roots = [SHORT.start(SHORT.questions(1, 1000)[0])]
    [found] = AlphaMath().search(roots, learner, learner, reward)
    paths = chosen_paths(roots[0], found, 4, 0)
    by_steps = {tuple(step.said for step in one.steps): one for one in found.solutions}
    assert paths and sum(path.right for path in paths) <= 4 >= sum(not path.right for path in paths)
    for path in paths:
        solution = by_steps[tuple(step.said for step in path.steps)]
        assert path.targets == (*solution.values[:-1], 1.0 if path.right else -1.0)
        assert all(-1 <= target <= 1 for target in path.targets)


@pytest.mark.parametrize("right", [True, False])
def test_wrong_paths_move_the_critic_alone(right):
    learner = table(SHORT)
    paths = paths_of(learner, right)
    x = labelled(learner.record([(path.root, path.steps) for path in paths]), paths)
    loss = AlphaMath().objective(learner.policy(x, also=("value_after",)), x).loss
    loss.backward()
    assert bool(loss.isfinite())
    assert bool((learner.policy.logits.grad != 0).any()) is right
    assert bool((learner.policy.worth.grad != 0).any())


def test_a_question_never_solved_has_a_likelihood_of_no_loss():
    learner = table(SHORT)
    paths = paths_of(learner, False)
    x = labelled(learner.record([(path.root, path.steps) for path in paths]), paths)
    loss = AlphaMath(value_weight=0.0).objective(learner.policy(x, also=("value_after",)), x)
    assert loss.loss.item() == 0.0


def test_the_joint_loss_is_the_likelihood_of_right_tokens_and_the_error_at_ends_of_steps():
    learner = table(SHORT)
    paths = paths_of(learner, True)[:3] + paths_of(learner, False)[:3]
    x = labelled(learner.record([(path.root, path.steps) for path in paths]), paths)
    out = learner.policy(x, also=("value_after",))
    targets = torch.tensor([target for path in paths for target in path.targets])
    expected = -out.logp[:9].mean() + 0.1 * (out.value_after.tanh() - targets).square().mean()
    torch.testing.assert_close(AlphaMath().objective(out, x).loss, expected)


def test_rounds_teach_the_table_and_its_critic():
    learner = table(SHORT)
    roots = [SHORT.start(one) for one in SHORT.questions(30, 1000)]
    greedy = lambda: sum(  # noqa: E731
        SHORT.right(one.solutions[0].state) for one in Samples()(roots, TableSteps(SHORT, learner.policy, 0.0))
    )
    before, seen = greedy(), []
    rounds = AlphaMath(fitting=QUICK, rounds=2).train(learner, roots, reward, watch=lambda n, r: seen.append((n, r)))
    assert [number for number, _ in seen] == [0, 1] and [one for _, one in seen] == rounds
    assert greedy() > before and rounds[0].right > 0 and rounds[0].tokens > 0
    right = [learner.value(one.solutions[0].state) for one in Samples()(roots, TableSteps(SHORT, learner.policy, 0.0))]
    assert torch.tensor(right).mean() > 0
    assert AlphaMath().solve(learner, roots, 2, 3)[0].tokens > 0


def test_a_round_is_the_same_under_its_seed():
    ends = []
    for _ in range(2):
        learner = table(SHORT)
        roots = [SHORT.start(one) for one in SHORT.questions(5, 1000)]
        AlphaMath(fitting=QUICK, rounds=1).train(learner, roots, reward, seed=3)
        ends.append(learner.policy.logits.detach().clone())
    assert torch.equal(*ends)


def test_micro_batches_change_nothing_that_is_learned():
    ends = []
    for tokens in (None, 7):
        learner = table(SHORT)
        paths = paths_of(learner, True)[:10]
        learn_from(learner, AlphaMath().objective, paths, replace(QUICK, microbatch_tokens=tokens), 0)
        ends.append(learner.policy.logits.detach().clone())
    torch.testing.assert_close(*ends)


def test_nothing_is_learned_without_paths_and_wrong_numbers_are_named():
    assert learn_from(table(SHORT), AlphaMath().objective, [], QUICK, 0) == 0.0
    with pytest.raises(InputError, match=r"alphamath\.rounds = 0"):
        AlphaMath(rounds=0)
    with pytest.raises(InputError, match=r"alphamath\.value_weight = -1"):
        AlphaMath(value_weight=-1.0)
    with pytest.raises(InputError, match="at least one question"):
        AlphaMath().train(table(SHORT), [], reward)
    with pytest.raises(ValueError, match="given a reward"):
        [found] = Samples()([SHORT.start(SHORT.questions(1, 1000)[0])], table(SHORT))
        chosen_paths(SHORT.start(SHORT.questions(1, 1000)[0]), found, 1, 0)
    with pytest.raises(InputError, match=r"table_steps.temperature = -1"):
        TableSteps(SHORT, StepTable(SHORT.half_learned(1000), 3), -1.0)
    settings = [lambda: Fitting(batch=0), lambda: Fitting(learning_rate=0.0)]
    for wrong in (*settings, lambda: Chains(0), lambda: Rules(labels=1), lambda: MedS3(judged=0)):
        with pytest.raises(InputError, match="must be"):
            wrong()


# ---- meds3 -----------------------------------------------------------------------------------------------------------


def test_a_tree_in_which_all_is_right_ends_at_four_answers():
    world = Rules()
    roots = [world.start(one) for one in world.questions(5, 1000)]
    unsure = replace(MedS3().search, expansion=Staged(3, sure=1.1))
    found = MedS3(search=unsure).explore(table(world, torch.zeros(world.looks, 2)), roots, lambda walk: 1.0)
    assert [one.statistics["right"] for one in found] == [4] * 5


def test_a_question_that_is_surely_solved_has_one_answer_for_each_first_step():
    world = Rules()
    roots = [world.start(one) for one in world.questions(5, 1000)]
    found = MedS3().explore(table(world), roots, lambda walk: 1.0)
    for one in found:
        assert one.statistics["exhausted"] == 1 and one.statistics["depth"] == 2
        assert len(one.solutions) == len({path.steps[0].said for path in one.solutions}) == one.statistics["nodes"] / 2
    assert MedS3().judge_data(roots, found) == []


def test_values_of_a_tree_with_rollouts_are_shares():
    world = Rules()
    roots = [world.start(one) for one in world.questions(4, 1000)]
    for one in MedS3().explore(table(world), roots, share):
        assert all(0 <= value <= 1 for path in one.solutions for value in path.values)
        assert one.statistics["judge_tokens"] > 0
        assert one.statistics["exhausted"] or one.statistics["nodes"] >= 60 or one.statistics["right"] >= 4


def test_the_policy_learns_right_paths_and_the_judge_tells_them_from_wrong_ones():
    world, method = Rules(), MedS3(fitting=QUICK)
    roots = [world.start(one) for one in world.questions(20, 1000)]
    learner = table(world)
    found = method.explore(learner, roots, share)
    odds = torch.log_softmax(learner.policy.logits.detach().clone(), -1)
    method.train_policy(learner, roots, found)
    truth = torch.tensor([int(fits(look % 32)) for look in range(world.looks)])
    gained = torch.log_softmax(learner.policy.logits.detach(), -1) - odds
    assert gained.gather(1, truth.unsqueeze(1)).mean() > 0

    scorer = method.train_judge(learner, roots, found)
    scores = {True: list[float](), False: list[float]()}
    for root, one in zip(roots, found, strict=True):
        for path, steps in zip(one.solutions, scorer(root, one.solutions), strict=True):
            assert len(steps) == len(path.steps) and all(0 < score < 1 for score in steps)
            scores[world.right(path.state)].append(steps[-1])
    mean = {right: sum(some) / len(some) for right, some in scores.items()}
    assert mean[True] > mean[False] + 0.2
    answered = method.answer(learner, scorer, roots, count=8)
    assert all(len(one.scores) == len(one.solutions) == 8 for one in answered)
    assert sum(one.answer == root.question.truth for one, root in zip(answered, roots, strict=True)) > 10


def test_the_judge_learns_from_the_paths_that_vary_most_of_questions_with_both_sides():
    world = Rules()
    roots = [world.start(one) for one in world.questions(20, 1000)]
    found = MedS3().explore(table(world), roots, share)
    raw = replace(MedS3(judged=1, labels=SoftLabels(0.0)), both=False).judge_data(roots, found)
    both = MedS3(judged=1, labels=SoftLabels(0.0)).judge_data(roots, found)
    assert len(both) < len(raw) and len(both) % 2 == 0
    assert all(one.right is not other.right for one, other in zip(both[::2], both[1::2], strict=True))
    variance = lambda targets: torch.tensor(targets).var(unbiased=False).item()  # noqa: E731
    for root, one in zip(roots, found, strict=True):
        every = chosen_paths(root, one, len(one.solutions), 0)
        for path in both:
            if path.root == root:
                rivals = [variance(other.targets) for other in every if other.right is path.right]
                assert variance(path.targets) == pytest.approx(max(rivals))
    labels = [
        MedS3(labels=kind).judge_data(roots, found) for kind in (SoftLabels(), SoftLabels(0.5, "one"), HardLabels())
    ]
    assert labels[0] != labels[1] != labels[2] != labels[0]


def test_a_judge_without_data_is_an_error():
    with pytest.raises(InputError, match="nothing to train a judge on"):
        MedS3().train_judge(table(Rules()), [], [])


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def writer(make_policy):
    from stratagem.language.hf_engine import HFEngine
    from stratagem.language.sampling import SamplingParams
    from stratagem.planning.text import TextSteps

    policy = make_policy(context=256)
    params = SamplingParams(6, stop=("e",))
    return TextSteps(policy, HFEngine(policy), params, lambda text: len(text) if len(text) > 12 else None)


def test_a_language_model_is_searched_and_learns_from_its_paths(writer):
    with torch.no_grad():
        writer.policy.value_head.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    roots = [writer.start(n, f"question {n}") for n in range(3)]
    method = AlphaMath(search=replace(AlphaMath().search, limits=Limits(6)), fitting=Fitting(1e-3, 1, 4), rounds=1)
    before, version = writer.judge([Place(root, 0, 0) for root in roots]), writer.engine.version
    done = method.train(writer, roots, lambda state: 1.0 if len(state.text) % 2 else -1.0)
    assert done[0].paths > 0 and math.isfinite(done[0].loss) and writer.engine.version == version + 1
    assert writer.judge([Place(root, 0, 0) for root in roots]) != before
    assert not writer.engine._sessions


def test_text_that_is_read_again_has_the_probabilities_and_values_of_the_search(writer):
    with torch.no_grad():
        writer.policy.value_head.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    roots = [writer.start(n, f"question {n}") for n in range(4)]
    found = TreeSearch(limits=Limits(8))(roots, writer, writer, lambda state: 1.0)
    paths = [(root, path.steps) for root, one in zip(roots, found, strict=True) for path in one.solutions]
    assert paths
    x = writer.record(paths)
    with torch.no_grad():
        out = writer.policy(x, also=("value_after",))
    priors = torch.tensor([step.prior for _, steps in paths for step in steps])
    torch.testing.assert_close(x.turn_of_token.mean(out.logp).exp().float(), priors, rtol=1e-4, atol=1e-5)
    states = [Place(step.state, 0, 0) for _, steps in paths for step in steps]
    judged = torch.tensor([one.value for one in writer.judge(states)])
    torch.testing.assert_close(out.value_after[x.turn_of_token.last()].tanh(), judged, rtol=1e-4, atol=1e-5)


def test_what_earlier_steps_computed_is_taken_over_while_the_engine_keeps_it(writer):
    from stratagem.planning.text import TextSteps

    params = replace(writer.params, max_new_tokens=40, stop=("e", "a", "o", "1", " "))
    writer = TextSteps(writer.policy, writer.engine, params, lambda text: len(text) if len(text) > 60 else None)
    roots = [writer.start(n, f"a question that is longer than what is shared at least, number {n}") for n in range(2)]
    search, counts, solutions = TreeSearch(limits=Limits(30)), [], []
    for kept in (0, 64):
        before = writer.engine.prefilled
        with writer.engine.keeping(kept):
            found = search(roots, writer, writer, lambda state: 1.0)
        counts.append(writer.engine.prefilled - before)
        solutions.append([[step.said for step in path.steps] for one in found for path in one.solutions])
    assert counts[1] < 0.7 * counts[0] and solutions[0] == solutions[1]
    assert not writer.engine._sessions


def test_cues_are_read_and_not_learned_and_steps_cut_short_lead_nowhere(writer):
    from stratagem.planning.text import TextSteps

    cued = TextSteps(writer.policy, writer.engine, writer.params, writer.answer, {"finish": "now "})
    root = cued.start(0, "question")
    said = cued.propose([Ask(root, 0, seed, 8, "finish") for seed in range(4)])
    steps = [step for some in said for step in some]
    alive = [step for step in steps if step.state is not None]
    assert alive and len(alive) < len(steps)
    for step in alive:
        [(first, last)] = step.state.steps
        assert last - first == step.tokens and first > len(root.tokens) and last == len(step.state.tokens)
        assert step.said[1].endswith("e") or step.ended
    assert StepBeam(beams=2, samples=3, depth=4)([root], writer, writer)[0].tokens > 0


def test_steps_of_text_need_a_stop(writer):
    from stratagem.language.sampling import SamplingParams
    from stratagem.planning.text import TextSteps

    with pytest.raises(InputError, match=r"text_steps\.params\.stop"):
        TextSteps(writer.policy, writer.engine, SamplingParams(6), writer.answer)
