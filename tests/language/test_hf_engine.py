import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.engine import Completion, Request
from stratagem.language.hf_engine import HFEngine
from stratagem.language.inputs import TokenInputs
from stratagem.language.policy import LanguagePolicy
from stratagem.language.sampling import SamplingParams

MakeModel = Callable[..., PreTrainedModel]
Context = list[tuple[list[int], bool]]  # pieces of a conversation, and whether the policy sampled them


@pytest.fixture
def build(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> Callable[..., tuple[LanguagePolicy, HFEngine]]:
    def build(kind: str = "qwen3", fused: bool = True, **options: Any) -> tuple[LanguagePolicy, HFEngine]:
        policy = LanguagePolicy(make_model(kind, **options), tokenizer, dtype="float32")
        engine = HFEngine(policy)
        if not fused:
            engine._fused = None
        return policy, engine

    return build


Build = Callable[..., tuple[LanguagePolicy, HFEngine]]


def prompts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, 320, (length,), generator=generator).tolist() for length in lengths]


def turn(engine: HFEngine, sessions: list[int], new: list[list[int]], **params: Any) -> list[Completion]:
    sampling = SamplingParams(**({"max_new_tokens": 8} | params))
    return engine.generate([Request(s, tokens, 100 + s, sampling) for s, tokens in zip(sessions, new, strict=True)])


def learner_logp(policy: LanguagePolicy, contexts: list[Context], temperature: float = 1.0) -> list[float]:
    ids, lengths, actions = [], [], []
    for context in contexts:
        start = len(ids)
        for tokens, sampled in context:
            if sampled:
                actions.extend(range(len(ids), len(ids) + len(tokens)))
            ids.extend(tokens)
        lengths.append(len(ids) - start)
    inputs = TokenInputs(torch.tensor(ids), torch.tensor(lengths), torch.tensor(actions))
    counts = [sum(len(tokens) for tokens, sampled in context if sampled) for context in contexts]
    x = Experience.from_lengths(counts, [1] * len(contexts), [len(contexts)], inputs=inputs)
    with torch.no_grad():
        return policy(x, temperature).logp.tolist()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "tied", "llama", "qwen2", "mistral"])
def test_engine_and_learner_agree_over_turns_and_a_weight_update(build: Build, kind: str, fused: bool) -> None:
    policy, engine = build(kind, fused)
    assert (engine._fused is not None) == (fused and kind != "mistral")
    sessions = engine.open(5)
    contexts: list[Context] = [[] for _ in sessions]
    engine_logp: list[list[float]] = [[] for _ in sessions]
    for round_number in range(3):
        observations = prompts([3 + (round_number * 5 + 7 * place) % 11 for place in range(5)], seed=round_number)
        for context, logp, observation, completion in zip(
            contexts, engine_logp, observations, turn(engine, sessions, observations, temperature=0.8), strict=True
        ):
            context += [(observation, False), (completion.tokens, True)]
            logp += completion.logp
    flat = [value for logp in engine_logp for value in logp]
    assert flat == pytest.approx(learner_logp(policy, contexts, 0.8), abs=1e-4)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.05)
    engine.load_weights(policy, 1)
    observations = prompts([4, 2, 6, 3, 5], seed=9)
    for context, observation, completion in zip(
        contexts, observations, turn(engine, sessions, observations), strict=True
    ):
        context += [(observation, False), (completion.tokens, True)]
        assert completion.version == 1
        after = learner_logp(policy, [context])
        assert completion.logp == pytest.approx(after[-len(completion.logp) :], abs=1e-4)


def test_a_request_samples_the_same_alone_and_among_others(build: Build) -> None:
    _, engine = build()
    texts = prompts([5, 9, 3, 12, 7, 5])
    together = turn(engine, engine.open(6), texts, max_new_tokens=20, temperature=1.2)
    for place in range(6):
        _, fresh = build()
        number = fresh.open(place + 1)[-1]
        assert (
            turn(fresh, [number], [texts[place]], max_new_tokens=20, temperature=1.2)[0].tokens
            == together[place].tokens
        )


def test_order_of_requests_does_not_matter(build: Build) -> None:
    texts = prompts([5, 9, 3, 12])
    answers = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        _, engine = build()
        sessions = engine.open(4)
        first = turn(engine, [sessions[i] for i in order], [texts[i] for i in order])
        second = turn(engine, [sessions[i] for i in order[::-1]], [texts[i] for i in order[::-1]])
        found = {i: (first[k].tokens, second[3 - k].tokens) for k, i in enumerate(order)}
        answers.append([found[i] for i in range(4)])
    assert answers[0] == answers[1]


def test_a_cached_session_equals_computing_it_from_scratch(build: Build) -> None:
    _, engine = build()
    sessions = engine.open(3)
    first_new, second_new = prompts([6, 4, 9]), prompts([3, 8, 2], seed=1)
    first = turn(engine, sessions, first_new)
    second = turn(engine, sessions, second_new)
    _, other = build()
    whole = [a + answer.tokens + b for a, answer, b in zip(first_new, first, second_new, strict=True)]
    again = turn(other, other.open(3), whole)
    for cached, computed in zip(second, again, strict=True):
        assert cached.tokens == computed.tokens
        assert cached.logp == pytest.approx(computed.logp, abs=1e-5)


def test_sessions_that_skip_turns_keep_their_context(build: Build) -> None:
    policy, engine = build()
    sessions = engine.open(6)
    contexts: list[Context] = [[] for _ in sessions]
    logp: list[list[float]] = [[] for _ in sessions]
    for number, active in enumerate([[0, 1, 2, 3, 4, 5], [5, 2], [0, 3, 4], [1, 5, 0]]):
        new = prompts([2 + place for place in active], seed=number)
        answers = turn(engine, [sessions[place] for place in active], new, max_new_tokens=2 + number)
        for place, tokens, answer in zip(active, new, answers, strict=True):
            contexts[place] += [(tokens, False), (answer.tokens, True)]
            logp[place] += answer.logp
    engine.close([sessions[1], sessions[4]])
    flat = [value for session in logp for value in session]
    assert flat == pytest.approx(learner_logp(policy, contexts), abs=1e-4)
    left = [0, 2, 3, 5]
    new = prompts([3] * 4, seed=8)
    for place, tokens, answer in zip(left, new, turn(engine, [sessions[p] for p in left], new), strict=True):
        contexts[place] += [(tokens, False), (answer.tokens, True)]
        assert answer.logp == pytest.approx(learner_logp(policy, [contexts[place]])[-len(answer.logp) :], abs=1e-4)


def test_sessions_opened_later_may_take_their_turn_first(build: Build) -> None:
    # They are more than the cache has rows so far. Theirs are the first rows from then on, the older ones move behind.
    policy, engine = build()
    older, opening = engine.open(12), prompts([5] * 12)
    first = turn(engine, older, opening)
    turn(engine, engine.open(12), prompts([7] * 12, seed=1))
    later = turn(engine, older, [[7, 8]] * 12)
    contexts: list[Context] = [
        [(read, False), (one.tokens, True), ([7, 8], False), (two.tokens, True)]
        for read, one, two in zip(opening, first, later, strict=True)
    ]
    said = [value for one, two in zip(first, later, strict=True) for value in (*one.logp, *two.logp)]
    assert said == pytest.approx(learner_logp(policy, contexts), abs=1e-4)


def test_sessions_opened_beside_cached_ones_get_room_before_rows_change_places(build: Build) -> None:
    """Twelve held sessions fill most of a cache of sixteen rows, and twelve new ones are to come first."""
    _, engine = build()
    held, first = engine.open(12), prompts([5] * 12)
    turn(engine, held, first)
    fresh = engine.open(12)
    said = turn(engine, fresh, prompts([7] * 12, seed=1))
    _, other = build()
    other.open(12)
    assert [c.tokens for c in said] == [c.tokens for c in turn(other, other.open(12), prompts([7] * 12, seed=1))]
    again = turn(engine, held, prompts([3] * 12, seed=2))
    engine.close(held[::2])
    assert (
        all(completion.tokens for completion in again) and len(turn(engine, held[1::2], [[] for _ in held[1::2]])) == 6
    )


def test_closing_moves_a_session_that_has_no_room_in_the_cache_yet(build: Build) -> None:
    """Eighteen sessions and room for sixteen: the last one, never read, moves together with cached ones."""
    said = []
    for closes in (True, False):
        _, engine = build()
        held = engine.open(13)
        turn(engine, held, prompts([5] * 13))
        fresh = engine.open(5)
        if closes:
            engine.close([*held[:3], *fresh[:4]])
        said.append(turn(engine, [*held[3:], fresh[4]], prompts([3] * 11, seed=1)))
    assert [c.tokens for c in said[0]] == [c.tokens for c in said[1]]


def test_sessions_that_open_alike_are_computed_once_and_diverge(build: Build) -> None:
    policy, engine = build()
    text = prompts([10])[0]
    answers = turn(engine, engine.open(4), [text] * 4, temperature=1.5)
    assert len({tuple(answer.tokens) for answer in answers}) > 1
    contexts: list[Context] = [[(text, False), (answer.tokens, True)] for answer in answers]
    flat = [value for answer in answers for value in answer.logp]
    assert flat == pytest.approx(learner_logp(policy, contexts, 1.5), abs=1e-4)


def test_greedy_takes_the_mode_of_the_model(build: Build, make_model: MakeModel) -> None:
    _, engine = build()
    text = prompts([6])[0]
    answer = turn(engine, engine.open(1), [text], greedy=True, max_new_tokens=4)[0]
    with torch.no_grad():
        modes = make_model()(torch.tensor([text + answer.tokens])).logits[0].argmax(-1)
    assert answer.tokens == modes[5:-1].tolist()
    assert answer.logp == [0.0] * 4


def test_the_end_token_ends_a_turn_and_is_not_text(build: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    _, engine = build()
    text = prompts([6])[0]
    free = turn(engine, engine.open(1), [text], max_new_tokens=12)[0]
    end = free.tokens[5]
    _, other = build()
    stopped = turn(other, other.open(1), [text], max_new_tokens=12, stop_token_ids=(end,))[0]
    cut = free.tokens.index(end) + 1
    assert stopped.tokens == free.tokens[:cut]
    assert stopped.finish_reason == "stop"
    assert stopped.text == tokenizer.decode(free.tokens[: cut - 1], skip_special_tokens=True)
    assert free.finish_reason == "length"


def test_a_stop_string_across_tokens_ends_a_turn_and_stays(build: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    _, engine = build()
    text = prompts([6])[0]
    free = turn(engine, engine.open(1), [text], max_new_tokens=30)[0]
    pieces = [tokenizer.decode([token]) for token in free.tokens]
    place = next(
        i
        for i in range(4, 29)
        if "\ufffd" not in pieces[i] + pieces[i + 1] and pieces[i].isascii() and pieces[i + 1].isascii()
    )
    stop = pieces[place][-1] + pieces[place + 1][0]
    _, other = build()
    stopped = turn(other, other.open(1), [text], max_new_tokens=30, stop=("never", stop))[0]
    assert stopped.finish_reason == "stop"
    assert stop in stopped.text
    assert stop not in tokenizer.decode(stopped.tokens[:-1])
    assert stopped.tokens == free.tokens[: len(stopped.tokens)]


def test_a_full_context_ends_turns_without_error(build: Build) -> None:
    _, engine = build(max_position_embeddings=16)
    short, full, over = sessions = engine.open(3)
    answers = turn(engine, sessions, prompts([10, 16, 17]), max_new_tokens=50)
    assert [len(answer.tokens) for answer in answers] == [6, 0, 0]
    assert {answer.finish_reason for answer in answers} == {"length"}
    after = turn(engine, [short], prompts([1]))[0]
    assert (after.tokens, after.logp, after.text, after.finish_reason) == ([], [], "", "length")
    assert len(turn(engine, [full, over], prompts([12, 13]))[0].tokens) == 4


def test_continuing_without_new_tokens_continues_the_turn(build: Build) -> None:
    policy, engine = build()
    text = prompts([6])[0]
    sessions = engine.open(1)
    first, second = turn(engine, sessions, [text]), turn(engine, sessions, [[]])
    context: Context = [(text, False), (first[0].tokens + second[0].tokens, True)]
    assert first[0].logp + second[0].logp == pytest.approx(learner_logp(policy, [context]), abs=1e-4)


def test_no_requests_no_completions(build: Build) -> None:
    assert build()[1].generate([]) == []


def test_new_weights_change_what_is_sampled_and_old_ones_do_not_leak(build: Build, make_model: MakeModel) -> None:
    policy, engine = build()
    text = prompts([6])[0]
    before = turn(engine, engine.open(1), [text], greedy=True, max_new_tokens=20)[0]
    with torch.no_grad():
        for parameter, other in zip(policy.parameters(), make_model("qwen3", seed=1).parameters(), strict=True):
            parameter.copy_(other)
    unmoved = turn(engine, engine.open(1), [text], greedy=True, max_new_tokens=20)[0]
    assert unmoved.tokens == before.tokens and unmoved.version == 0
    engine.load_weights(policy, 7)
    after = turn(engine, engine.open(1), [text], greedy=True, max_new_tokens=20)[0]
    assert after.tokens != before.tokens and after.version == engine.version == 7


def test_adapters_are_served_merged(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    policy = LanguagePolicy(make_model(), tokenizer, dtype="float32", lora={"rank": 2})
    engine = HFEngine(policy)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    engine.load_weights(policy, 1)
    text = prompts([6])[0]
    answer = turn(engine, engine.open(1), [text])[0]
    assert answer.logp == pytest.approx(learner_logp(policy, [[(text, False), (answer.tokens, True)]]), abs=1e-4)


def test_bfloat16_samples_with_its_own_probabilities(build: Build) -> None:
    policy, _ = build(initializer_range=0.05)
    engine = HFEngine(policy, dtype="bfloat16")
    text = prompts([6])[0]
    answer = turn(engine, engine.open(1), [text])[0]
    assert answer.logp == pytest.approx(learner_logp(policy, [[(text, False), (answer.tokens, True)]]), abs=0.05)


def test_closing_frees_the_cache(build: Build) -> None:
    _, engine = build()
    sessions = engine.open(20)
    turn(engine, sessions, prompts([30] * 20))
    assert engine._cache.rows >= 20 and engine._cache.capacity >= 37
    engine.close(sessions[:7])
    engine.close(sessions[7:])
    assert engine._cache.keys.numel() == engine._cache.values.numel() == 0
    assert len(turn(engine, engine.open(1), prompts([3]))[0].tokens) == 8


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda e: e.open(99), "exceed max_sessions=3"),
        (lambda e: e.close([5]), "session 5 is not open"),
        (lambda e: turn(e, [5], [[1]]), "session 5 is not open"),
        (lambda e: turn(e, [0, 0], [[1], [1]]), "session 0 occurs twice"),
        (lambda e: turn(e, [0], [[]]), "session 0 is empty"),
    ],
)
def test_wrong_requests_are_refused(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, ask: Callable[[HFEngine], Any], message: str
) -> None:
    engine = HFEngine(LanguagePolicy(make_model(), tokenizer, dtype="float32"), max_sessions=3)
    engine.open(1)
    with pytest.raises(InputError, match=message):
        ask(engine)


def test_sessions_opened_beside_many_others_that_were_read_find_room(tokenizer, make_model):
    """More rows than the cache has: the new ones come first, and what is cached moves behind them and back."""
    engine = HFEngine(LanguagePolicy(make_model(), tokenizer, dtype="float32"))
    params = SamplingParams(3)
    held = engine.open(12)
    first = engine.generate([Request(session, [5, 6, session], 0, params) for session in held])
    fresh = engine.open(12)
    engine.generate([Request(session, [7], 0, params) for session in fresh])
    engine.close(held[:6])
    again = engine.generate([Request(session, [8], 1, params) for session in held[6:]])
    alone = HFEngine(LanguagePolicy(make_model(), tokenizer, dtype="float32"))
    sessions = alone.open(6)
    read = [[5, 6, session, *turn.tokens, 8] for session, turn in zip(held[6:], first[6:], strict=True)]
    expected = alone.generate([Request(s, tokens, 1, params) for s, tokens in zip(sessions, read, strict=True)])
    assert [turn.tokens for turn in again] == [turn.tokens for turn in expected]


def test_weights_loaded_while_threads_play_act_from_a_turn_on_and_versions_say_which(build: Build) -> None:
    """Every token is of the weights its version names, though those change all the time."""
    policy, engine = build()
    other, _ = build(seed=1)
    sources, over = (policy, other), threading.Event()

    def learn() -> None:
        version = 0
        while not over.is_set():
            version += 1
            engine.load_weights(sources[version % 2], version)

    def play(number: int) -> list[tuple[int, float, float]]:
        context: Context = []
        told: list[tuple[int, list[float]]] = []
        [session] = engine.open(1)
        for round_number in range(6):
            [observation] = prompts([5 + number], seed=10 * number + round_number)
            [completion] = turn(engine, [session], [observation], max_new_tokens=6)
            context += [(observation, False), (completion.tokens, True)]
            told.append((completion.version % 2, completion.logp))
        engine.close([session])
        said = [learner_logp(source, [context]) for source in sources]
        flat = [(which, value) for which, logp in told for value in logp]
        return [(which, value, said[which][place]) for place, (which, value) in enumerate(flat)]

    learner = threading.Thread(target=learn)
    learner.start()
    try:
        with ThreadPoolExecutor(3) as threads:
            rows = [row for rows in threads.map(play, range(3)) for row in rows]
    finally:
        over.set()
        learner.join(20)
    assert {which for which, _, _ in rows} == {0, 1}
    assert [value for _, value, _ in rows] == pytest.approx([expected for _, _, expected in rows], abs=1e-4)
