"""The language of the Manufactoria task: parsing, running, grading and feedback, against real cases and by property."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.envs.manufactoria import ParseError, Program, extract, grade, parse
from resd.envs.manufactoria.feedback import official_selection
from resd.envs.manufactoria.grade import run_cases
from resd.envs.manufactoria.program import PAINTED, PULLED
from resd.envs.manufactoria.suite import case

DATA = Path(__file__).resolve().parents[2] / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not there")

DRAIN = "START start:\n    NEXT a\n\nPULLER_RB a:\n    [R] a\n    [B] a\n    [EMPTY] end\n\nEND end"
ACCEPT_ALL = "START start:\n    NEXT end\n\nEND end"
REJECT_ALL = "START start:\n    NEXT NONE\n\nEND end"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"manufactoria_{name}_public.jsonl").read_text().splitlines()]


def fenced(program: str) -> str:
    return f"```manufactoria\n{program}\n```"


def by_name(examples: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", examples.values(), ids=examples.keys())


def error_of(source: str) -> tuple[str, int | None]:
    with pytest.raises(ParseError) as caught:
        parse(source)
    return caught.value.kind, caught.value.line


# ------------------------------------------------------------------------------------------------ conformance


@needs_data
def test_every_verdict_row() -> None:
    verdicts = rows("verdicts")
    assert len(verdicts) > 1000
    for row in verdicts:
        if row["parse_ok"]:
            trace = parse(row["program"]).run(row["input"])
            found = (trace.accepted, trace.halt, trace.tape, trace.visits, trace.path[-1])
            wanted = (row["accepted"], row["halt"], row["final_tape"], row["visits"], row["last_node"])
            assert found == wanted, row
        else:
            assert error_of(row["program"]) == (row["error"], row["error_line"]), row


def reward_rows() -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    tests = {problem["id"]: problem["ground_truth"] for problem in rows("problems")}
    return [(row, row["test_cases"] or tests[row["problem_id"]]) for row in rows("rewards")]


@needs_data
def test_every_reward_row() -> None:
    judged = reward_rows()
    assert len(judged) > 300
    for row, cases in judged:
        sparse = grade(row["response"], cases, row["truncated"])
        dense = grade(row["response"], cases, row["truncated"], reward="dense")
        assert (sparse.reward, dense.reward) == (row["score_sparse"], row["score_dense"]), row
        assert sparse.answer == row["extracted"] == extract(row["response"]), row
        assert sparse.case_fraction == row["acc"], row
        assert sparse.passed == (row["acc"] == 1) == (not sparse.feedback), row
        assert (sparse.error in ("no_answer", "truncated")) == row["incorrect_format"], row
        assert (sparse.error == "truncated") == row["truncated_and_missing_answer"], row


@needs_data
def test_official_feedback_of_every_reward_row() -> None:
    for row, cases in reward_rows():
        verdict, facts = grade(row["response"], cases, row["truncated"], feedback="official"), row["feedback"]
        kind, cause, shown = "none", None, []
        if verdict.error:
            kind = {"parse": "runtime_error", "truncated": "truncated", "no_answer": "incorrect_format"}[verdict.error]
            cause = "parse" if verdict.error == "parse" else None
        elif not verdict.passed:
            selected = official_selection(run_cases(parse(row["extracted"]), cases))
            cause, shown = selected[0].cause, [failure.index for failure in selected]
            kind = "runtime_error" if cause else "wrong_answer"
        assert (kind, cause, shown) == (facts["kind"], facts["cause"], facts["shown_tests"]), row
        assert (kind == "runtime_error") == row["error_in_test_cases"], row

        text = verdict.feedback
        steps = [int(step) for step in re.findall(r"(?m)^(\d+)\. ", text)]
        assert len(steps) == facts["step_lines"], text
        assert (steps[0] if steps else None) == facts["first_step"], text
        assert first_number(r"\((\d+) earlier", text) == facts["omitted_steps"], text
        assert first_number(r"\((\d+) lines cut", text) == facts["cut_debug_lines"], text
        assert ("Rejected: " in text) == facts["mentions_rejection"], text
        assert ("Expected accepted: " in text) == facts["mentions_expected_accepted"], text
        assert ("Expected output: " in text) == facts["mentions_expected_output"], text
        assert ("Expected output:\n" in text) == facts["has_expected_section"], text


def first_number(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text)
    return int(match[1]) if match else None


# ---------------------------------------------------------------------------------------------------- parsing


@by_name(
    {
        "nothing": ("", ("empty_program", None)),
        "a fence around nothing": ("```\n```", ("empty_program", None)),
        "only comments": ("# a\n\n   # b", ("empty_program", None)),
        "two blanks are no route": (ACCEPT_ALL.replace("    ", "  "), ("start_route_count", 1)),
        "blank and tab": (ACCEPT_ALL.replace("    ", " \t"), ("start_route_count", 1)),
        "indented as a whole": ("    " + ACCEPT_ALL.replace("\n", "\n    "), ("bad_next_route", 4)),
        "tagged fence": ("```manufactoria\n" + ACCEPT_ALL + "\n```", ("bad_header", 1)),
        "lines end in CR only": (ACCEPT_ALL.replace("\n", "\r"), ("bad_header", 1)),
        "colon apart": (ACCEPT_ALL.replace("start:", "start :"), ("bad_header", 1)),
        "colon only in a comment": (ACCEPT_ALL.replace("start:", "start #:"), ("missing_colon", 1)),
        "colon on END": (ACCEPT_ALL + ":", ("end_has_colon", 4)),
        "lower case none": (REJECT_ALL.replace("NONE", "none"), ("undefined_target", 1)),
        "no START but a node of its name": ("PAINTER_RED start:\n    NEXT end\nEND end", ("no_start", None)),
        "no END but a node of its name": ("START start:\n    NEXT end\nPULLER_RB end:", ("no_end", None)),
        "neither START nor END": ("PAINTER_RED a:\n    NEXT b", ("no_start", None)),
        "another START": (ACCEPT_ALL + "\nSTART begin:\n    NEXT end", ("start_wrong_id", 5)),
        "a second START": (ACCEPT_ALL + "\nSTART start:\n    NEXT end", ("duplicate_id", 5)),
        "routes of END": (ACCEPT_ALL + "\n    NEXT start", ("end_has_routes", 5)),
        "the wrong pair": (DRAIN.replace("[B]", "[Y]"), ("wrong_color_condition", 4)),
        "NEXT under a puller": (DRAIN.replace("[B]", "NEXT"), ("bad_puller_route", 6)),
        "bad route before wrong pair": (DRAIN.replace("[R]", "[Y]").replace("[B]", "B:"), ("bad_puller_route", 6)),
        "undefined in a route that loses": (
            DRAIN.replace("[B] a", "[B] a\n    [B] nowhere"),
            ("undefined_target", 4),
        ),
        "counted with comments and blanks": ("\n\n# one\n\nSTART begin:\n", ("start_wrong_id", 3)),
    }
)
def test_parse_errors(example: tuple[str, tuple[str, int | None]]) -> None:
    source, expected = example
    assert error_of(source) == expected


def test_a_parse_error_reads_as_a_sentence() -> None:
    with pytest.raises(ParseError, match=r"^line 4: a route leads to 'b', which is not declared$"):
        parse(DRAIN.replace("[R] a", "[R] b"))


@by_name(
    {
        "as it is": DRAIN,
        "CRLF": DRAIN.replace("\n", "\r\n"),
        "tabs": DRAIN.replace("    ", "\t"),
        "deep": DRAIN.replace("    ", "         "),
        "first line indented": "      " + DRAIN,
        "an indented header after a comment": "# c\n    " + DRAIN,
        "headers indented by three": DRAIN.replace("\nEND", "\n   END").replace("\nPULLER", "\n   PULLER"),
        "fenced": f"```\n{DRAIN}\n```",
        "only the closing fence": f"{DRAIN}\n```",
        "comments inside a node": DRAIN.replace("    [B]", "# x\n\n    # y\n    [B]").replace("a:", "a:#z"),
        "comments after routes": DRAIN.replace("end\n", "end # and done\n"),
        "END first": "END end\n" + DRAIN.replace("\n\nEND end", ""),
        "the first of two routes counts": DRAIN.replace("    [B] a", "    [B] a\n    [B] NONE"),
        "ids in other scripts": re.sub(r"\ba\b", "größe_٣", DRAIN),
        "a node that never runs": DRAIN + "\nPULLER_RB NONE:\n    [R] end",
    }
)
def test_spellings_of_one_program(example: str) -> None:
    program = parse(example)
    assert program.accepts("RBR")
    assert not program.accepts("R" * 998)


LINES = [
    "START start:",
    "END end",
    "PULLER_RB a:",
    "PAINTER_RED a",
    "    [R] a",
    "    [Y] end",
    "\tNEXT end",
    "",
    "# x",
]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(LINES) | st.text("ab#:[]\t\r \u00a0\x0c`RB", max_size=12), max_size=9).map("\n".join))
def test_any_text_parses_or_is_a_parse_error(text: str) -> None:
    error = None
    try:
        program = parse(text)
    except ParseError as mistake:
        error = mistake
    if error is None:
        assert program.nodes["start"].type == "START"
        assert program.run("RBYG").visits <= 1000
    else:
        assert re.fullmatch(r"[a-z_]+", error.kind)
        assert error.line is None or 1 <= error.line <= text.count("\n") + 1


# ---------------------------------------------------------------------------------------------------- running


def test_end_in_capitals_parses_but_accepts_only_as_a_declared_node() -> None:
    trace = parse(ACCEPT_ALL.replace("NEXT end", "NEXT END")).run("R")
    assert (trace.accepted, trace.halt, trace.path) == (False, "unknown_node", ["start", "END"])
    assert parse(ACCEPT_ALL.replace("NEXT end", "NEXT END") + "\nPAINTER_RED END:\n    NEXT end").run("R").tape == "RR"


def test_a_missing_branch_consumes_and_rejects() -> None:
    program = parse("START start:\n    NEXT a\nPULLER_RB a:\nEND end")
    assert [(program.run(tape).tape, program.run(tape).halt) for tape in ("RB", "YB", "")] == [
        ("B", "none"),
        ("YB", "none"),
        ("", "none"),
    ]


@pytest.mark.parametrize(("length", "accepted"), [(997, True), (998, False)])
def test_the_visit_that_accepts_counts(length: int, accepted: bool) -> None:
    trace = parse(DRAIN).run("R" * length)
    assert (trace.accepted, trace.visits) == (accepted, 1000)
    assert trace.halt == ("end" if accepted else "limit")


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Valid programs of up to six nodes that loop, paint, and route anywhere."""
    ids = [f"n{number}" for number in range(draw(st.integers(1, 6)))]
    target = st.sampled_from([*ids, "end", "end", "NONE", "END", "start"])
    paints = draw(st.booleans())
    text = f"START start:\n    NEXT {draw(target)}\nEND end\n"
    for id_ in ids:
        kind = draw(st.sampled_from([*PULLED, *PAINTED] if paints else [*PULLED]))
        text += f"{kind} {id_}:\n"
        conditions = [f"[{condition}]" for condition in (*PULLED[kind], "EMPTY")] if kind in PULLED else ["NEXT"]
        for condition in conditions:
            if condition == "NEXT" or draw(st.integers(0, 4)):
                text += f"    {condition} {draw(target)}\n"
    return parse(text)


@settings(max_examples=500)
@given(programs(), st.text("RBYGx", max_size=12), st.sampled_from([0, 1, 2, 5, 9, 20, 1000]))
def test_the_fast_verdict_is_that_of_the_walk(program: Program, tape: str, max_visits: int) -> None:
    for _ in range(2):  # the second time with compiled moves
        assert program.accepts(tape, max_visits) == (program.walk(tape, max_visits).halt == "end")
    trace = program.run(tape, max_visits)
    assert trace.visits <= max_visits
    assert (trace.halt == "limit") == (
        trace.visits == max_visits and trace.path[-1:] not in (["end"], ["NONE"], ["END"])
    )


def test_a_long_tape_and_a_long_program_end() -> None:
    chain = "".join(f"PULLER_RB c{n}:\n    [R] c0\n    [EMPTY] c{n + 1}\n" for n in range(3000))
    program = parse(f"START start:\n    NEXT c0\nEND end\n{chain}PULLER_YG c3000:\n    [EMPTY] end")
    assert program.run("").halt == "limit"
    assert program.run("", max_visits=3003).halt == "end"
    assert not parse(DRAIN).accepts("RB" * 50_000)


# ------------------------------------------------------------------------------------------- judging an answer


def test_the_judge_on_known_good_and_known_bad_answers() -> None:
    cases = [case("R", True), case("", True), case("Y", False), case("RG", False)]
    good = DRAIN.replace("[EMPTY] end", "[EMPTY] b") + "\nPULLER_YG b:\n    [EMPTY] end"
    assert grade(fenced(good), cases).passed
    for bad in (DRAIN, ACCEPT_ALL, REJECT_ALL, good.replace("[EMPTY] b", "[EMPTY] NONE"), "hello", ""):
        verdict = grade(fenced(bad), cases)
        assert (verdict.passed, verdict.reward) == (False, 0.0)
        assert verdict.feedback
    for no_answer in ("", good, f"```manufactoria\n{good}", f"~~~\n{good}\n~~~"):
        assert grade(no_answer, cases).error == "no_answer"
        assert grade(no_answer, cases, truncated=True).error == "truncated"
    nothing = grade(fenced(good), [])
    assert (nothing.passed, nothing.reward, nothing.error) == (False, 0.0, "no_cases")
    unread = grade(fenced("hello"), cases)
    assert (unread.reward, unread.cases_passed, unread.cases_total, unread.error) == (0.0, 0, 4, "parse")
    assert grade(fenced(ACCEPT_ALL), [{}]).passed  # of an empty tape, which is to be accepted as it is
    assert grade(fenced(ACCEPT_ALL), [{"input": "R"}]).cases_passed == 0  # and not with anything left on it


def test_dense_reward_and_case_counts() -> None:
    cases = [case("R", True), case("B", True), case("Y", False)]
    verdict = grade(fenced(ACCEPT_ALL), cases, reward="dense")
    assert (verdict.reward, verdict.cases_passed, verdict.cases_total) == (pytest.approx(2 / 3), 2, 3)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("```a``` text ```b```", "b"),
        ("```manufactoriaSTART```", "START"),
        ("```Manufactoria\nx```", "Manufactoria\nx"),
        ("``` manufactoria\nx```", "manufactoria\nx"),
        ("```draft``` ```unclosed", "draft"),
        ("````\nx\n````", "`\nx"),
        ("``````", ""),
        ("```", None),
    ],
)
def test_extraction(response: str, answer: str | None) -> None:
    assert extract(response) == answer


@given(st.lists(st.sampled_from(["`", "```", "```manufactoria", "manufactoria", "a", " ", "\n"])).map("".join))
def test_extraction_pairs_fences_from_the_left(response: str) -> None:
    blocks = re.findall(r"```(?:manufactoria)?(.*?)```", response, re.DOTALL)
    assert extract(response) == (blocks[-1].strip() if blocks else None)


def test_expected_output() -> None:
    painter = ACCEPT_ALL.replace("NEXT end", "NEXT p") + "\nPAINTER_RED p:\n    NEXT end"

    def passes(expected_output: str, expected_accepted: bool = True) -> bool:
        record = {"input": "B", "expected_output": expected_output, "expected_accepted": expected_accepted}
        return grade(fenced(painter), [record]).passed  # check_output is true when missing

    assert passes("BR")
    assert not passes("B")
    assert passes("B+R?")
    assert not passes("(")  # no valid pattern: compared as it stands
    assert not passes("[BR]{2}")  # brackets and braces alone make no pattern
    assert passes("B", expected_accepted=False)  # a wrong tape counts as a rejection
    assert not grade(fenced(REJECT_ALL), [{"input": ""}]).passed  # expected_accepted is true when missing
    assert grade(fenced(ACCEPT_ALL), [{}]).passed  # an empty tape, which stays one


# --------------------------------------------------------------------------------------------------- feedback


@pytest.mark.parametrize("kind", ["full", "compact"])
def test_feedback_keeps_the_verdict_and_the_end_of_a_long_path(kind: Any) -> None:
    cases = [case("R", True), case("RB" * 20 + "Y", True), case("BB", False), case("R" * 2000, True)]
    text = grade(
        fenced(DRAIN.replace("[EMPTY] end", "[EMPTY] stop") + "\nPULLER_YG stop:"), cases, feedback=kind
    ).feedback
    assert text.startswith("1 of 4 tests pass.")
    assert "Tape R must be accepted but is rejected: PULLER_YG stop sends it to NONE, the tape empty" in text
    assert len(text) < 500
    if kind == "full":
        assert "Path: start -> a -> a -> stop -> NONE" in text


def test_full_feedback_shows_a_wrong_rejection_and_a_wrong_acceptance() -> None:
    text = grade(fenced(DRAIN), [case("YR", False), case("G", False), case("R" * 999, True)]).feedback
    assert "Tape G must be rejected but is accepted." in text
    assert "must be accepted but is rejected: it circles, last at PULLER_RB a, until 1000 visits are used." in text
    assert "(after 984 visits) a -> a" in text
    assert len(text) < 1500


def test_feedback_explains_capitals_and_outputs() -> None:
    capitals = ACCEPT_ALL.replace("NEXT end", "NEXT END")
    assert "The END node is called end." in grade(fenced(capitals), [case("R", True)]).feedback
    assert "the node 'END' does not exist" in grade(fenced(capitals), [case("R", True)], feedback="official").feedback
    record = {"input": "B", "expected_output": "", "expected_accepted": True, "check_output": True}
    text = grade(fenced(ACCEPT_ALL), [record]).feedback
    assert "Tape B must be accepted with output (empty) but is accepted with output B." in text


@pytest.mark.parametrize(
    ("right", "wrong", "feedback"),
    [
        ("    NEXT a", "  NEXT a", "Parse error in line 1: no route."),
        ("NEXT a", "GOTO a", "Parse error in line 2: bad route."),
        ("PULLER_RB", "READER_RB", "Parse error in line 3: bad header."),
        ("[R]", "(R)", "Parse error in line 4: bad route."),
        ("END end", "END end:", "Parse error in line 7: bad colon."),
        ("[B] NONE", "[B] HALT", "Parse error in line 3: undefined target."),
        ("[EMPTY] end", "[EMPTY] END", "0 of 1 tests pass. Tape (empty) must be accepted but is rejected:"),
    ],
)
def test_compact_feedback_names_the_mistake_but_not_the_right_form(right: str, wrong: str, feedback: str) -> None:
    program = "START start:\n    NEXT a\nPULLER_RB a:\n    [R] a\n    [B] NONE\n    [EMPTY] end\nEND end"
    assert grade(fenced(program), [case("", True)], feedback="compact").passed
    told = grade(fenced(program.replace(right, wrong)), [case("", True)], feedback="compact").feedback
    assert told.startswith(feedback)
    assert "called" not in told


@settings(max_examples=200)
@given(
    programs(),
    st.lists(st.builds(case, st.text("RBYG", max_size=30), st.booleans()), min_size=1, max_size=8),
    st.sampled_from(["full", "official", "compact"]),
)
def test_feedback_exists_exactly_for_failures(program: Program, cases: list[dict[str, Any]], kind: Any) -> None:
    source = "\n".join(
        f"{node.type} {id_}{'' if node.type == 'END' else ':'}\n"
        + "".join(f"    {c if c == 'NEXT' else f'[{c}]'} {target}\n" for c, target in node.routes.items())
        for id_, node in program.nodes.items()
    )
    verdict = grade(fenced(source), cases, feedback=kind)
    assert verdict.passed == (not verdict.feedback) == (verdict.cases_passed == verdict.cases_total)
    assert len(verdict.feedback) <= 2000
