"""Verification in real processes: whatever a verifier does, other answers keep their verdicts and nothing is left."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import misbehaving
import pytest
from misbehaving import MARK, RIGHT, WRONG, Misbehaving
from verifier_tasks import Echo

from resd.types import Lost, Problem, UserError, Verdict
from resd.verdict import checked
from resd.verify import Verifier, examine
from resd.verify.pool import outcome
from resd.verify.worker import Worker

PROBLEM = Problem("p", "yes")
GENEROUS = 120.0
SHORT = 4.0  # where a deadline must pass; a plain answer takes a millisecond


@contextlib.contextmanager
def pool(task: Any = None, workers: int = 1, timeout: float = GENEROUS) -> Iterator[Verifier]:
    with contextlib.closing(Verifier(task or Misbehaving(), workers, timeout)) as verifier:
        yield verifier


def judge(verifier: Verifier, *responses: str) -> list[Verdict | Lost]:
    verdicts = dict(verifier.verify([(PROBLEM, response, False) for response in responses]))
    assert sorted(verdicts) == list(range(len(responses)))
    return [verdicts[i] for i in range(len(responses))]


def short(said: Verdict | Lost) -> float | str:
    return said.reason if isinstance(said, Lost) else said.reward


def below(pid: int) -> list[int]:
    """Living processes under one."""
    done = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    found = [int(row[0]) for row in rows if row[1] == str(pid) and not row[2].startswith("Z")]
    return found + [each for child in found for each in below(child)]


def worker_of(verifier: Verifier, slot: int = 0) -> int:
    """The pid of a worker that waits for an answer."""
    worker = verifier.workers[slot]
    assert worker
    return below(worker.process.pid)[0]


def left_over() -> list[str]:
    """Processes that a misbehaving verifier started and that live."""
    done = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line.endswith(f"sleep {MARK}") and line[0] != "Z"]


def environment_of(entry: Path) -> str:
    try:
        return (entry / "environ").read_text(errors="replace")
    except OSError:
        return ""


def until(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_verdicts_by_index(workers: int) -> None:
    with pool(workers=workers) as verifier:
        assert [short(said) for said in judge(verifier, *["yes", "no", "yes"] * 5)] == [1.0, 0.0, 1.0] * 5
        assert judge(verifier) == []


def test_what_is_no_verdict_is_lost_with_its_reason() -> None:
    with pool() as verifier:
        assert [short(said) for said in judge(verifier, *RIGHT)] == [1.0] * len(RIGHT)
        for name, said in zip(WRONG, judge(verifier, *WRONG), strict=True):
            assert isinstance(said, Lost), name
            field, _, _ = name.partition(" ")
            meant = field if " " in name else "not a Verdict"
            assert re.match(f"returned .*{meant}", said.reason), said
        assert short(judge(verifier, "yes")[0]) == 1.0


def test_numbers_and_texts_of_a_verdict_are_pythons_own() -> None:
    for name, way in RIGHT.items():
        with pool() as verifier:
            (said,) = judge(verifier, name)
        assert said == checked(way())
        assert isinstance(said, Verdict)
        kinds = {"reward": float, "passed": bool, "cases_passed": int, "cases_total": int, "feedback": str}
        assert {field: type(getattr(said, field)) for field in kinds} == kinds
        assert all(type(value) is float for value in said.scores.values())
        for text in (said.feedback, said.answer or "", said.error or "", *said.scores):
            text.encode()  # no half of a surrogate pair
    assert checked(Verdict(0.0, False, 0, 1, "a\udcffb\ud83d\ude00")).feedback == "a\ufffdb\U0001f600"


def test_replies_are_checked_on_this_side_too() -> None:
    bad: list[dict[str, Any]] = [
        {},
        {"verdict": 3},
        {"verdict": {"reward": 1.0}},
        {"verdict": {"reward": 1.0, "passed": True, "cases_passed": 1, "cases_total": 1, "more": 1}},
        {"verdict": {"reward": 7.0, "passed": True, "cases_passed": 1, "cases_total": 1}},
    ]
    assert all(isinstance(outcome(reply), Lost) for reply in bad)
    assert outcome({"lost": "\ud800"}) == Lost("\ufffd")


def test_where_and_what_was_raised() -> None:
    with pool() as verifier:
        key, user, awkward, left = judge(
            verifier, "raises", "raises_user_error", "raises_what_cannot_be_pickled_or_said", "exits"
        )
    line = misbehaving.raises.__code__.co_firstlineno + 1
    assert key == Lost(f"KeyError: 'answr' ({misbehaving.__file__}:{line})")
    assert user == Lost("write a column named answer")
    assert re.match(r"Awkward: .*misbehaving.py:\d+\)$", str(short(awkward)))
    assert re.match(r"SystemExit: 3 .*misbehaving.py:\d+\)$", str(short(left)))


def test_prints_are_kept_from_the_console_and_shown_with_a_loss(capfd: pytest.CaptureFixture[str]) -> None:
    with pool() as verifier:
        right, *lost = judge(verifier, "yes", "prints_and_raises", "prints_and_raises")
    assert short(right) == 1.0
    assert [str(short(said)).rpartition("; ")[2] for said in lost] == [
        "it has printed: 'the last words'",
        "it has printed: 'the last words\\nthe last words'",
    ]
    assert capfd.readouterr() == ("", "")


def test_a_task_is_refused_that_cannot_be_sent() -> None:
    lock = threading.Lock()
    for field in (lambda: lock, sys.stdout.buffer, lock):
        task = Echo()
        task.field = field  # type: ignore[attr-defined]
        with pytest.raises(UserError, match=r"the task Echo cannot be sent to the processes that judge \(.*\): let it"):
            Verifier(task, 1, GENEROUS)


def test_a_problem_is_lost_that_cannot_be_sent() -> None:
    odd = Problem("odd", "yes", cases=[threading.Lock()])
    with pool() as verifier:
        verdicts = dict(verifier.verify([(PROBLEM, "yes", False), (odd, "yes", False), (PROBLEM, "no", False)]))
    assert [short(verdicts[0]), short(verdicts[2])] == [1.0, 0.0]
    assert re.match("the problem 'odd' cannot be pickled: ", str(short(verdicts[1])))
    with pytest.raises(UserError, match="the problem 'odd' cannot be sent to the processes that judge"):
        examine(Echo(), [PROBLEM, odd], GENEROUS)


class Unloadable(Echo):
    """Can be sent, and not be received."""

    def __setstate__(self, state: Any) -> None:
        raise ImportError("no module named judge")

    def __getstate__(self) -> Any:
        return {"noun": "answer"}


class Dying(Echo):
    def __getstate__(self) -> Any:
        return {"noun": "answer"}

    def __setstate__(self, state: Any) -> None:
        print("I cannot live here")
        sys.stdout.flush()
        os._exit(7)


@pytest.mark.parametrize(
    ("task", "message"),
    [(Unloadable(), "ImportError: no module named judge"), (Dying(), r"exit status 7.*'I cannot live here'")],
)
def test_a_worker_that_cannot_start_says_why(task: Any, message: str) -> None:
    with pool(task) as verifier, pytest.raises(UserError, match=rf"judges answers cannot start: .*{message}"):
        judge(verifier, "yes")
    with pytest.raises(UserError, match=rf"judges answers cannot start: .*{message}"):
        examine(task, [], GENEROUS)


def test_a_worker_that_is_killed_while_idle_costs_nothing() -> None:
    with pool() as verifier:
        for number in (signal.SIGKILL, signal.SIGTERM):
            assert short(judge(verifier, "yes")[0]) == 1.0
            os.kill(worker_of(verifier), number)
            assert [short(said) for said in judge(verifier, "no", "yes")] == [0.0, 1.0]


def test_a_worker_that_is_killed_while_it_starts_costs_nothing() -> None:
    with pool() as verifier:
        until(lambda: verifier.workers[0])
        worker = verifier.workers[0]
        assert worker
        worker.process.kill()
        assert [short(said) for said in judge(verifier, "no", "yes")] == [0.0, 1.0]


def test_a_worker_that_does_not_read_is_replaced() -> None:
    """Stopped while idle, and the answer does not even fit into the socket."""
    with pool(timeout=SHORT) as verifier:
        assert short(judge(verifier, "yes")[0]) == 1.0
        os.kill(worker_of(verifier), signal.SIGSTOP)
        assert [short(said) for said in judge(verifier, "x" * 5_000_000, "yes")] == [0.0, 1.0]


def test_a_half_written_reply_has_a_deadline() -> None:
    """Nothing in the process helps here, so the reply is written by hand."""
    with pool(timeout=SHORT) as verifier:
        assert short(judge(verifier, "yes")[0]) == 1.0
        (said,) = judge(verifier, "writes_half_a_reply")
        assert said == Lost(f"took longer than {SHORT:g} s")
        assert short(judge(verifier, "yes")[0]) == 1.0


def test_replies_go_by_number() -> None:
    """A reply to another question, or without the token, is none."""
    with pool() as verifier:
        for way in ("replies_to_another_question", "forks_and_the_child_replies"):
            assert [short(said) for said in judge(verifier, way, "no", "yes")] == [1.0, 0.0, 1.0]


def test_close_ends_what_computes_and_what_starts() -> None:
    for wait in (True, False):
        verifier = Verifier(Misbehaving(), 2, GENEROUS)
        if wait:
            judge(verifier, "yes")
        for index, response in enumerate(("hangs", "bombs", "yes")):
            verifier.submit(index, response and (PROBLEM, response, False))
        if wait:
            until(lambda: len(left_over()) == 40)
        guards = [worker.process.pid for worker in verifier.workers if worker]
        verifier.close()
        assert not [pid for pid in guards if Path(f"/proc/{pid}").exists()]
        assert left_over() == []


def test_a_crash_leaves_no_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the run may leave one, in the folder where it works."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    monkeypatch.chdir(tmp_path)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with pool() as verifier:
            aborted, limit = judge(verifier, "aborts", "tells_its_core_limit")
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert aborted == Lost("its process died (SIGABRT)")
    assert isinstance(limit, Verdict)
    assert limit.feedback == "(0, 0)"
    assert list(tmp_path.iterdir()) == []


class SelfTested(Misbehaving):
    def __init__(self, way: str, empty: str = "yes") -> None:
        super().__init__()
        self.way, self.empty = way, empty

    def self_test(self) -> str | None:
        said = self.verify(PROBLEM, self.way)
        return said if isinstance(said, str) else None

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        return super().verify(problem, response or self.empty)


@pytest.mark.parametrize(
    ("way", "empty", "message"),
    [
        ("raises", "yes", r"self-test of SelfTested fails: KeyError: 'answr' \(.*misbehaving.py:\d+\)"),
        ("raises_user_error", "yes", r"^write a column named answer$"),
        ("exits", "yes", "self-test of SelfTested fails: SystemExit: 3"),
        ("leaves", "yes", r"self-test of SelfTested cannot be made: its process ended \(exit status 4\)"),
        ("crashes", "yes", r"self-test of SelfTested cannot be made: its process died \(SIGSEGV\)"),
        ("yes", "raises", "fails on an empty response to problem 'p', which a model may well give: KeyError"),
        ("yes", "tuple", "fails on an empty response .*: returned a tuple, not a Verdict"),
        ("yes", "feedback None", "fails on an empty response .*: returned a Verdict whose feedback is None"),
        ("yes", "leaves", "fails on an empty response .*: its process ended"),
    ],
)
def test_a_broken_judge_ends_in_one_sentence(way: str, empty: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        examine(SelfTested(way, empty), [PROBLEM], GENEROUS)
    assert "\n" not in str(caught.value)


def test_a_judge_that_hangs_at_first_ends_in_one_sentence() -> None:
    with pytest.raises(UserError, match=r"self-test of SelfTested cannot be made: took longer than 3 s"):
        examine(SelfTested("hangs"), [PROBLEM], 0.3)
    with pytest.raises(UserError, match=rf"fails on an empty response .*: took longer than {SHORT:g} s"):
        examine(SelfTested("yes", "hangs"), [PROBLEM], SHORT)


def test_a_sound_judge_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    assert examine(SelfTested("tells"), [PROBLEM], GENEROUS) == "programs are held"
    assert examine(Echo(), [], GENEROUS) is None
    assert examine(SelfTested("changes_folder", "changes_environment"), [PROBLEM], GENEROUS) is None
    assert (Path.cwd(), dict(os.environ)) == (tmp_path, before)


RUN = """
from misbehaving import Misbehaving
from resd.types import Problem
from resd.verify import Verifier
verifier = Verifier(Misbehaving(), 2, 600.0)
for index, response in enumerate(["bombs", "spins"]):
    verifier.submit(index, (Problem("p", "yes"), response, False))
print("judging", flush=True)
verifier.poll()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_run(number: signal.Signals) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    with subprocess.Popen(
        [sys.executable, "-c", RUN], env={**os.environ, "PYTHONPATH": paths}, stdout=-1, stderr=subprocess.DEVNULL
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == b"judging\n"
        until(lambda: len(left_over()) == 40 and len(below(run.pid)) >= 44)
        family = below(run.pid)
        run.send_signal(number)
        run.wait()
        until(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()])


def test_a_guard_that_is_ended_takes_all_with_it() -> None:
    with pool() as verifier:
        verifier.submit(0, (PROBLEM, "bombs", False))
        until(lambda: len(left_over()) == 40)
        worker = verifier.workers[0]
        assert isinstance(worker, Worker)
        worker.process.terminate()
        assert [short(said) for _, said in verifier.poll()] == ["its process died (SIGKILL)"]
        assert left_over() == []


DIED, LATE = "its process died ({})", f"took longer than {SHORT:g} s"
ANY = object()  # its own verdict, or a loss
THIRTY: dict[str, Any] = {
    "raises": r"KeyError: 'answr' \(.*\)",
    "interrupts": r"KeyboardInterrupt \(.*\)",
    "leaves": r"its process ended \(exit status 4\)",
    "crashes": r"its process died \(SIGSEGV\)",
    "aborts": r"its process died \(SIGABRT\)",
    "kills_itself": r"its process died \(SIGKILL\)",
    "kills_its_group": r"its process died \(SIGKILL\)",
    "kills_its_guard": "(its process|closed the channel).*",
    "stops_itself": LATE,
    "stops_its_guard_and_hangs": LATE,
    "hangs": LATE,
    "ignores_signals_and_hangs": LATE,
    "swallows_everything_and_hangs": LATE,
    "forks_and_both_return": 1.0,
    "forks_and_both_raise": r"ValueError: both of us \(.*\)",
    "forks_and_the_child_returns_late": 1.0,
    "forks_and_the_child_exits": 1.0,
    "waits_for_a_forked_child": 1.0,
    "forks_and_the_child_replies": 1.0,
    "replies_to_another_question": 1.0,
    "writes_half_a_reply": LATE,
    "bombs": LATE,
    "bombs_and_returns": 1.0,
    "forks_without_end": LATE,
    "daemonises": 1.0,
    "daemonises_and_dies": r"its process died \(SIGKILL\)",
    "uses_a_pool": 1.0,
    "uses_a_forked_pool": 1.0,
    "leaves_a_thread": 1.0,
    "leaves_a_thread_that_exits": 1.0,
    "leaves_a_thread_that_interrupts": ANY,
    "leaves_an_alarm": 1.0,
    "closes_files": "closed the channel of its verdicts|its process ended.*",
    "closes_files_and_opens_others": "closed the channel of its verdicts|its process ended.*",
    "closes_standard_files": 1.0,
    "closes_standard_streams": 1.0,
    "replaces_standard_streams": 1.0,
    "writes_garbage": ANY,
    "writes_garbage_for_ever": "wrote into the channel of its verdicts|" + LATE,
    "reads_everything": "took.*",
    "changes_folder": 1.0,
    "leaves_its_folder_deleted": 1.0,
    "changes_environment": 1.0,
    "prints_much": 1.0,
    "returns_much": "returned a verdict of 100,000,.* characters.*",
    "runs_out_of_memory": r"MemoryError \(.*\)",
    "recurses": "RecursionError: .*",
    "raises_the_recursion_limit_and_recurses": "(its process died|took|MemoryError|RecursionError).*",
    "warps_verdicts": 1.0,
    "returns_sly_text": 0.0,
    "returns_a_number_that_hangs": LATE,
    "limits_its_processor_time": r"its process died \(SIG(XCPU|KILL)\)",
}
WAITS = {name for name, expected in THIRTY.items() if isinstance(expected, str) and ("took" in expected)}


@pytest.mark.slow
@pytest.mark.parametrize("way", THIRTY)
def test_thirty_misbehaving_verifiers(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The right verdict for the bad answer, their own for the good ones around it, and no process left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLY", str(tmp_path / "executed"))
    guards: set[int] = set()
    with pool(workers=2, timeout=SHORT if way in WAITS else GENEROUS) as verifier:
        for around in (["yes", "no", way, "yes", "no"], [way, "no", "yes"], ["yes", "no", "no"]):
            verdicts = judge(verifier, *around)
            guards |= {worker.process.pid for worker in verifier.workers if worker}
            for response, said in zip(around, verdicts, strict=True):
                if response != way:
                    assert short(said) == float(response == "yes"), (response, said)
                elif isinstance(THIRTY[way], str):
                    assert isinstance(said, Lost), said
                    assert re.match(f"({THIRTY[way]})(; it has printed: .*)?$", said.reason), said
                elif THIRTY[way] is not ANY:
                    assert short(said) == THIRTY[way], said
    assert not [pid for pid in guards if Path(f"/proc/{pid}").exists()]
    assert [entry for entry in Path("/proc").glob("[0-9]*") if str(tmp_path) in environment_of(entry)] == []
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""
