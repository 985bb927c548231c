"""What every engine must do, as tests: for the engines here and for those of other packages."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.engine import Completion, Engine, Request, WeightMismatchError
from stratagem.language.inputs import TokenInputs
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.sampling import SamplingParams, keep_likeliest
from stratagem.seeding import generator

Turns = Sequence[tuple[Sequence[int], bool]]
"""A conversation in pieces, each with whether it was sampled."""

CONTEXT = 256
"""Tokens the context of :func:`small_policy` holds."""


class EngineConformance(ABC):
    """Tests for pytest, inherited by a class whose name begins with ``Test`` and that says how to build an engine.

    >>> class TestMyEngine(EngineConformance):
    ...     @classmethod
    ...     def build(cls, policy):
    ...         return MyEngine(policy)

    One engine serves the whole class, since some take long to start: every test opens sessions of its own and closes
    them, and leaves the weights as they were. What is compared with the learner's own computation may differ by
    ``tolerance`` nats a token; it is for engines that compute in float32.

    tolerance: absolute, of log-probabilities.  limit: most sessions open at once, None if there is no limit.
    """

    tolerance: ClassVar[float] = 1e-4
    limit: ClassVar[int | None] = None

    policy: ClassVar[LanguagePolicy]
    engine: ClassVar[Engine]

    @classmethod
    @abstractmethod
    def build(cls, policy: LanguagePolicy) -> Engine:
        """An engine that serves this policy, at version 0, on which no session is open."""

    @classmethod
    def make_policy(cls) -> LanguagePolicy:
        """The policy to serve: a context of ``CONTEXT`` tokens, weights that tell distributions apart."""
        return small_policy()

    @classmethod
    def tear_down(cls, engine: Engine) -> None:
        """Give back what the engine holds."""

    @classmethod
    def setup_class(cls) -> None:
        cls.policy = cls.make_policy()
        cls.engine = cls.build(cls.policy)

    @classmethod
    def teardown_class(cls) -> None:
        cls.tear_down(cls.engine)

    # ---- what is sampled --------------------------------------------------------------------------------------------

    def test_its_log_probabilities_are_the_learners_over_turns(self) -> None:
        """Conversations of several turns and lengths, in which some sit out turns; tokens in and tokens out."""
        with _Sessions(self.engine, 5) as sessions:
            heard: list[list[tuple[list[int], bool]]] = [[] for _ in sessions]
            told: list[list[float]] = [[] for _ in sessions]
            for number, active in enumerate([[0, 1, 2, 3, 4], [3, 1], [0, 4, 2], [1, 2, 3, 4, 0]]):
                read = texts([3 + (5 * number + 7 * place) % 40 for place in active], number)
                for place, tokens, said in zip(
                    active, read, _turn(self.engine, [sessions[a] for a in active], read, temperature=0.8), strict=True
                ):
                    heard[place] += [(tokens, False), (said.tokens, True)]
                    told[place] += said.logp
            for turns, values in zip(heard, told, strict=True):
                _close(values, learner_logp(self.policy, turns, 0.8), self.tolerance)

    def test_its_log_probabilities_are_of_what_top_k_and_top_p_leave(self) -> None:
        for chosen in ({"top_k": 5}, {"top_p": 0.7}, {"top_k": 12, "top_p": 0.8, "temperature": 1.3}):
            params = SamplingParams(max_new_tokens=12, **chosen)
            with _Sessions(self.engine, 4) as sessions:
                read = texts([6, 40, 11, 23], 1)
                asked = [
                    Request(s, tokens, 7 + n, params) for n, (s, tokens) in enumerate(zip(sessions, read, strict=True))
                ]
                for tokens, said in zip(read, self.engine.generate(asked), strict=True):
                    _close(said.logp, _cut_logp(self.policy, tokens, said.tokens, params), self.tolerance)

    def test_it_samples_as_often_as_it_says(self) -> None:
        """First tokens of 600 seeds, after top-k 6: Pearson's chi-square over 6 tokens, at most 1 in 10^5 by chance."""
        params, tokens, draws = SamplingParams(max_new_tokens=1, top_k=6, temperature=1.5), texts([20], 2)[0], 600
        counted: dict[int, int] = {}
        chance: dict[int, float] = {}
        for start in range(0, draws, 100):
            with _Sessions(self.engine, 100) as sessions:
                asked = [Request(s, tokens, 1000 + start + n, params) for n, s in enumerate(sessions)]
                for said in self.engine.generate(asked):
                    counted[said.tokens[0]] = counted.get(said.tokens[0], 0) + 1
                    chance[said.tokens[0]] = math.exp(said.logp[0])
        seen = sum(chance.values())
        assert 0.95 < seen < 1 + 1e-3, f"the tokens drawn hold {seen} of the distribution"
        distance = sum((counted[token] - draws * p) ** 2 / (draws * p) for token, p in chance.items())
        # The upper 1e-5 quantile of the chi-square distribution with 5 degrees of freedom.
        assert distance < 30.86, f"chi-square {distance} over {len(chance)} tokens"

    def test_greedy_takes_the_likeliest_token_and_its_log_probability_is_0(self) -> None:
        with _Sessions(self.engine, 2) as sessions:
            read = texts([9, 33], 3)
            # Beside a turn that is not greedy.
            params = (SamplingParams(max_new_tokens=10, greedy=True), SamplingParams(max_new_tokens=10))
            asked = [Request(s, t, 5, p) for s, t, p in zip(sessions, read, params, strict=True)]
            said = self.engine.generate(asked)[0]
        assert said.logp == [0.0] * len(said.tokens)
        logits = _logits(self.policy, [*read[0], *said.tokens])[len(read[0]) - 1 : -1]
        taken = logits.gather(1, torch.tensor(said.tokens).unsqueeze(1)).squeeze(1)
        assert float((logits.max(-1).values - taken).max()) <= self.tolerance

    # ---- seeds ------------------------------------------------------------------------------------------------------

    def test_a_seed_says_the_same_again_in_any_company(self) -> None:
        read = texts([7, 12, 30, 7, 5], 4)
        with _Sessions(self.engine, 5) as sessions:
            together = _turn(self.engine, sessions, read, temperature=1.2)
        with _Sessions(self.engine, 5) as sessions:
            again = _turn(self.engine, sessions[::-1], read[::-1], [104 - n for n in range(5)], temperature=1.2)[::-1]
        alone = []
        for number in range(5):
            with _Sessions(self.engine, 1) as sessions:
                alone += _turn(self.engine, sessions, [read[number]], [100 + number], temperature=1.2)
        assert [said.tokens for said in together] == [said.tokens for said in again]
        assert [said.tokens for said in together] == [said.tokens for said in alone]

    def test_other_seeds_say_something_else(self) -> None:
        with _Sessions(self.engine, 8) as sessions:
            said = _turn(self.engine, sessions, texts([10], 5) * 8, temperature=1.5, max_new_tokens=12)
        assert len({tuple(one.tokens) for one in said}) >= 7

    def test_a_seed_may_be_any_integer(self) -> None:
        with _Sessions(self.engine, 4) as sessions:
            read = texts([5] * 4, 6)
            said = _turn(self.engine, sessions, read, [-1, 0, 2**63 - 1, 2**64 + 3])
        assert all(one.tokens for one in said)

    # ---- sessions ---------------------------------------------------------------------------------------------------

    def test_a_conversation_that_goes_on_is_one_read_at_once(self) -> None:
        first, second = texts([50, 3, 36], 7), texts([4, 35, 1], 8)
        with _Sessions(self.engine, 3) as sessions:
            begun = _turn(self.engine, sessions, first)
            seeds = [200, 201, 202]
            went_on = _turn(self.engine, sessions, second, seeds)
        with _Sessions(self.engine, 3) as sessions:
            whole = [[*a, *said.tokens, *b] for a, said, b in zip(first, begun, second, strict=True)]
            at_once = _turn(self.engine, sessions, whole, seeds)
        for one, other in zip(went_on, at_once, strict=True):
            assert one.tokens == other.tokens
            _close(one.logp, other.logp, self.tolerance)

    def test_a_turn_without_new_tokens_goes_on(self) -> None:
        read = texts([8], 9)
        with _Sessions(self.engine, 1) as sessions:
            first = _turn(self.engine, sessions, read)[0]
            second = _turn(self.engine, sessions, [[]])[0]
        turns = [(read[0], False), ([*first.tokens, *second.tokens], True)]
        _close([*first.logp, *second.logp], learner_logp(self.policy, turns), self.tolerance)

    def test_what_is_read_is_counted(self) -> None:
        """At least what is new and not held by another session, at most every token of the conversation."""
        new, more = texts([60], 10)[0], texts([40], 11)[0]
        with _Sessions(self.engine, 1) as sessions:
            before = self.engine.prefilled, self.engine.taken_over
            said = _turn(self.engine, sessions, [new])[0]
            after = self.engine.prefilled, self.engine.taken_over
            assert after[0] - before[0] == len(new) and after[1] == before[1]
            _turn(self.engine, sessions, [more])
            read = self.engine.prefilled - after[0]
            assert len(more) <= read <= len(new) + len(said.tokens) + len(more)
            assert self.engine.taken_over == after[1], "a session's own tokens count as another's"

    def test_counts_of_what_a_session_took_over_add_up(self) -> None:
        opening = texts([100], 12)[0]
        endings = texts([5, 6, 7], 13)
        with _Sessions(self.engine, 1) as held:
            _turn(self.engine, held, [opening])
            before = self.engine.prefilled, self.engine.taken_over
            with _Sessions(self.engine, 3) as sessions:
                _turn(self.engine, sessions, [[*opening, *end] for end in endings])
            read, taken = self.engine.prefilled - before[0], self.engine.taken_over - before[1]
        assert read + taken == sum(len(opening) + len(end) for end in endings)
        assert read >= sum(map(len, endings))

    def test_closed_sessions_are_kept_without_changing_what_is_said(self) -> None:
        read = texts([70], 14)
        with _Sessions(self.engine, 1) as sessions:
            plain = _turn(self.engine, sessions, read, [9])[0]
        with self.engine.keeping(2):
            with _Sessions(self.engine, 1) as sessions:
                _turn(self.engine, sessions, read, [8])
            with _Sessions(self.engine, 1) as sessions:
                kept = _turn(self.engine, sessions, read, [9])[0]
        assert kept.tokens == plain.tokens
        _close(kept.logp, plain.logp, self.tolerance)

    def test_nothing_is_asked_and_nothing_is_said(self) -> None:
        assert self.engine.generate([]) == []

    # ---- ends of turns ----------------------------------------------------------------------------------------------

    def test_an_end_token_ends_a_turn_and_is_not_text(self) -> None:
        read = texts([12], 15)
        with _Sessions(self.engine, 1) as sessions:
            free = _turn(self.engine, sessions, read, [1], max_new_tokens=20, temperature=1.5)[0]
        end = free.tokens[5]
        cut = free.tokens.index(end) + 1
        with _Sessions(self.engine, 1) as sessions:
            ended = _turn(self.engine, sessions, read, [1], max_new_tokens=20, temperature=1.5, stop_token_ids=(end,))[
                0
            ]
            # The end token is part of the session.
            more = _turn(self.engine, sessions, [[7]])[0]
        assert ended.tokens == free.tokens[:cut] and ended.finish_reason == "stop"
        assert ended.text == self._decoded(free.tokens[: cut - 1])
        turns = [(read[0], False), (ended.tokens, False), ([7], False), (more.tokens, True)]
        _close(more.logp, learner_logp(self.policy, turns), self.tolerance)

    def test_the_tokenizers_end_token_ends_a_turn_without_being_named(self) -> None:
        end = int(self.policy.tokenizer.eos_token_id)
        for seed in range(40):
            with _Sessions(self.engine, 16) as sessions:
                seeds = [seed * 16 + n for n in range(16)]
                said = _turn(
                    self.engine, sessions, texts([5], 16) * 16, seeds, temperature=2.0, max_new_tokens=CONTEXT // 2
                )
            if ended := [one for one in said if end in one.tokens]:
                assert all(one.tokens.index(end) == len(one.tokens) - 1 for one in ended)
                assert all(one.finish_reason == "stop" for one in ended)
                assert all(self._decoded(one.tokens[:-1]) == one.text for one in ended)
                return
        raise AssertionError("in 40 batches no turn came to its end token; the policy never says it")

    def test_a_stop_string_across_tokens_ends_a_turn_and_stays(self) -> None:
        tokenizer: Any = self.policy.tokenizer
        read = texts([9], 17)
        with _Sessions(self.engine, 1) as sessions:
            free = _turn(self.engine, sessions, read, [3], max_new_tokens=60, temperature=1.5)[0]
        pieces = [tokenizer.decode([token]) for token in free.tokens]
        place = next(n for n in range(3, 59) if all(piece.strip() and piece.isascii() for piece in pieces[n : n + 2]))
        stop = pieces[place][-1] + pieces[place + 1][0]
        with _Sessions(self.engine, 1) as sessions:
            said = _turn(self.engine, sessions, read, [3], max_new_tokens=60, temperature=1.5, stop=("\0never", stop))[
                0
            ]
            more = _turn(self.engine, sessions, [[7]])[0]
        assert said.finish_reason == "stop" and stop in said.text
        assert said.tokens == free.tokens[: len(said.tokens)] and len(said.tokens) == len(said.logp)
        assert stop not in tokenizer.decode(said.tokens[:-1])
        turns = [(read[0], False), (said.tokens, False), ([7], False), (more.tokens, True)]
        _close(more.logp, learner_logp(self.policy, turns), self.tolerance)

    def test_a_stop_string_may_begin_in_what_was_said_before(self) -> None:
        """``said`` and the session hold the turn's beginning; the text is the whole turn's."""
        tokenizer: Any = self.policy.tokenizer
        read = texts([9], 18)
        with _Sessions(self.engine, 1) as sessions:
            free = _turn(self.engine, sessions, read, greedy=True, max_new_tokens=40)[0].tokens
        pieces = [tokenizer.decode([token]) for token in free]
        for place in range(1, 39):
            begun, stop = free[: place + 1], pieces[place][-1:] + pieces[place + 1][:1]
            if len(stop.strip()) == 2 and stop.isascii() and stop not in tokenizer.decode(begun):
                break
        else:
            raise AssertionError("no two tokens of the turn spell something new where they meet")
        params = SamplingParams(max_new_tokens=40, greedy=True, stop=(stop,))
        with _Sessions(self.engine, 1) as sessions:
            asked = Request(sessions[0], [*read[0], *begun], 4, params, said=begun)
            said = self.engine.generate([asked])[0]
        assert said.tokens == [free[place + 1]] and said.finish_reason == "stop"
        assert said.text == self._decoded(free[: place + 2])

    def test_a_full_context_ends_turns_without_error(self) -> None:
        limit = int(self.policy.model.config.max_position_embeddings)
        with _Sessions(self.engine, 3) as sessions:
            said = _turn(self.engine, sessions, texts([limit - 6, limit, limit + 1], 19), max_new_tokens=50)
            assert [len(one.tokens) for one in said] == [6, 0, 0]
            assert {one.finish_reason for one in said} == {"length"}
            after = _turn(self.engine, sessions[:1], [[5]])[0]
            assert (after.tokens, after.logp, after.text, after.finish_reason) == ([], [], "", "length")
            # A turn that found no room left its session as it was.
            assert len(_turn(self.engine, sessions[1:2], texts([9], 20))[0].tokens) == 8

    # ---- weights ----------------------------------------------------------------------------------------------------

    def test_new_weights_are_served_from_the_next_turn_on_and_named(self) -> None:
        """Open sessions included, of which nothing that was computed with the old ones is left."""
        old = [parameter.detach().clone() for parameter in self.policy.parameters()]
        served = self.engine.version
        read, more = texts([48, 5], 21), texts([6, 3], 22)
        try:
            with _Sessions(self.engine, 2) as sessions:
                first = _turn(self.engine, sessions, read)
                _nudge(self.policy, 0.05)
                stale = _turn(self.engine, sessions, [[], []])
                self.engine.load_weights(self.policy, served + 7)
                assert self.engine.version == served + 7
                second = _turn(self.engine, sessions, more)
                for parts in zip(read, first, stale, more, second, strict=True):
                    tokens, before, between, new, after = parts
                    assert (before.version, between.version, after.version) == (served, served, served + 7)
                    turns = [(tokens, False), (before.tokens, False), (between.tokens, False), (new, False)]
                    _close(after.logp, learner_logp(self.policy, [*turns, (after.tokens, True)]), self.tolerance)
                    unlike = learner_logp(self.policy, [(tokens, False), (before.tokens, True)])
                    gap = max(abs(a - b) for a, b in zip(before.logp, unlike, strict=True))
                    assert gap > 10 * self.tolerance, "the new weights are too much like the old ones to be told apart"
        finally:
            self._restore(old, served)

    def test_many_small_updates_add_up(self) -> None:
        """Nothing of them is rounded away or left behind, and nothing of the policy's own state is touched."""
        old = [parameter.detach().clone() for parameter in self.policy.parameters()]
        served = self.engine.version
        read = texts([25], 23)
        try:
            for number in range(20):
                _nudge(self.policy, 5e-3, number)
                self.engine.load_weights(self.policy, number + 1)
                with _Sessions(self.engine, 1) as sessions:
                    said = _turn(self.engine, sessions, read)[0]
                turns = [(read[0], False), (said.tokens, True)]
                _close(said.logp, learner_logp(self.policy, turns), self.tolerance)
                assert said.version == number + 1
        finally:
            self._restore(old, served)

    def test_weights_of_another_model_are_refused(self) -> None:
        served = self.engine.version
        given = dict(self.policy.weights())
        name = sorted(given)[-1]
        without = {other: tensor for other, tensor in given.items() if other != name}
        wrong = (without, {**given, "nowhere.weight": torch.zeros(3)})
        try:
            for tensors in wrong:
                _refused(WeightMismatchError, lambda t=tensors: self.engine.load_weights(_Given(t), 5))  # type: ignore[misc]
        finally:
            self.engine.load_weights(self.policy, served)

    # ---- wrong requests ---------------------------------------------------------------------------------------------

    def test_wrong_requests_are_refused_and_leave_the_engine_as_it_was(self) -> None:
        with _Sessions(self.engine, 1) as sessions:
            (here,), read = sessions, texts([30], 24)[0]
            gone = self.engine.open(1)
            self.engine.close(gone)
            for numbers, tokens in ((gone, [[1]]), ([here, here], [[1], [1]]), ([here], [[]])):
                _refused(InputError, lambda n=numbers, t=tokens: _turn(self.engine, n, t))  # type: ignore[misc]
            _refused(InputError, lambda: self.engine.close(gone))
            said = _turn(self.engine, sessions, [read])[0]
            _close(said.logp, learner_logp(self.policy, [(read, False), (said.tokens, True)]), self.tolerance)

    def test_more_sessions_than_it_holds_are_refused(self) -> None:
        if self.limit is not None:
            beyond = self.limit + 1
            _refused(InputError, lambda: self.engine.open(beyond))
            sessions = self.engine.open(self.limit)
            assert len(set(sessions)) == self.limit
            self.engine.close(sessions)

    # ---- help -------------------------------------------------------------------------------------------------------

    def _decoded(self, tokens: Sequence[int]) -> str:
        tokenizer: Any = self.policy.tokenizer
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True)) if tokens else ""

    def _restore(self, old: Sequence[Tensor], version: int) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.policy.parameters(), old, strict=True):
                parameter.copy_(value)
        self.engine.load_weights(self.policy, version)


def small_policy(seed: int = 0, *, tied: bool = False, **options: Any) -> LanguagePolicy:
    """A random model of two layers with the tokenizer of the model that ships, far from uniform, in float32.

    options: of :class:`LanguagePolicy`.
    """
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path())
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        initializer_range=0.15,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return LanguagePolicy(model, tokenizer, dtype="float32", **options)


def texts(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Random tokens that are not special."""
    source = generator(seed, "conformance")
    return [torch.randint(20, 300, (length,), generator=source).tolist() for length in lengths]


@torch.no_grad()
def learner_logp(policy: LanguagePolicy, turns: Turns, temperature: float = 1.0) -> list[float]:
    """What the policy itself gives the sampled tokens of a conversation, in nats."""
    ids = [token for tokens, _ in turns for token in tokens]
    sampled = [said for tokens, said in turns for _ in tokens]
    actions = [place for place, said in enumerate(sampled) if said]
    inputs = TokenInputs(torch.tensor(ids), torch.tensor([len(ids)]), torch.tensor(actions))
    x = Experience.from_lengths([len(actions)], [1], [1], inputs=inputs)
    return [float(value) for value in policy(x, temperature).logp]


@torch.no_grad()
def _logits(policy: LanguagePolicy, tokens: Sequence[int]) -> Tensor:
    """Of every token that may come next, after each of these; log-probabilities in fact."""
    inputs = TokenInputs(
        torch.tensor([*tokens, tokens[-1]]), torch.tensor([len(tokens) + 1]), torch.arange(1, len(tokens) + 1)
    )
    x = Experience.from_lengths([len(tokens)], [1], [1], inputs=inputs)
    said: Tensor | None = policy(x, also=("log_probs",)).log_probs
    assert said is not None
    return said


def _cut_logp(policy: LanguagePolicy, read: Sequence[int], said: Sequence[int], params: SamplingParams) -> list[float]:
    """Log-probabilities after temperature, top-k and top-p."""
    logits = _logits(policy, [*read, *said])[len(read) - 1 : -1] / params.temperature
    rows = len(logits)
    cut = keep_likeliest(logits, torch.full((rows, 1), params.top_k), torch.full((rows, 1), params.top_p))
    chosen = torch.log_softmax(cut, -1).gather(1, torch.tensor(list(said)).unsqueeze(1))
    return [float(value) for value in chosen.squeeze(1)]


class _Given:
    """Weights that nobody trains."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._tensors.items()


class _Sessions:
    """Some open sessions, closed at the end."""

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine, self._count = engine, count

    def __enter__(self) -> list[int]:
        self._open = self._engine.open(self._count)
        return list(self._open)

    def __exit__(self, *_: object) -> None:
        self._engine.close(self._open)


def _turn(
    engine: Engine,
    sessions: Sequence[int],
    new: Sequence[Sequence[int]],
    seeds: Sequence[int] | None = None,
    **chosen: Any,
) -> list[Completion]:
    """A turn of each session, of eight tokens unless chosen otherwise, with seeds from 100 on."""
    params = SamplingParams(**({"max_new_tokens": 8} | chosen))
    numbers = range(100, 100 + len(sessions)) if seeds is None else seeds
    asked = [Request(s, tokens, seed, params) for s, tokens, seed in zip(sessions, new, numbers, strict=True)]
    said = engine.generate(asked)
    assert len(said) == len(asked)
    for one in said:
        assert len(one.logp) == len(one.tokens) <= params.max_new_tokens
    return said


def _nudge(policy: LanguagePolicy, size: float, seed: int = 0) -> None:
    source = generator(seed, "nudge")
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=source))


def _close(found: Sequence[float], expected: Sequence[float], tolerance: float) -> None:
    assert len(found) == len(expected), f"{len(found)} log-probabilities of {len(expected)} tokens"
    worst = max((abs(a - b) for a, b in zip(found, expected, strict=True)), default=0.0)
    assert worst <= tolerance, f"log-probabilities differ by up to {worst}, allowed is {tolerance}"


def _refused(kind: type[Exception], ask: Callable[[], Any]) -> None:
    try:
        ask()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__} was raised")
