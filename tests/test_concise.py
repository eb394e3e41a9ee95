"""Appendix D of the paper as truth tables: categories, both methods, both triggers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.context.concise import Method, category, prune, select, tally, trigger, trim
from resd.context.playbook import Entry

STEP = 10


def entry(id: str, helpful: int = 0, harmful: int = 0, last_tagged: int = STEP, created: int = 0) -> Entry:
    return Entry(id, "strategies", id, created, last_tagged, helpful, harmful)


@pytest.mark.parametrize(
    ("helpful", "harmful", "expected"),
    [
        (0, 0, "unused"),
        (0, 1, "harmful"),
        (1, 1, "harmful"),
        (2, 3, "harmful"),
        (1, 0, "helpful"),
        (2, 1, "helpful"),
    ],
)
def test_categories(helpful: int, harmful: int, expected: str) -> None:
    assert category(entry("a", helpful, harmful)) == expected


@given(st.integers(0, 5), st.integers(0, 5))
def test_categories_follow_the_definition(h: int, d: int) -> None:
    unused, harmful = h + d == 0, d >= h and d > 0
    assert (category(entry("a", h, d)) == "unused") == unused
    assert (category(entry("a", h, d)) == "harmful") == harmful


# An entry of each kind: (helpful, harmful, created, last tagged), and why it leaves without and with spared fresh ones.
# "unused for more than one context-update step" is last tagged (for an unused entry: created) before STEP - 1.
TABLE = [
    # kind                        h  d  created   tagged    prioritized staleness  both after curation
    ("helpful, tagged now", 2, 0, 0, STEP, None, None, (None, None)),
    ("helpful, tagged long ago", 2, 1, 0, 1, None, None, (None, None)),
    ("harmful, tagged now", 0, 1, 0, STEP, "harmful", "harmful", ("harmful", "harmful")),
    ("harmful on a tie", 1, 1, 0, 3, "harmful", "harmful", ("harmful", "harmful")),
    ("unused, added now", 0, 0, STEP, STEP, "unused", None, (None, None)),
    ("unused for one step", 0, 0, STEP - 1, STEP - 1, "unused", None, ("unused", None)),
    ("unused for two steps", 0, 0, STEP - 2, STEP - 2, "unused", "stale", ("unused", "stale")),
    ("unused for long", 0, 0, 0, 0, "unused", "stale", ("unused", "stale")),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_what_leaves_without_a_budget(row: tuple) -> None:
    kind, helpful, harmful, created, tagged, prioritized, staleness, after_curation = row
    one = [entry(kind, helpful, harmful, tagged, created)]
    expected = [prioritized, staleness, *after_curation]
    got = [
        dict(select(one, method, STEP, None, seed=0, spare_fresh=spare)).get(kind)
        for spare in (False, True)
        for method in ("prioritized", "staleness")
    ]
    assert got == expected


@pytest.mark.parametrize(
    ("size", "earlier_updates", "expected"),
    [
        (5, 0, None),  # nothing has happened yet
        (5, 3, None),
        (5, 4, "frequency"),
        (5, 5, None),
        (5, 8, "frequency"),
        (10, 3, None),  # at the budget is within it
        (11, 0, "limit"),
        (11, 3, "limit"),
        (11, 4, "frequency"),  # the limit trigger fires between scheduled prunings only
        (11, 5, "limit"),
    ],
)
def test_triggers(size: int, earlier_updates: int, expected: str | None) -> None:
    assert trigger(size, earlier_updates, every=4, budget=10) == expected


def test_between_triggers_even_harmful_entries_stay() -> None:
    entries = [entry("bad", 0, 3)]
    assert prune(entries, "prioritized", 4, every=4, budget=5, seed=0) == []
    assert prune(entries, "prioritized", 5, every=4, budget=5, seed=0) == [("bad", "harmful")]


def test_the_frequency_trigger_does_not_enforce_a_budget_and_the_limit_does() -> None:
    entries = [*(entry(f"good{i}", 1) for i in range(6)), entry("bad", 0, 1)]
    for method in ("prioritized", "staleness"):
        assert prune(entries, method, 5, every=4, budget=4, seed=0) == [("bad", "harmful")]
        removals = prune(entries, method, 6, every=4, budget=4, seed=0)
        assert [reason for _, reason in removals] == ["harmful", "budget", "budget"]


def test_the_budget_looks_at_what_the_categories_left() -> None:
    entries = [entry("bad", 0, 1), entry("good", 1), entry("new", created=STEP - 1, last_tagged=STEP - 1)]
    assert prune(entries, "prioritized", STEP, every=4, budget=2, seed=0) == [("bad", "harmful"), ("new", "unused")]
    assert prune(entries, "staleness", STEP, every=4, budget=2, seed=0) == [("bad", "harmful")]


def test_staleness_evicts_the_longest_untagged_first_helpful_and_unused_alike() -> None:
    entries = [
        entry("old", 3, 0, last_tagged=2),
        entry("now", 1, 0, last_tagged=STEP),
        entry("unused", 0, 0, last_tagged=STEP - 1, created=STEP - 1),
        entry("older", 9, 0, last_tagged=1),
    ]
    removals = prune(entries, "staleness", STEP, every=4, budget=1, seed=0)
    assert removals == [("older", "budget"), ("old", "budget"), ("unused", "budget")]


def test_ties_and_random_drops_depend_on_the_seed_and_step_alone() -> None:
    entries = [entry(f"e{i}", 1) for i in range(20)]
    for method in ("prioritized", "staleness"):
        draws = [select(entries, method, step, 10, seed) for seed in (0, 1) for step in (3, 4)]
        assert draws == [select(entries, method, step, 10, seed) for seed in (0, 1) for step in (3, 4)]
        assert len({frozenset(draw) for draw in draws}) == 4


def test_trimming_after_curation_keeps_fresh_entries_and_only_runs_over_budget() -> None:
    fresh = [entry(f"fresh{i}", created=STEP, last_tagged=STEP) for i in range(3)]
    rest = [entry("unused", created=STEP - 1, last_tagged=STEP - 1), entry("bad", 0, 1)]
    assert trim([*fresh, *rest], "prioritized", STEP, budget=5, seed=0) == []
    removals = trim([*fresh, *rest], "prioritized", STEP, budget=3, seed=0)
    assert removals == [("unused", "unused"), ("bad", "harmful")]
    assert [reason for _, reason in trim([*fresh, *rest], "prioritized", STEP, budget=2, seed=0)][2:] == ["budget"]


def test_reset_removes_everything_when_triggered() -> None:
    entries = [entry("good", 5), entry("bad", 0, 1)]
    assert prune(entries, "reset", 4, every=4, budget=5, seed=0) == []
    assert prune(entries, "reset", 5, every=4, budget=5, seed=0) == [("good", "reset"), ("bad", "reset")]


ENTRIES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, STEP), st.integers(0, STEP)), max_size=15
).map(lambda rows: [entry(f"e{i}", h, d, max(c, t), c) for i, (h, d, c, t) in enumerate(rows)])


@given(ENTRIES, st.sampled_from(["prioritized", "staleness"]), st.integers(0, 6), st.integers(0, 3), st.booleans())
def test_what_holds_for_any_playbook(entries: list[Entry], method: Method, budget: int, seed: int, spare: bool) -> None:
    removals = select(entries, method, STEP, budget, seed, spare)
    gone = dict(removals)
    kept = [e for e in entries if e.id not in gone]
    assert len(gone) == len(removals)
    assert len(kept) <= budget
    assert all(category(e) != "harmful" for e in kept)
    assert dict(select(entries, method, STEP, None, seed, spare)).items() <= gone.items()
    if "budget" in gone.values():  # the budget never takes more than it must
        assert len(kept) == budget
    if method == "staleness":
        evicted = [e for e in entries if gone.get(e.id) == "budget"]
        assert all(e.last_tagged <= k.last_tagged for e in evicted for k in kept)


def test_the_tally_counts_every_entry_once() -> None:
    entries = [entry("a", 1), entry("b", 0, 1), entry("c"), entry("d")]
    assert tally(entries) == {"helpful": 1, "harmful": 1, "unused": 2}


def test_a_fresh_entry_is_spared_only_on_request() -> None:
    fresh = [entry("fresh", created=STEP, last_tagged=STEP)]
    assert select(fresh, "prioritized", STEP, None, 0) == [("fresh", "unused")]
    assert select(fresh, "prioritized", STEP, None, 0, spare_fresh=True) == []
