"""What a batch learns from: demonstrations, rollouts, or both."""

from __future__ import annotations

from stratagem.experience import Experience


def demonstrated_shares(x: Experience) -> dict[str, float]:
    """Of a batch with demonstrations, by group; nothing for a batch that knows none.

    ``groups/demonstrated``: share of groups that learn from demonstrations alone.  ``pass_rate/demonstrated``,
    ``pass_rate/explored``: mean pass rate of these groups and of the others, where it is known and there are any.
    """
    if x.demonstrated is None or x.groups == 0:
        return {}
    shown = x.group_of_trajectory.sum(x.played()) == 0
    shares = {"groups/demonstrated": float(shown.float().mean())}
    if x.pass_rate is not None:
        for name, groups in (("demonstrated", shown), ("explored", ~shown)):
            if bool(groups.any()):
                shares[f"pass_rate/{name}"] = float(x.pass_rate[groups].mean())
    return shares
