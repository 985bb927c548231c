"""What episodes came to, as metrics of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stratagem.language.episodes import Episode
from stratagem.sampling.guided import guided_metrics


def episode_metrics(episodes: Sequence[Episode], reward_names: Sequence[str]) -> dict[str, float]:
    """Rewards, successes and lengths of these episodes, and how many failed."""
    good = [episode for episode in episodes if episode.failure is None]
    metrics = {"episodes/failed": float(len(episodes) - len(good)), "episodes": float(len(episodes))}
    if good:
        reward = torch.tensor([episode.reward for episode in good])
        lengths = torch.tensor([float(episode.length) for episode in good])
        metrics |= {
            "reward": float(reward.mean()),
            "reward_std": float(reward.std(correction=0)),
            "success": sum(episode.success for episode in good) / len(good),
            "completions/mean_length": float(lengths.mean()),
            "completions/max_length": float(lengths.max()),
            "episodes/mean_turns": sum(len(episode.turns) for episode in good) / len(good),
            "episodes/truncated": sum(episode.truncated for episode in good) / len(good),
        }
        for name in reward_names[1:]:
            metrics[f"reward/{name}"] = sum(episode.components.get(name, 0.0) for episode in good) / len(good)
        if "guided" in reward_names:
            led = torch.tensor([episode.components.get("guided", 0.0) > 0 for episode in good])
            metrics |= guided_metrics(torch.tensor([episode.success for episode in good]), led)
    return metrics


def decode_steps(episodes: Sequence[Episode]) -> int:
    """Tokens one after the other when all play side by side: of each turn, as many as the longest."""
    most = max((len(episode.turns) for episode in episodes), default=0)
    lengths = [[len(turn.action) for turn in episode.turns] for episode in episodes]
    return sum(max(turns[number] for turns in lengths if len(turns) > number) for number in range(most))


def decode_metrics(tokens: int, steps: int, episodes: int) -> dict[str, float]:
    """How many steps it took to write so many tokens of so many episodes side by side, and how full the steps were."""
    return {"decode/steps": float(steps), "decode/utilization": tokens / max(steps * episodes, 1)}
