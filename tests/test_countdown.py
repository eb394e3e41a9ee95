"""Countdown: a judge that agrees with Python's own arithmetic, hostile answers, instances that never change sides."""

import ast
import pickle
import random
import re
from collections import Counter
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_local import train_on
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.countdown.draw import Instance
from resd.envs.countdown.expression import MAX_CHARS, MAX_DEPTH
from resd.task import SelfTesting, Task
from resd.types import Problem, UserError, Verdict

TASK = envs.load("countdown")
TEST = TASK.problems("test")
KNOWN = Problem("known", "", cases=[Instance((3, 5, 7, 7), 42, "(3 + 5 - 7 / 7) * 6")] * 3)
SIX = Problem("six", "", cases=[Instance((2, 3, 7), 42, "2 * 3 * 7")] * 3)


def verdict(answer: str, problem: Problem = KNOWN, **options: Any) -> Verdict:
    """Of an answer between tags, with what holds of every verdict."""
    task = envs.load("countdown", **options) if options else TASK
    return checked(task, problem, f"So <answer>{answer}</answer>.")


def checked(task: Task, problem: Problem, response: str, truncated: bool = False) -> Verdict:
    said = task.verify(problem, response, truncated)
    assert bool(said.feedback) != said.passed == (said.cases_passed == said.cases_total == 3)
    said.feedback.encode()
    assert len(said.feedback) < 1500
    assert said.answer is None or len(said.answer) <= MAX_CHARS
    return said


# ------------------------------------------------------------------------------------------------------ the oracle


def oracle(text: str, instance: Instance) -> int:
    """Cases that pass, by Python's grammar: nothing is shared with the judge. Texts are short and made here."""
    if re.fullmatch(r"[0-9+\-*/() ]*", text) is None:
        return 0
    try:
        tree = ast.parse(re.sub(r"(?<![0-9])0+(?=[0-9])", "", text).strip(), mode="eval")
    except SyntaxError:
        return 0
    allowed = (ast.Expression, ast.BinOp, ast.Constant, ast.Add, ast.Sub, ast.Mult, ast.Div)
    if not all(isinstance(node, allowed) for node in ast.walk(tree)):
        return 0
    if sorted(int(number) for number in re.findall("[0-9]+", text)) != sorted(instance.numbers):
        return 1
    try:
        value = eval(re.sub("([0-9]+)", r"F('\1')", text.strip()), {"F": Fraction, "__builtins__": {}})
    except ZeroDivisionError:
        return 2
    return 3 if value == instance.target else 2


def mutated(text: str, source: random.Random) -> str:
    """An expression after some accidents; a third of them leave it right."""
    for _ in range(source.choice((0, 1, 1, 1, 2, 3))):
        at = source.randrange(len(text) + 1)
        match source.randrange(8):
            case 0:
                text = text[:at] + text[at + 1 :]
            case 1:
                text = text[:at] + source.choice("0123456789+-*/() .=x") + text[at:]
            case 2:
                text = f"({text})"
            case 3:
                text = text.replace(" ", source.choice(("", "  ")))
            case 4:
                signs = [m.start() for m in re.finditer(r"[+\-*/]", text)] or [0]
                at = source.choice(signs)
                text = text[:at] + source.choice("+-*/") + text[at + 1 :]
            case 5:
                numbers = list(re.finditer("[0-9]+", text))
                if len(numbers) > 1:
                    one, other = sorted(source.sample(numbers, 2), key=lambda found: found.start())
                    text = (
                        text[: one.start()] + other[0] + text[one.end() : other.start()] + one[0] + text[other.end() :]
                    )
            case 6:
                text = f"{text} {source.choice(('+ 0', '* 1', '/ 0', '- 3 + 3', '/ (5 - 5)'))}"
            case 7:
                text = " + ".join(reversed(text.split(" + "))) if text.count("(") == 0 else f" {text} "
    return text


def test_the_judge_agrees_with_pythons_arithmetic_on_many_answers() -> None:
    source, seen = random.Random(0), Counter[int]()
    for _, problem in product(range(24), TEST):
        instance = problem.cases[0]
        text = mutated(instance.expression, source)
        expected = oracle(text, instance)
        assert checked(TASK, problem, f"<answer>{text}</answer>").cases_passed == expected, (text, instance)
        seen[expected] += 1
    assert sum(seen.values()) >= 12_000
    assert min(seen[cases] for cases in range(4)) > 400, seen


def test_random_expressions_of_the_numbers_have_their_value() -> None:
    """Also fractions in between, negative values, and divisions by zero."""
    source, zero, fractions = random.Random(1), 0, 0

    def text_of(numbers: list[int]) -> str:
        if len(numbers) == 1:
            return str(numbers[0])
        cut = source.randrange(1, len(numbers))
        return f"({text_of(numbers[:cut])}{source.choice('+-*/')}{text_of(numbers[cut:])})"

    for _ in range(3000):
        numbers = [source.randint(1, 3) for _ in range(source.randint(2, 6))]
        text = text_of(numbers)
        try:
            value = eval(re.sub("([0-9]+)", r"F('\1')", text), {"F": Fraction})
        except ZeroDivisionError:
            zero += 1
            said = verdict(text, Problem("", "", cases=[Instance(tuple(numbers), 5, "")] * 3))
            assert (said.error, said.cases_passed) == ("division_by_zero", 2)
            continue
        fractions += value.denominator > 1
        said = verdict(text, Problem("", "", cases=[Instance(tuple(numbers), value, "")] * 3))
        assert said.passed
        said = verdict(text, Problem("", "", cases=[Instance(tuple(numbers), value + 1, "")] * 3))
        assert said.feedback == f"The value is {value} instead of {value + 1}."
    assert zero > 50
    assert fractions > 300


# --------------------------------------------------------------------------------------------------------- feedback


@pytest.mark.parametrize(
    ("answer", "cases", "feedback"),
    [
        ("(3 + 5) * 7 - 7", 2, "The value is 49 instead of 42."),
        ("3 / 5 + 7 - 7", 2, "The value is 3/5 instead of 42."),
        ("3 - 5 * 7 + 7", 2, "The value is -25 instead of 42."),
        ("42", 1, "3 is not used.\n5 is not used.\n7 is not used.\n42 is not one of the numbers."),
        ("3 * (5 + 7) + 6 - 7 + 7", 1, "6 is not one of the numbers."),
        ("5 * 7 + 3 + 7 - 3", 1, "3 is used twice instead of once."),
        ("5 * 7 + 3 + 4", 1, "4 is not one of the numbers.\n7 is used once instead of twice."),
        ("7 * 7 * 7 + 5 - 3", 1, "7 is used 3 times instead of twice.\nThe value is 345 instead of 42."),
        ("3 / (7 - 7) + 5", 2, "The expression divides by zero at offset 2."),
        ("3 + * 5", 0, "The expression cannot be read at offset 4: expected a number or (, found '*'."),
        ("3 + 5 = 8", 0, "The expression cannot be read at offset 6: expected an operator or the end, found '='."),
        ("(3 + 5", 0, "The expression cannot be read at offset 6: expected an operator or ), found the end."),
        ("", 0, "The expression cannot be read at offset 0: expected a number or (, found the end."),
        ("-3 + 45", 0, "The expression cannot be read at offset 0: expected a number or (, found '-'."),
        ("2 ** 3", 0, "The expression cannot be read at offset 3: expected a number or (, found '*'."),
        ("3 × 5", 0, "The expression cannot be read at offset 2: expected an operator or the end, found '×'."),
        ("3\ud8005", 0, "The expression cannot be read at offset 1: expected an operator or the end, found '\\ud800'."),
    ],
)
def test_feedback_says_what_is_wrong(answer: str, cases: int, feedback: str) -> None:
    said = verdict(answer)
    assert feedback in said.feedback
    assert said.cases_passed == cases
    bit = verdict(answer, feedback="bit")
    assert bit.feedback == "The answer is wrong."
    assert (bit.reward, bit.cases_passed, bit.error) == (said.reward, cases, said.error)


def test_a_right_answer_has_no_feedback_and_rewards_are_as_asked() -> None:
    assert verdict("3*7*2", SIX) == Verdict(1.0, True, 3, 3, answer="3*7*2", ballot="(*2 *3 *7)")
    assert [verdict(text, SIX, reward="dense").reward for text in ("3 *", "42", "2+3+7", "7*(2*3)")] == [
        0,
        1 / 3,
        2 / 3,
        1,
    ]
    assert [verdict(text, SIX).reward for text in ("3 *", "42", "2+3+7", "7*(2*3)")] == [0, 0, 0, 1]


def test_the_last_answer_outside_thinking_counts() -> None:
    right, wrong = "<answer>2*3*7</answer>", "<answer>1</answer>"
    assert checked(TASK, SIX, f"{wrong} or {right}").passed
    assert not checked(TASK, SIX, f"{right} or {wrong}").passed
    assert checked(TASK, SIX, f"<think>{wrong}</think>{right}").passed
    for response in (
        f"<think>{right}</think>",
        f"<think>{right}",
        f"<think>x</think><think>{right}",
        right[:-1],
        "2*3*7",
    ):
        assert checked(TASK, SIX, response).error == "no_answer", response
    cut = checked(TASK, SIX, "<think>let me", truncated=True)
    assert (cut.error, cut.feedback) == ("truncated", "The response was cut off at its maximum length; be briefer.")


def test_numbers_and_operators_may_be_fewer() -> None:
    assert verdict("3 * 7 + 7 * 3", use_all=False).feedback == "3 is used twice instead of once."
    assert verdict("5 * 7 + 7", use_all=False).passed
    assert verdict("5 * 7 + 7").feedback == "3 is not used."
    assert verdict("2*3*7", SIX, operators="+-").feedback == "The operator * is not allowed."
    (asked,) = envs.load("countdown", operators="*+", use_all=False).prompt(SIX)
    assert "any of these numbers at most once each" in asked["content"]
    assert "operators are + *;" in asked["content"]


# ---------------------------------------------------------------------------------------------------------- hostile


HOSTILE = {
    "deep": ("(" * 100_000 + "42" + ")" * 100_000, "too_long"),
    "deep and short": ("(" * 400 + "42" + ")" * 400, "too_deep"),
    "open for ever": ("(" * MAX_CHARS, "too_deep"),
    "just too deep": ("(" * (MAX_DEPTH + 1) + "42" + ")" * (MAX_DEPTH + 1), "too_deep"),
    "a million characters": ("2*3*7" + " " * 10**6 + "*1", "too_long"),
    "a million digits": ("4" * 10**6, "too_long"),
    "many digits": ("9" * MAX_CHARS, None),
    "a long chain": ("2" + "*1" * 300, "too_deep"),
    "powers": ("9**9**9**9", "parse"),
    "powers with a hat": ("9^9^9", "parse"),
    "floor": ("85//2", "parse"),
    "shift": ("21<<1", "parse"),
    "float": ("42.0", "parse"),
    "infinite": ("1e999", "parse"),
    "name of infinity": ("inf", "parse"),
    "hexadecimal": ("0x2a", "parse"),
    "underscore": ("4_2", "parse"),
    "imaginary": ("42j", "parse"),
    "full-width digits": ("２*３*７", "parse"),
    "arabic digits": ("٢*٣*٧", "parse"),
    "superscript": ("7²", "parse"),
    "roman": ("Ⅱ*Ⅲ*Ⅶ", "parse"),
    "minus sign": ("49−7", "parse"),
    "import": ("__import__('os').system('true')", "parse"),
    "lambda": ("(lambda: 42)()", "parse"),
    "walrus": ("(x:=42)", "parse"),
    "condition": ("2*3*7 if 1 else 0", "parse"),
    "comparison": ("2*3*7 == 42", "parse"),
    "comment": ("2*3*7 # = 42", "parse"),
    "list": ("[2*3*7][0]", "parse"),
    "call": ("(2)(3)(7)", "parse"),
    "tuple": ("2*3*7,", "parse"),
    "two expressions": ("2*3*7; 42", "parse"),
    "two numbers": ("2*3 7", "parse"),
    "nothing in it": ("()", "parse"),
    "string": ("'2*3*7'", "parse"),
    "null character": ("2*3*7\0", "parse"),
    "surrogate": ("2*3*7\udfff", "parse"),
    "no-break space": ("2*3*7\xa0+", "parse"),
    "zero": ("2*3*7/0", "division_by_zero"),
    "hidden zero": ("42/(2*3-7+1)", "division_by_zero"),
    "zero by zero": ("(7-7)/(2-2)", "division_by_zero"),
    "plus nothing": ("2*3*7+0", None),
    "leading zeros": ("02*3*07+00", None),
    "joined digits": ("42", None),
    "tag inside": ("<answer>2*3*7", "no_answer"),
    "formula": ("$2 \\times 3 \\times 7$", "parse"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("feedback", ["bit", "diagnostic"])
def test_hostile_answers_get_their_verdict(name: str, feedback: str) -> None:
    answer, error = HOSTILE[name]
    said = verdict(answer, SIX, feedback=feedback)
    if name == "tag inside":  # the inner pair of tags is the answer
        assert said.passed
        return
    assert not said.passed
    assert (said.error, said.reward) == (error, 0)


@pytest.mark.parametrize(
    "response",
    [
        "<answer>" * 125_000,
        "<think>" * 140_000,
        "</think>" * 125_000,
        "<answer>2*3*7</answer" * 50_000,
        "\ud800" * 10**6,
        "",
    ],
)
def test_hostile_responses_hold_no_answer(response: str) -> None:
    assert checked(TASK, SIX, response).error == "no_answer"


# --------------------------------------------------------------------------------------------------------- problems


def test_every_problem_has_its_solution() -> None:
    for problem in [*TEST, *TASK.problems("train")]:
        instance = problem.cases[0]
        assert oracle(instance.expression, instance) == 3
        assert TASK.verify(problem, problem.privileged).passed
        assert instance.target not in instance.numbers
        assert 10 <= instance.target <= 99
        assert all(1 <= number <= 99 for number in instance.numbers)
    assert {problem.family for problem in TEST} == {"3 numbers", "4 numbers"}
    used = Counter(sign for problem in TEST for sign in re.findall(r"[+\-*/]", problem.cases[0].expression))
    assert min(used[sign] for sign in "+-*/") > 50


def test_no_seed_and_no_size_moves_an_instance_to_the_other_split() -> None:
    keys: dict[str, set[Any]] = {"train": set(), "test": set()}
    sizes: list[dict[str, int]] = [{}, {"largest": 12, "high": 40}, {"fewest": 3, "most": 3, "largest": 20}]
    for seed, size in product(range(3), sizes):
        task = envs.load("countdown", seed=seed, train=300, test=100, **size)
        for split, found in keys.items():
            problems = task.problems(split)
            drawn = {(tuple(sorted(p.cases[0].numbers)), p.cases[0].target) for p in problems}
            assert len(drawn) == len(problems) == len({p.id for p in problems})
            found |= drawn
    assert not keys["train"] & keys["test"]
    assert min(map(len, keys.values())) > 500


def test_a_seed_gives_the_same_problems_for_ever() -> None:
    random.seed(3)
    again = envs.load("countdown").problems("test")
    assert again == TEST
    assert TEST[0].statement == "Make 31 from the numbers 13, 2, 5."
    other = envs.load("countdown", seed=1).problems("test")
    assert len({p.statement for p in other} & {p.statement for p in TEST}) < 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fewest": 1}, r"fewest=1 is out of range: write a whole number from 2 to 8"),
        ({"fewest": 5}, r"most=4 is out of range: write a whole number from 5 to 8"),
        ({"low": 50, "high": 40}, "high=40 is out of range"),
        ({"largest": 0}, "largest=0"),
        ({"train": True}, "train=True"),
        ({"seed": "x"}, "seed='x'"),
        ({"operators": "+^"}, r"operators='\+\^' has no or other signs"),
        ({"operators": ""}, "operators=''"),
        ({"use_all": "yes"}, "use_all='yes' is no yes or no"),
        ({"feedback": "gold"}, "feedback='gold' is unknown: write one of diagnostic, bit"),
        ({"reward": "half"}, "write one of sparse, dense"),
        ({"prompt": "long"}, "write one of full, compact"),
        ({"numbers": 4}, "it takes fewest, most"),
    ],
)
def test_wrong_options_are_answered_with_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("countdown", **options)


def test_sizes_that_have_too_few_problems_say_how_many() -> None:
    task = envs.load("countdown", fewest=2, most=2, largest=6, low=10, high=12)
    with pytest.raises(UserError, match=r"train=2000 .* (\d+) were found .* up to 6 .* write train=\d+, or widen"):
        task.problems("train")
    none = envs.load("countdown", fewest=2, most=2, largest=2, low=50, high=60)
    with pytest.raises(UserError, match=r"0 were found .*; widen them"):
        none.problems("test")


def test_it_is_a_task_that_travels() -> None:
    task, problem = pickle.loads(pickle.dumps((TASK, TEST[0])))
    assert isinstance(task, Task)
    assert isinstance(task, SelfTesting)
    assert task.verify(problem, problem.privileged).passed
    written = yaml.safe_load((Path(__file__).parent.parent / "conf/task/countdown.yaml").read_text())
    options = {**written["options"], "prompt": "compact"}
    (asked,) = envs.load(written["name"], **options).prompt(TEST[0])
    assert asked["content"] == f"{TEST[0].statement}\n<answer>the expression</answer>"


def test_a_broken_judge_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    TASK.self_test()
    monkeypatch.setattr("resd.envs.countdown.task.evaluate", lambda tree: Fraction(0))
    with pytest.raises(UserError, match="the judge of countdown fails"):
        TASK.self_test()
    monkeypatch.undo()
    monkeypatch.setattr(type(TASK), "_misused", lambda *anything: ())
    with pytest.raises(UserError, match="the judge of countdown passes"):
        TASK.self_test()


def test_a_run(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    train_on(tiny_model, tmp_path, "task=countdown")
