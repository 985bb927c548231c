"""What a turn that is written in tags does, and whether all that was said is in the form that is wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable


def first_tag(text: str, *tags: str) -> tuple[str, str] | None:
    """Name and stripped content of the first closed tag among ``tags``; None where there is none."""
    found = re.search(rf"<(?P<tag>{'|'.join(tags)})>(?P<content>.*?)</(?P=tag)>", text, re.DOTALL)
    return None if found is None else (found["tag"], found["content"].strip())


def contents(text: str, tag: str) -> list[str]:
    """What all closed tags of this name hold."""
    return re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)


def in_form(said: Iterable[str], wanted: Iterable[str], forbidden: Iterable[str] = ()) -> bool:
    """Whether, in all that was said together, each wanted tag is opened at least once and closed as often as opened.

    Tags that are forbidden, those in which a policy is told something, must not be there at all.
    """
    text = "\n".join(said)
    return all(0 < text.count(f"<{tag}>") == text.count(f"</{tag}>") for tag in wanted) and not any(
        f"<{tag}>" in text or f"</{tag}>" in text for tag in forbidden
    )


def well_nested(said: Iterable[str], tags: Iterable[str]) -> bool:
    """Whether, in all that was said together, every one of these tags that opens closes before another one opens."""
    within = ""
    for slash, tag in re.findall(rf"<(/?)({'|'.join(tags)})>", "\n".join(said)):
        if bool(slash) != (within == tag) or (within and not slash):
            return False
        within = "" if slash else tag
    return not within
