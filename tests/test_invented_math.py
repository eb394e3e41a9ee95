"""Invented mathematics: right answers that follow from the words, a judge that agrees with exact arithmetic, hostile
answers, rules that never change sides."""

import contextlib
import pickle
import random
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from invented_oracle import computed, mutated, mutated_set, oracle, rule_of
from test_local import train_on
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.invented_math import expression
from resd.envs.invented_math.draw import Item
from resd.envs.invented_math.expression import MAX_CHARS, Unreadable, read
from resd.envs.invented_math.rule import Rule
from resd.envs.invented_math.task import parsed
from resd.task import SelfTesting, Task
from resd.types import Problem, UserError, Verdict
from resd.verify import Verifier

TASK = envs.load("invented_math")
TEST = TASK.problems("test")
RULE = Rule(((Fraction(2), "a"), (Fraction(1), "b"), (Fraction(-1), "1")), "∘")


def known(form: Any, *answers: str, letter: str = "", hint: str = "") -> Problem:
    return Problem("known", "", cases=[Item(RULE, "?", form, answers, letter, hint)] * 3)


NUMBER = known("number", "7/2", hint="1 ∘ 2 is 3.")
SOLUTIONS = known("set", "-1", "5/2")
IN_X = known("expression", "2*x**2 - x/2", letter="x")
IN_N = known("expression", "3*2^n - n", letter="n")


def checked(task: Task, problem: Problem, response: str, truncated: bool = False) -> Verdict:
    """A verdict, with what holds of every one."""
    said = task.verify(problem, response, truncated)
    assert bool(said.feedback) != said.passed == (said.cases_passed == said.cases_total == 3)
    said.feedback.encode()
    assert len(said.feedback) < 1500
    assert said.answer is None or len(said.answer) <= MAX_CHARS
    return said


def verdict(answer: str, problem: Problem, **options: Any) -> Verdict:
    task = envs.load("invented_math", **options) if options else TASK
    return checked(task, problem, f"So <answer>{answer}</answer>.")


# ------------------------------------------------------------------------------------------------------ the oracle


def agreement(count: int, seed: int) -> Counter[bool]:
    """Compares judge and oracle on answers near the right ones; how often each verdict was given."""
    source, seen = random.Random(seed), Counter[bool]()
    for number in range(count):
        problem = TEST[number % len(TEST)]
        item = problem.cases[0]
        if item.form == "set":
            answer = mutated_set(list(item.answers), source)
        else:
            answer = mutated(item.answers[0], item.letter, source)
        right = oracle(answer, problem, source)
        said = checked(TASK, problem, f"<answer>{answer}</answer>")
        assert said.passed == right, (answer, problem.statement, item.answers, said.feedback)
        seen[right] += 1
    return seen


def test_the_judge_agrees_with_exact_arithmetic_on_answers() -> None:
    assert min(agreement(1000, 0).values()) > 200


@pytest.mark.slow
def test_the_judge_agrees_with_exact_arithmetic_on_many_answers() -> None:
    assert min(agreement(12_000, 1).values()) > 3000


def test_right_answers_follow_from_the_words() -> None:
    source = random.Random(2)
    for problem in [*TEST, *envs.load("invented_math", train=100).problems("train")]:
        item = problem.cases[0]
        right = "{" + ", ".join(item.answers) + "}" if item.form == "set" else item.answers[0]
        assert oracle(right, problem, source), (problem.statement, item.answers)
        assert checked(TASK, problem, problem.privileged).passed


# --------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2^(n+1) - 1", "2*2^n - 1", True),
        ("4^n", "2^(2n)", True),
        ("6^n / 3^n", "2**n", True),
        ("(-2)^n", "(-1)^n * 2^n", True),
        ("(-2)^n", "2^n", False),
        ("(-2)^n", "-2^n", False),
        ("(-1)^n", "-1", False),
        ("(-1)^(2n)", "1", True),
        ("(-1)^(n+1)", "-(-1)^n", True),
        ("(-1)^(n+3) / (-1)^37", "(-1)^n", True),
        ("2^-n", "(1/2)^n", True),
        ("0.5^n", "1 / 2^n", True),
        ("n(n+1)/2", "n^2/2 + n/2", True),
        ("2^n(n+1)", "(n+1)*2^n", True),
        ("2n - n", "n", True),
        ("1/2n", "n/2", True),
        ("-2^2", "-4", True),
        ("2^3^2", "512", True),
        ("(n^2 - 1)/(n - 1)", "n + 1", True),
        ("n/n", "1", True),
        ("n^0", "1", True),
        ("2^n", "n^2", False),
        ("n × 3 ÷ 2 − 1", "3n/2 - 1", True),
        ("1.50", "3/2", True),
        ("1/3", "0.3333333333", False),
    ],
)
def test_what_is_the_same(one: str, other: str, same: bool) -> None:
    assert read(one, "n").equals(read(other, "n")) == same
    assert read(other, "n").equals(read(one, "n")) == same


def test_values_at_numbers_are_those_of_fractions() -> None:
    texts = ("(-3)^n - n/2", "2^(n+1)/(n+1)", "(1/6)^(2n-1)", "1/(n-3)", "n^3 - 3^n", "5")
    for text in texts:
        value = read(text, "n")
        for n in range(1, 9):
            assert value.at(n) == computed(text, "n", Fraction(n)), (text, n)
    assert [read(text, "n").number for text in ("n - n + 7/2", "3", "0", "n", "(-1)^n")] == [
        *(Fraction(7, 2), 3, 0),
        *(None, None),
    ]


@pytest.mark.parametrize(
    ("problem", "answer", "cases", "kind", "feedback"),
    [
        (
            NUMBER,
            "seven",
            0,
            "The answer cannot be read.",
            "The answer has the letter s, where only numbers can stand.",
        ),
        (NUMBER, "7/2 =", 0, "The answer cannot be read.", "The answer cannot be read at offset 4, before '='."),
        (NUMBER, "7//2", 0, "The answer cannot be read.", "The answer cannot be read: it is no expression."),
        (NUMBER, "7/0", 0, "The answer cannot be read.", "The answer divides by zero."),
        (
            NUMBER,
            "{7/2}",
            1,
            "The answer is a set, and one number is asked for.",
            "The answer is a set, and one number",
        ),
        (NUMBER, "3", 2, "The answer has the right form, and a wrong value.", "The value is not 3. 1 ∘ 2 is 3."),
        (SOLUTIONS, "{5/2, 3}", 2, "a wrong value", "3 is no solution.\n1 solution is missing."),
        (SOLUTIONS, "{}", 2, "a wrong value", "2 solutions are missing."),
        (SOLUTIONS, "-1", 2, "a wrong value", "1 solution is missing."),
        (SOLUTIONS, "{-1, x}", 0, "cannot be read", "The answer has the letter x, where only numbers can stand."),
        (IN_X, "2*x^2", 2, "a wrong value", "For x = 1 it is 2 instead of 3/2."),
        (IN_X, "2*y", 0, "cannot be read", "The answer has the letter y, where only x can stand."),
        (IN_X, "1/(x-1)", 2, "a wrong value", "For x = 1 it has no value instead of 3/2."),
        (IN_N, "3*2^n", 2, "a wrong value", "For n = 1 it is 6 instead of 5."),
        (IN_N, "2^n, 3", 1, "is a set, and one expression", "The answer is a set, and one expression"),
    ],
)
def test_feedback_has_three_levels(problem: Problem, answer: str, cases: int, kind: str, feedback: str) -> None:
    said = verdict(answer, problem)
    assert feedback in said.feedback
    assert said.cases_passed == cases
    other = verdict(answer, problem, feedback="kind")
    assert kind in other.feedback
    bit = verdict(answer, problem, feedback="bit")
    assert bit.feedback == "The answer is wrong."
    for each in (other, bit):
        assert (each.reward, each.cases_passed, each.error) == (said.reward, cases, said.error)
    assert verdict(answer, problem, reward="dense").reward == cases / 3


def test_right_answers_in_any_form_pass() -> None:
    for answer in ("7/2", "3.5", "14/4", " (1 + 6) / 2 ", "4 - 1/2"):
        assert verdict(answer, NUMBER) == Verdict(1.0, True, 3, 3, answer=answer.strip())
    for answer in ("{-1, 5/2}", "{2.5, -1}", "-1, 5/2", "{-1, 5/2, 10/4}"):
        assert verdict(answer, SOLUTIONS).passed
    assert verdict("3", known("set", "3")).passed
    assert verdict("{}", known("set")).passed
    assert not verdict("", known("set")).passed
    assert verdict("x(4x - 1)/2", IN_X).passed


def test_the_last_answer_outside_thinking_counts() -> None:
    right, wrong = "<answer>7/2</answer>", "<answer>1</answer>"
    assert checked(TASK, NUMBER, f"{wrong} or {right}").passed
    assert not checked(TASK, NUMBER, f"{right} or {wrong}").passed
    for response in (f"<think>{right}</think>", f"<think>{right}", right[:-1], "7/2"):
        assert checked(TASK, NUMBER, response).error == "no_answer"
    assert checked(TASK, NUMBER, "<think>let", truncated=True).error == "truncated"


# ---------------------------------------------------------------------------------------------------------- hostile


HOSTILE = {
    "deep": ("(" * 100_000 + "1" + ")" * 100_000, "too_long"),
    "deep and short": ("-(" * 99 + "1" + ")" * 99, "too_deep"),
    "open for ever": ("(" * MAX_CHARS, "parse"),
    "many signs": ("-" * (MAX_CHARS - 1) + "1", "too_deep"),
    "a long sum": ("+".join("1" * 100), "too_deep"),
    "a million characters": ("7/2" + " " * 10**6 + "*1", "too_long"),
    "many digits": ("9" * 300, "too_large"),
    "power of powers": ("9^9^9^9", "exponent"),
    "power by power": ("((((9^20)^20)^20)^20)^20", "too_large"),
    "power of a polynomial": ("((((n+1)^20)^20)^20)", "too_large"),
    "many powers": ("(n+2^n+3^n+5^n+7^n+11^n+13^n)^20", "too_large"),
    "product of sums": ("*".join(["(n+2^n+3^n+5^n+7^n+11^n)"] * 16), "too_large"),
    "many fractions": ("+".join(f"1/(n+{k})^3" for k in range(30)), "too_large"),
    "tower of fractions": ("1/(1+" * 60 + "n" + ")" * 60, "too_deep"),
    "letter in the exponent of a letter": ("n^n", "exponent"),
    "root": ("4^(1/2)", "exponent"),
    "decimal exponent": ("2^0.5", "exponent"),
    "huge exponent": ("2^999999999", "exponent"),
    "huge negative exponent": ("2^(-999999999)", "exponent"),
    "huge slope": ("2^(10^9*n)", "exponent"),
    "zero to the letter": ("0^n", "exponent"),
    "import": ("__import__('os').system('true')", "parse"),
    "attribute": ("n.real", "parse"),
    "call": ("f(n)", "unknown_name"),
    "symbol of sympy": ("oo", "unknown_name"),
    "imaginary": ("I", "parse"),
    "not a number": ("nan", "unknown_name"),
    "scientific": ("35e-1", "unknown_name"),
    "hexadecimal": ("0x3", "unknown_name"),
    "underscore": ("3_5", "parse"),
    "lambda": ("lambda: 1", "unknown_name"),
    "condition": ("n if n else n", "unknown_name"),
    "comparison": ("n == n", "parse"),
    "walrus": ("(n := 1)", "parse"),
    "string": ("'7/2'", "parse"),
    "list": ("[7/2]", "parse"),
    "index": ("n[0]", "parse"),
    "braces inside": ("{{7/2}}", "parse"),
    "nested braces": ("{7/2", "parse"),
    "floor": ("7//2", "parse"),
    "modulo": ("7 % 4", "parse"),
    "factorial": ("n!", "parse"),
    "format": ("{n.__class__}", "parse"),
    "LaTeX": ("\\frac{7}{2}", "parse"),
    "full-width digits": ("７/２", "parse"),
    "arabic digits": ("٧", "parse"),
    "superscript": ("n²", "parse"),
    "roman": ("Ⅶ", "parse"),
    "null character": ("7/2\0", "parse"),
    "surrogate": ("7/2\udfff", "parse"),
    "comment": ("7/2 # = n", "parse"),
    "zero": ("n/0", "division_by_zero"),
    "hidden zero": ("1/(2^n*2 - 2^(n+1))", "division_by_zero"),
    "zero for even numbers": ("1/((-1)^n - 1)", "division_by_zero"),
    "zero power": ("(n-n)^(-1)", "division_by_zero"),
    "many elements": ("{" + ",".join("1" * 30) + "}", "too_large"),
    "commas": ("," * 15, "parse"),
    "nothing in it": ("()", "parse"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_get_their_verdict(name: str) -> None:
    answer, error = HOSTILE[name]
    for problem in (IN_N, NUMBER, SOLUTIONS):
        said = verdict(answer, problem)
        assert not said.passed
        assert said.reward == said.cases_passed == 0
        assert said.error == error or problem is not IN_N


def test_the_effort_for_any_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in products of terms, not in seconds."""
    spent: list[int] = []
    times = expression._Reader._times

    def counted(self: Any, left: Any, right: Any) -> Any:
        spent.append(len(left) * len(right))
        return times(self, left, right)

    monkeypatch.setattr(expression._Reader, "_times", counted)
    source = random.Random(3)
    atoms = ["n", "2^n", "3^(2n+1)", "(-5)^n", "7", "(n+1)^9", "1/(n+2)", "13^n"]
    large = 0
    for least in (0, *[source.randint(10, 350) for _ in range(80)]):
        text = source.choice(atoms) if least else "(n+2^n+3^n+5^n+7^n+11^n+13^n)^12"
        while len(text) < least:
            text = source.choice(
                (f"({text}){source.choice('+-*/')}{source.choice(atoms)}", f"({text})^{source.randint(2, 9)}")
            )
        spent.clear()
        try:
            read(text, "n")
        except Unreadable as mistake:
            large += mistake.kind == "too_large"
        assert sum(spent[:-2]) <= 2 * expression._EFFORT, text
    assert large > 10


@pytest.mark.parametrize(
    "response", ["<answer>" * 125_000, "<think>" * 140_000, "<answer>1</answer" * 50_000, "\ud800" * 10**6, ""]
)
def test_hostile_responses_hold_no_answer(response: str) -> None:
    assert checked(TASK, IN_N, response).error == "no_answer"


def test_no_hostile_answer_is_lost_by_a_worker() -> None:
    verifier = Verifier(TASK, 1, 30.0)
    with contextlib.closing(verifier):
        asked = [(IN_N, f"<answer>{answer}</answer>", False) for answer, _ in HOSTILE.values()]
        said = dict(verifier.verify(asked))
    assert len(said) == len(HOSTILE)
    assert all(isinstance(each, Verdict) and not each.passed for each in said.values())


def test_nothing_of_an_answer_is_run() -> None:
    """What reaches Python's parser consists of numbers, the letter and signs."""
    source = random.Random(4)
    for _ in range(3000):
        text = "".join(source.choices("n2()+-*/^ ._,=:[]'\"lambdeifx0", k=source.randint(1, 20)))
        with contextlib.suppress(Unreadable):
            assert re.fullmatch(r"[0-9n()+\-*/. ]*", expression._spelled(text, "n"))
            parsed(text, "n")


# --------------------------------------------------------------------------------------------------------- problems


def test_every_family_and_form_occurs() -> None:
    problems = TASK.problems("train")
    assert (len(problems), len(TEST)) == (1000, 200)
    assert Counter(p.family for p in TEST) == dict.fromkeys(
        ("value", "equation", "expression", "sequence", "chain"), 40
    )
    sizes = Counter(len(p.cases[0].answers) for p in problems if p.family == "equation")
    assert min(sizes[count] for count in (0, 1, 2)) >= 3, sizes
    assert any("/" in p.cases[0].answers[0] for p in problems if p.family == "value")
    assert any(re.search(r"\d\)?\^n", p.cases[0].answers[0]) for p in problems if p.family == "sequence")


def rule_key(problem: Problem) -> tuple[Fraction, ...]:
    """What the rule does, whichever of a and b is first."""
    _, rule = rule_of(problem.statement)
    points = [(Fraction(a), Fraction(b)) for a in (0, 1, 2, 3) for b in (0, 1, 2, 3)]
    return min(tuple(rule(a, b) for a, b in points), tuple(rule(b, a) for a, b in points))


def test_no_rule_is_in_two_parts() -> None:
    parts: dict[str, set[Any]] = {"train": set(), "test": set(), "validation": set()}
    for seed, family in ((0, "all"), (1, "equation"), (2, "sequence")):
        sizes = {"seed": seed, "family": family, "train": 200, "test": 60}
        held = {each: envs.load("invented_math", held_out=each, **sizes) for each in ("test", "validation")}
        found = {each: task.problems("test") for each, task in held.items()} | {"train": held["test"].problems("train")}
        for part, problems in found.items():
            assert len({p.statement for p in problems}) == len(problems) == len({p.id for p in problems})
            parts[part] |= set(map(rule_key, problems))
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["validation"]
    assert not parts["test"] & parts["validation"]
    assert min(map(len, parts.values())) > 30, {part: len(found) for part, found in parts.items()}


def test_a_seed_gives_the_same_problems_for_ever() -> None:
    random.seed(3)
    assert envs.load("invented_math").problems("test") == TEST
    assert TEST[0].statement.endswith("What is ((-6) ⊕ ((-2) ⊕ 0)) ⊕ 8?")
    other = envs.load("invented_math", seed=1).problems("test")
    assert len({p.statement for p in other} & {p.statement for p in TEST}) < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "sum"}, "family='sum' is unknown: write one of all, value"),
        ({"depth": 9}, "depth=9 is out of range: write a whole number from 2 to 5"),
        ({"held_out": "dev"}, "write one of test, validation"),
        ({"train": True}, "train=True"),
        ({"test": 0}, "test=0"),
        ({"seed": -1}, "seed=-1"),
        ({"feedback": "gold"}, "write one of diagnostic, kind, bit"),
        ({"reward": "half"}, "write one of sparse, dense"),
        ({"prompt": "long"}, "write one of full, compact"),
        ({"numbers": 4}, "it takes family, depth"),
    ],
)
def test_wrong_options_are_answered_with_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("invented_math", **options)


def test_it_is_a_task_that_travels() -> None:
    task, problem = pickle.loads(pickle.dumps((TASK, TEST[0])))
    assert isinstance(task, Task)
    assert isinstance(task, SelfTesting)
    assert task.verify(problem, problem.privileged).passed
    written = yaml.safe_load((Path(__file__).parent.parent / "conf/task/invented_math.yaml").read_text())
    task = envs.load(written["name"], **{**written["options"], "prompt": "compact"})
    (asked,) = task.prompt(TEST[1])
    assert asked["content"] == f"{TEST[1].statement}\n<answer>{{the solutions}}</answer>"
    (full,) = TASK.prompt(TEST[1])
    assert "{-1, 5/2}, or {} if there is none" in full["content"]


def test_a_broken_judge_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    TASK.self_test()
    monkeypatch.setattr(expression.Value, "equals", lambda *_: False)
    with pytest.raises(UserError, match="the judge of invented_math fails"):
        TASK.self_test()
    monkeypatch.undo()
    monkeypatch.setattr(expression.Value, "equals", lambda *_: True)
    with pytest.raises(UserError, match="the judge of invented_math passes"):
        TASK.self_test()


def test_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    train_on(tiny_model, tmp_path, "task=invented_math", "on_empty=warn")
