"""Parts that are cut until a prompt fits: what stays, and how much is looked at on the way."""

from hypothesis import given
from hypothesis import strategies as st

from resd.context.shorten import ALL_OR_NOTHING, BEGINNING, CUT_MARK, END, ENTRIES, Budget, Slots

WORDS = st.lists(st.sampled_from(["a", "bb", "c" * 250, "\n", "\n\n", " ", "[1, 2, 3]", "x" * 30]), max_size=60).map(
    " ".join
)


def fit(text: str, part: object, tokens: int, around: str = "") -> tuple[str, int]:
    budget = Budget(tokens, len)
    slots, truncated = budget.fit({"text": text}, {"text": part}, lambda slots: around + slots["text"])  # type: ignore[dict-item]
    return slots["text"], truncated


@given(WORDS, st.integers(0, 700))
def test_what_stays_fits_and_is_the_beginning_or_the_end(text: str, tokens: int) -> None:
    for part in (BEGINNING, END):
        kept, truncated = fit(text, part, tokens)
        assert len(kept) <= tokens
        assert (truncated == 0) == (len(text) <= tokens or not text)
        if not truncated:
            assert kept == text
        elif kept:
            rest = kept.replace(CUT_MARK, "").strip()
            lines = "\n".join(text.splitlines())
            assert lines.strip().startswith(rest) if part is BEGINNING else lines.rstrip().endswith(rest)
            assert (kept.endswith if part is BEGINNING else kept.startswith)(CUT_MARK)
            assert len(kept) > tokens - 280 or len(kept) > len(text) - 280  # no more than a piece and the mark is lost


def test_one_long_line_loses_no_more_than_it_must() -> None:
    line = "expected " + str(list(range(1500)))
    for part in (BEGINNING, END):
        kept, truncated = fit(line, part, 1000)
        assert truncated == 1
        assert 800 < len(kept) <= 1000
    assert fit(line, BEGINNING, 1000)[0].endswith(", [...]")
    assert fit("y" * 5000, BEGINNING, 1000)[0] == "y" * 900 + " [...]"
    assert fit("short\n" + line, BEGINNING, 1000)[0].startswith("short\nexpected [0, 1")


def test_entries_stay_whole_and_half_a_solution_goes() -> None:
    assert fit("## A\n- one\n\n## B\n- " + "two " * 100, ENTRIES, 300) == ("## A\n- one", 1)
    assert fit("z" * 50, ALL_OR_NOTHING, 49) == ("", 1)
    assert fit("z" * 50, ALL_OR_NOTHING, 50) == ("z" * 50, 0)


def test_a_part_goes_only_when_those_before_it_are_gone() -> None:
    parts = {"first": BEGINNING, "second": BEGINNING}
    lines = "\n".join("abcd" for _ in range(50))

    def render(slots: Slots) -> str:
        return "".join(slots.values())

    slots, truncated = Budget(400, len).fit({"first": lines, "second": lines}, parts, render)
    assert truncated == 1
    assert slots["second"] == lines
    assert 100 < len(slots["first"]) <= 151
    slots, truncated = Budget(200, len).fit({"first": lines, "second": lines}, parts, render)
    assert truncated == 2
    assert slots["first"] == ""
    assert 150 < len(slots["second"]) <= 200


def test_however_long_a_part_is_little_of_it_is_counted() -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return len(text.split())

    lines = "\n".join(f"line {i} differs" for i in range(200_000))
    parts = {"response": END, "playbook": ENTRIES, "feedback": BEGINNING}
    slots = {"response": lines, "playbook": lines, "feedback": "expected " + str(list(range(300_000)))}
    kept, truncated = Budget(1000, count).fit(slots, parts, lambda slots: "problem " + "\n".join(slots.values()))
    assert truncated >= 2
    assert kept["feedback"].startswith("expected [0, 1")
    assert counted < len(lines)  # once each would be more
