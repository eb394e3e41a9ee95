"""Rules that can all be kept, a judge that nothing trivial passes, splits and sets of rules that never meet."""

import itertools
import pickle
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resd import envs
from resd.envs.house_style import offices
from resd.envs.house_style.offices import SIZES, items
from resd.envs.house_style.rules import LOOKS, ORDER, RULES, kept, message, says
from resd.envs.house_style.task import MARKS, MAX_CHARS, belongs, draw
from resd.types import Problem, UserError, Verdict

SETS = [f"{kind}:{number}" for kind in ("dev", "report") for number in range(8)]
TASK = envs.load("house_style", rules="dev:0")
TEST = TASK.problems("test")


def items_of_each_family() -> list[offices.Item]:
    return [item for split in SIZES for item in itertools.islice(items(split), len(offices.FAMILIES))]


def verdict(task: envs.Task, problem: Problem, response: str, truncated: bool = False) -> Verdict:
    """With what holds of every verdict."""
    said = task.verify(problem, response, truncated)
    assert bool(said.feedback) != said.passed
    assert said.passed == (said.cases_passed == said.cases_total)
    assert said.passed == (said.scores["content"] == said.scores["style"] == 1)
    return said


def test_there_are_twenty_rules_in_six_slots() -> None:
    assert len(RULES) == 20
    assert {rule.slot for rule in RULES.values()} == set(LOOKS) == set(ORDER)
    assert len({rule.demand for rule in RULES.values()}) == len(RULES)


@pytest.mark.parametrize("pair", [p for p in itertools.combinations(RULES, 2) if RULES[p[0]].slot != RULES[p[1]].slot])
def test_two_rules_of_different_slots_can_be_kept_together(pair: tuple[str, str]) -> None:
    for item in items_of_each_family():
        reply = kept(item.answer, [RULES[name] for name in pair])
        assert all(RULES[name].holds(reply) for name in pair), reply
        assert says(reply, item.answer)
        assert not says(reply, item.wrong)


@given(st.tuples(*(st.sampled_from([n for n, r in RULES.items() if r.slot == slot]) for slot in LOOKS)))
def test_six_rules_can_be_kept_together(names: tuple[str, ...]) -> None:
    task = envs.load("house_style", count=6)
    task.rules = [RULES[name] for name in names]
    task.self_test()


@pytest.mark.parametrize("name", RULES)
def test_a_plain_reply_breaks_a_mark_and_a_rule_that_is_kept_alone_is_seen(name: str) -> None:
    rule = RULES[name]
    for item in items_of_each_family():
        assert rule.holds(kept(item.answer, [rule]))
        assert not rule.holds("")
        if rule.slot in MARKS:
            assert not rule.holds(item.answer)
            assert not rule.holds(item.statement)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("opening_0", "ANSWER: yes", "yes Answer:"),
        ("closing_0", "yes THANKS", "Thanks yes"),
        ("closing_0", "yes Thanks.", "yes Thanks!"),
        ("closing_3", "yes (end)", "yes end"),
        ("frame_square", "Reply: [yes] Thanks", "Reply: yes [Thanks]"),
        ("frame_square", "Reply: [yes] Over.", "Reply: [yes Over"),
        ("frame_square", "[yes]", "[]"),
        ("frame_round", "(yes) (end)", "(yes (end)"),
        ("frame_stars", "OK - *yes* Over", "OK - **"),
        ("frame_tildes", "~yes~", "~"),
        ("words_1", "Desk: [load_rows] Thanks", "Desk: [load rows]"),
        ("words_1", "2027-01-02.", "on 2027-01-02"),
        ("words_2", "Ticket: the 5. Over", "the order 5"),
        ("words_2", "the 5", "Desk: . Over"),
        ("comma", "a b", "a, b"),
        ("stop", "a b", "a b."),
    ],
)
def test_what_keeps_and_what_breaks_a_rule(name: str, good: str, bad: str) -> None:
    assert RULES[name].holds(good)
    assert not RULES[name].holds(bad)


@given(st.text(max_size=60))
def test_a_message_is_part_of_its_reply(text: str) -> None:
    assert message(text) in text


def test_splits_are_large_and_share_no_entity() -> None:
    train, test = (list(items(split)) for split in ("train", "test"))
    assert len(train) >= 300
    assert len(test) >= 200
    for own, others in ((train, test), (test, train)):
        assert len({item.statement for item in own}) == len(own)
        texts = "\n".join(item.statement for item in others)
        for item in own:
            for value in (item.answer, item.wrong):
                assert not says(texts, value), value
                if value.isdigit():
                    assert int(value) % 2 == (own is test)
    tables = [
        table for table in vars(offices).values() if isinstance(table, dict) and isinstance(table.get("train"), str)
    ]
    assert len(tables) == 7
    for table in tables:
        words = [set(text.split()) for text in table.values()]
        assert not words[0] & words[1]


def test_the_first_problems_are_of_all_families() -> None:
    assert {problem.family for problem in TEST[:5]} == set(offices.FAMILIES)
    assert [problem.id for problem in TEST] == [problem.id for problem in envs.load("house_style").problems("test")]


@pytest.mark.parametrize("rules", SETS)
@pytest.mark.parametrize("count", [2, 4, 6])
def test_trivial_replies_score_nothing(rules: str, count: int) -> None:
    task = envs.load("house_style", rules=rules, count=count)
    assert len({rule.slot for rule in task.rules}) == count
    for split in SIZES:
        problems = task.problems(split)
        for problem, other in itertools.pairwise(problems[:20]):
            item = problem.cases[0]
            right = verdict(task, problem, kept(item.answer, task.rules))
            assert right.passed
            assert right.reward == 1
            assert verdict(task, problem, item.answer).scores["content"] == 1
            trivial = ["", " \n", problem.statement, item.answer, *(rule.demand for rule in task.rules)]
            trivial += [kept(problem.statement, task.rules), kept(other.cases[0].answer, task.rules)]
            for response in trivial:
                assert verdict(task, problem, response).reward == 0, response


def test_each_rule_that_is_broken_fails_the_reply() -> None:
    for rules in SETS:
        task = envs.load("house_style", rules=rules, count=6)
        item = TEST[0].cases[0]
        for rule in task.rules:
            if rule.slot not in ("words", "comma", "stop"):
                response = kept(item.answer, [other for other in task.rules if other is not rule])
                said = verdict(task, TEST[0], response)
                assert not said.passed
                assert said.cases_passed == said.cases_total - 1
                assert said.feedback == rule.demand
                assert (said.scores["content"], said.scores["style"], said.scores["rules"]) == (1, 0, 5 / 6)


def test_rules_of_development_are_never_those_of_reports() -> None:
    sets = {kind: {frozenset(draw(f"{kind}:{n}", 4)) for n in range(300)} for kind in ("dev", "report")}
    assert not sets["dev"] & sets["report"]
    assert min(map(len, sets.values())) > 100
    for kind, drawn in sets.items():
        assert {belongs(list(names)) for names in drawn} == {kind}
        assert all(len({RULES[name].slot for name in names} & MARKS) >= 2 for names in drawn)
    used = {name for drawn in sets.values() for names in drawn for name in names}
    assert used == set(RULES)


def test_a_set_of_rules_never_changes() -> None:
    """Results are reported by its number."""
    assert draw("dev:0", 4) == ["opening_0", "frame_stars", "words_1", "closing_3"]
    assert draw("report:0", 4) == draw("report:00", 4) == ["frame_tildes", "words_2", "stop", "closing_2"]


def test_sets_of_like_difficulty() -> None:
    """As many marks as are wanted, and those sets of the same number that had as many before stay what they are."""
    for count, marks in ((2, 2), (4, 2), (4, 3), (6, 3)):
        drawn = [draw(f"dev:{n}", count, marks) for n in range(100)]
        assert {len({RULES[name].slot for name in names} & MARKS) for names in drawn} == {marks}
        assert {len(names) for names in drawn} == {count}
        for n, names in enumerate(drawn):
            free = draw(f"dev:{n}", count)
            assert names == free or len({RULES[name].slot for name in free} & MARKS) != marks
    assert (
        envs.load("house_style", rules="report:2", marks=2).rules
        == [RULES[name] for name in draw("report:2", 4, 2)]
        != envs.load("house_style", rules="report:2").rules
    )


@pytest.mark.parametrize(
    ("feedback", "broken", "content"),
    [
        (
            "first",
            'The reply must begin with "Answer:", as in "Answer: ...".',
            "The reply must say the right town, and nothing else.",
        ),
        (
            "parser",
            'Expected "Answer:" at the beginning, found "Hello".',
            "The reply must say the right town, and nothing else.",
        ),
        ("vague", "Something is wrong at the beginning of the reply.", "Something is wrong with what the reply says."),
        (
            "all",
            'The reply must begin with "Answer:", as in "Answer: ...".\n'
            'The answer must be in asterisks, as in "*...*".\nThe answer must be a single word.\n'
            'The reply must end with "(end)", as in "... (end)".\nThe reply must say the right town, and nothing else.',
            "The reply must say the right town, and nothing else.",
        ),
    ],
)
def test_feedback_says_as_much_as_its_level(feedback: str, broken: str, content: str) -> None:
    task = envs.load("house_style", rules="dev:0", feedback=feedback)
    problem = next(problem for problem in TEST if problem.family == "parcel")
    assert verdict(task, problem, "Hello 1, there").feedback == broken
    assert verdict(task, problem, "Answer: *hello* (end)").feedback == content


@pytest.mark.parametrize("name", RULES)
def test_a_parser_names_what_it_found(name: str) -> None:
    task = envs.load("house_style", feedback="parser")
    task.rules = [RULES[name]]
    said = verdict(task, TEST[0], "The Reply, a long one, has number 12 and more than fourteen words in it. Yes.")
    assert re.fullmatch(r'Expected .+, found (".+"|none|\d+ words|".+" and ".+")\.', said.feedback), said.feedback
    assert verdict(task, TEST[0], "").feedback


def test_dense_reward_is_the_share_that_is_right() -> None:
    task = envs.load("house_style", rules="dev:0", reward="dense")
    said = verdict(task, TEST[0], TEST[0].cases[0].answer)
    assert (said.reward, said.cases_passed, said.cases_total) == (0.4, 2, 5)


def test_thinking_does_not_count() -> None:
    right = kept(TEST[0].cases[0].answer, TASK.rules)
    assert verdict(TASK, TEST[0], f"<think>no</think>\n{right}\n").passed
    assert verdict(TASK, TEST[0], f"so\n</think>{right}").passed


def test_a_reply_that_does_not_end_is_not_right() -> None:
    right = kept(TEST[0].cases[0].answer, TASK.rules)
    assert verdict(TASK, TEST[0], right, truncated=True).feedback == "The reply must come to an end."
    padded = right.ljust(MAX_CHARS) + "x"
    assert not verdict(TASK, TEST[0], padded).passed


HOSTILE = [
    "\0",
    "\ud800",
    "[" * 100_000,
    '"' * 3999,
    "Answer: " * 50_000,
    "9" * 100_000,
    "<think>" * 1000,
    "\u202e",
    "İ",
    "ß",
]


@pytest.mark.parametrize("feedback", ["first", "parser", "vague", "all"])
@given(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=80)))
def test_anything_gets_a_verdict(feedback: str, response: str) -> None:
    for rules in ("dev:0", "report:1"):
        task = envs.load("house_style", rules=rules, count=6, feedback=feedback)
        said = verdict(task, TEST[0], response)
        assert not said.passed
        said.feedback.encode()
        assert len(said.feedback) < 1000


def test_prompts_state_rules_only_when_asked() -> None:
    (asked,) = TASK.prompt(TEST[0])
    (told,) = envs.load("house_style", stated=True).prompt(TEST[0])
    assert asked["content"] == TEST[0].statement
    rules = "".join(f"- {rule.demand}\n" for rule in TASK.rules)
    assert told["content"] == f"Rules for every reply:\n{rules}\n{TEST[0].statement}"


@pytest.mark.parametrize(
    "options",
    [
        *({"rules": rules} for rules in ("dev", "test:1", "dev:-1", "dev:1\n", 3)),
        *({"count": count} for count in (1, 7, "4", None)),
        *({"marks": marks} for marks in (1, 4, "2", False)),
        *({"marks": 2, "count": 6}, {"marks": 3, "count": 2}),
        *({"feedback": "gold"}, {"reward": "half"}, {"rule": "dev:1"}),
    ],
)
def test_wrong_options_are_answered_with_a_sentence(options: dict) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        envs.load("house_style", **options)


def test_it_is_a_task_that_travels() -> None:
    task, problem = pickle.loads(pickle.dumps((TASK, TEST[0])))
    assert verdict(task, problem, kept(problem.cases[0].answer, task.rules)).passed
    written = yaml.safe_load((Path(__file__).parent.parent / "conf/task/house_style.yaml").read_text())
    assert envs.load(written["name"], **written["options"]).rules == TASK.rules


def test_a_broken_judge_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = type(TASK.rules[0])
    assert TASK.self_test()
    monkeypatch.setattr(rule, "holds", lambda self, reply: False)
    with pytest.raises(UserError, match="fails"):
        TASK.self_test()
    monkeypatch.undo()
    monkeypatch.setattr(type(TASK), "_content", lambda *anything: "")
    for kind in {type(rule) for rule in TASK.rules}:
        monkeypatch.setattr(kind, "holds", lambda self, reply: True)
    with pytest.raises(UserError, match="passes"):
        TASK.self_test()
