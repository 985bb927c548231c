"""TextArena's games for one player."""

import random

import pytest

from stratagem.errors import InputError
from stratagem.tasks.textarena import from_spec

pytest.importorskip("textarena", reason="needs the extra 'text'")


def test_a_game_is_won_by_its_own_rules() -> None:
    game = from_spec("TowerOfHanoi-v0-raw", {}).environment("train", 0)
    game.reset()
    moves = ["A C", "A B", "C B", "A C", "B A", "B C", "A C"]  # the seven moves for three discs
    steps = [game.step(f"[{move}]") for move in moves]
    assert [step.done for step in steps] == [False] * 6 + [True]
    assert steps[-1].success and steps[-1].reward == 1.0 and sum(step.reward for step in steps[:-1]) == 0


def test_nonsense_loses_by_the_games_own_rule() -> None:
    game = from_spec("TowerOfHanoi-v0-raw", {}).environment("train", 0)
    game.reset()
    steps = [game.step("no move at all") for _ in range(3)]
    assert any(step.done for step in steps) and not any(step.success for step in steps)


def test_games_keep_their_own_randomness_when_they_are_interleaved() -> None:
    task = from_spec("2048-v0-raw", {})

    def play(other: bool) -> list[str]:
        game, second = task.environment("train", 1), task.environment("test", 1)
        texts = [game.reset().text, *([second.reset().text] if other else [])][:1]
        for move in ("[left]", "[up]", "[right]", "[down]"):
            if other:
                second.step(move)
            texts.append(game.step(move).observation.text)
        return texts

    before = random.getstate()
    assert play(other=True) == play(other=False)
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("argument", "options", "message"),
    [
        (None, {}, "needs the id"),
        ("2049-v0-raw", {}, "did you mean '2048-v0-raw'"),
        ("TicTacToe-v0-raw", {}, "one player"),
        ("2048-v0-raw", {"level": "3"}, "unknown option"),
    ],
)
def test_wrong_specifications_are_refused_with_one_line(
    argument: str | None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        from_spec(argument, options)
    assert "\n" not in str(refusal.value)
