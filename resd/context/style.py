"""How responses are worded: markers of doubt, and where the answer is committed.

A student that is distilled from a teacher who knows the answer learns to write as if it knew: shorter, and without the
words with which it would have caught itself (source: *What makes policy self-distillation more effective than external
teacher distillation?*, and arXiv 2603.24472). Whether it does is counted here; whether it matters, a second task says.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from resd.context.spans import Span, tokens_in
from resd.turns import own_words
from resd.types import Attempt, Sample


def style(attempts: Sequence[Attempt], markers: Sequence[str]) -> dict[str, float]:
    """`style/markers` per 1,000 words, of all first tries and by outcome, and `style/committed`.

    The latter is where in a response its answer stands first, from 0 to 1, on average. What there is nothing to say
    about is missing.
    """
    told = [attempt for attempt in attempts if attempt.first and attempt.verdict is not None]
    if not markers:
        told = []
    groups = {
        "style/markers": told,
        "style/markers/passed": [attempt for attempt in told if attempt.passed],
        "style/markers/failed": [attempt for attempt in told if not attempt.passed],
    }
    found = {name: _rate(map(own_words, group), markers) for name, group in groups.items() if group}
    places = [place for attempt in told if (place := _committed(attempt)) is not None]
    return found | ({"style/committed": sum(places) / len(places)} if places else {})


def marked(text: str, markers: Sequence[str]) -> list[Span]:
    """Where markers stand as words of their own, in either case."""
    return [found.span() for found in _pattern(tuple(markers)).finditer(text)] if markers else []


def spare(samples: Iterable[Sample], markers: Sequence[str], pieces: Callable[[Sequence[int]], list[str]]) -> None:
    """Takes the teacher's `pull` from the tokens of markers, whose texts are what `pieces` says."""
    for sample in samples:
        if sample.teacher_prompt_ids is None:
            continue
        texts = pieces(sample.response_ids)
        inside = tokens_in(marked("".join(texts), markers), texts)
        if any(inside):
            pull = sample.pull if isinstance(sample.pull, Sequence) else [sample.pull] * len(inside)
            sample.pull = [0.0 if doubts else each for each, doubts in zip(pull, inside, strict=True)]


def _rate(texts: Iterable[str], markers: Sequence[str]) -> float:
    count = words = 0
    for text in texts:
        count += len(marked(text, markers))
        words += len(text.split())
    return 1000 * count / max(1, words)


def _committed(attempt: Attempt) -> float | None:
    answer = attempt.verdict.answer if attempt.verdict else None
    words = own_words(attempt)
    place = words.find(answer) if answer else -1
    return None if place < 0 else place / max(1, len(words) - len(answer or ""))


@cache
def _pattern(markers: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(markers, key=len, reverse=True)
    spelled = "|".join(r"\s+".join(map(re.escape, marker.split())) for marker in longest_first)
    return re.compile(rf"(?<!\w)(?:{spelled})(?!\w)", re.IGNORECASE)
