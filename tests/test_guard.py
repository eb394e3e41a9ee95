"""Runs that cannot learn: which are refused, which stop and when, and which end well."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import local, rows, train
from torch.distributed.device_mesh import DeviceMesh

from resd.guard import Guard
from resd.report.journal import LOSSES, Journal
from resd.report.log import Log
from resd.types import Attempt, Observation, Problem, Reflection, Sample, UserError, Verdict

ON = "; on_empty=warn goes on all the same"
SILENT = Sample([1], [2], [-1.0])
TAUGHT = Sample([1], [2], [-1.0], teacher_prompt_ids=[3])
REWARDED = Sample([1], [2], [-1.0], advantage=0.5)
EQUAL = Sample([1], [2], [-1.0], advantage=0.0)
DEMONSTRATED = Sample([1], [2], None)


class Watched:
    """A guard, and what it and its journal say on the console."""

    def __init__(self, on_empty: Any = "stop", max_mismatch: float | None = None) -> None:
        log = Log(None, talks=False)
        self.said: list[str] = []
        log.say = self.said.append  # type: ignore[method-assign]
        self.journal = Journal(log)
        self.guard = Guard(self.journal, on_empty, max_mismatch=max_mismatch)

    def update(self, *samples: Sample, attempts: Any = (), lost: Any = (), **metrics: float) -> str:
        """The guard's answer to an update with these samples and losses."""
        self.journal.step += 1
        for name in lost:
            self.journal.count(name, 2)
        answer = self.guard.check(Observation(list(attempts), list(samples), {"grad_norm": 1.0, **metrics}))
        self.journal.drain()
        return answer


def attempt(reflection: str | None = "", passed: bool = False, parent: Attempt | None = None) -> Attempt:
    read = None if reflection is None else Reflection(reflection)
    verdict = Verdict(float(passed), passed, int(passed), 1)
    return Attempt("1/p/0", Problem("p", "p"), [], "", [1], [2], [], "", False, verdict, read, parent=parent)


@pytest.mark.parametrize("name", [*LOSSES, "self_test/too_long"])
def test_an_update_that_lost_all_samples_stops(name: str) -> None:
    for samples in ([], [SILENT], [SILENT, SILENT]):
        assert Watched().update(*samples, lost=[name]) == f"update 1 has no sample to learn from (2 x {name}){ON}"
    watched = Watched("warn")
    assert watched.update(lost=[name]) == ""
    assert watched.said[1:] == [f"[yellow]update 1 has no sample to learn from (2 x {name})[/]"]


@pytest.mark.parametrize("on_empty", ["stop", "warn"])
def test_an_engine_that_samples_from_other_weights_stops_the_run(on_empty: str) -> None:
    watched = Watched(on_empty, max_mismatch=0.05)
    assert watched.update(TAUGHT, mismatch_kl=0.05) == ""
    assert watched.update(TAUGHT, mismatch_kl=math.nan) == ""  # that of a step that is not finite, which is counted
    assert watched.update(TAUGHT, mismatch_kl=0.051).startswith(
        "engine and learner are 0.051 nats a token apart in update 3, more than max_mismatch=0.05"
    )
    assert Watched().update(TAUGHT, mismatch_kl=9.0) == ""


@pytest.mark.parametrize("sample", [TAUGHT, REWARDED, EQUAL, DEMONSTRATED])
def test_one_sample_is_enough(sample: Sample) -> None:
    assert Watched().update(SILENT, sample, lost=["verify/lost"]) == ""


def test_without_a_loss_an_update_may_be_empty() -> None:
    """As when all tries succeed and nothing privileged is known."""
    for lost in ([], ["reflect/repaired"], ["curate/duplicates"], ["playbook/removed"]):
        assert Watched().update(SILENT, lost=lost) == ""


def test_where_nothing_failed_no_sample_is_missed() -> None:
    lost = ["rollout/lost"]
    assert Watched().update(attempts=[attempt(passed=True)], lost=lost) == ""
    assert "no sample to learn from" in Watched().update(attempts=[attempt(passed=True), attempt()], lost=lost)
    child = attempt(parent=attempt())
    assert Watched().update(attempts=[attempt(passed=True), child], lost=lost) == ""


def test_all_losses_of_the_update_are_named() -> None:
    watched = Watched()
    watched.update(TAUGHT, lost=["tag/invalid"])
    stops = watched.update(lost=["rollout/lost", "verify/lost"])
    assert stops == f"update 2 has no sample to learn from (2 x rollout/lost, 2 x verify/lost){ON}"


INVALID = ["reflect/invalid"]


def test_the_second_update_without_a_reflection_stops() -> None:
    watched = Watched()
    assert watched.update(TAUGHT, attempts=[attempt(), attempt(None)], lost=INVALID) == ""
    assert watched.update(TAUGHT, attempts=[attempt(), attempt("a lesson")], lost=INVALID) == ""
    stops = watched.update(TAUGHT, attempts=[attempt(None)], lost=INVALID)
    assert stops == (
        "2 updates had no usable reflection, the last is 3 (2 x reflect/invalid): look at attempts/ for what the model "
        f"wrote, or use algorithm=sdpo{ON}"
    )


def test_reflections_that_nobody_needed_are_not_missed() -> None:
    watched = Watched()
    first = attempt(passed=True)
    for _ in range(3):
        assert watched.update(TAUGHT, attempts=[attempt()]) == ""  # sdpo, which asks for none
        assert watched.update(TAUGHT, attempts=[first], lost=["tag/invalid"]) == ""
        assert watched.update(TAUGHT, attempts=[first, attempt(parent=first)], lost=INVALID) == ""
        assert watched.update(TAUGHT, attempts=[attempt("said all the same")], lost=INVALID) == ""


def test_a_warning_about_reflections_is_given_once() -> None:
    watched = Watched("warn")
    for _ in range(4):
        assert watched.update(TAUGHT, attempts=[attempt()], lost=INVALID) == ""
    assert sum("no usable reflection" in said for said in watched.said) == 1


@pytest.mark.parametrize(
    ("samples", "norm", "learned"),
    [
        ([TAUGHT], 1.0, True),
        ([SILENT, REWARDED], 1.0, True),
        ([DEMONSTRATED], 1.0, True),
        ([TAUGHT], math.nan, False),
        ([TAUGHT], math.inf, False),
        ([EQUAL, EQUAL], 0.0, False),
        ([SILENT], 0.0, False),
        ([], 0.0, False),
    ],
)
def test_a_run_that_never_moved_ends_with_a_sentence(samples: list[Sample], norm: float, learned: bool) -> None:
    for on_empty in ("stop", "warn"):
        watched = Watched(on_empty)
        for _ in range(2):
            watched.update(*samples, grad_norm=norm)
        if learned or on_empty == "warn":
            watched.guard.conclude()
        else:
            with pytest.raises(UserError, match=f"^none of the 2 updates had anything to learn from{ON}$"):
                watched.guard.conclude()
        told = ["[yellow]none of the 2 updates had anything to learn from[/]"]
        assert watched.said == (told if on_empty == "warn" and not learned else [])
    watched.update(TAUGHT)
    watched.guard.conclude()  # one update is enough


def test_a_run_that_had_no_update_left_ends_well() -> None:
    Watched().guard.conclude()


def words(model: Path, folder: Path, ways: Any = ("", ""), **fields: Any) -> list[str]:
    return [*local(folder, ways, **fields), f"model.path={model}", f"run_dir={folder / 'run'}"]


def test_a_run_into_which_nothing_fits_is_refused(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    long = words(tiny_model, tmp_path)
    done = train(capfd, *long, "rollout.max_prompt=20")
    shortest = len("<>user\nSay 0.<>\n<>assistant\n") - 3  # a control token is one
    assert (done.status, done.err) == (
        2,
        "error: no problem fits into rollout.max_prompt=20 tokens: the shortest prompt has "
        f"{shortest}, write at least that\n",
    )
    assert not (tmp_path / "run/metrics.jsonl").exists()
    done = train(capfd, *long, f"rollout.max_prompt={shortest}", "steps=1", "algorithm=sdpo")
    assert done.status == 0, done.err


def test_a_run_that_learned_something_ends_well(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = train(capfd, *words(tiny_model, tmp_path, ["raises", ""]), "algorithm=sdpo", "steps=1")
    assert (done.status, done.err) == (0, "")
    assert "lost on the way 1 x verify/lost" in done.out
    assert "none of the" not in done.out


def test_a_run_of_equal_rewards_does_not_end_well(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = words(tiny_model, tmp_path, ["huge_line"] * 2)
    done = train(capfd, *run, "algorithm=grpo", "algorithm.group=2")
    assert (done.status, done.err) == (2, f"error: none of the 2 updates had anything to learn from{ON}\n")
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "train"] == [1, 2]
    assert (tmp_path / "run/checkpoints/step_000002").is_dir()  # and nothing is lost
    assert train(capfd, *run, "algorithm=grpo", "algorithm.group=2").status == 0  # nothing to do


def test_a_model_that_writes_no_reflection_is_stopped(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It thinks, and never ends."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant\n<think>\n"))
    run = words(model, tmp_path, ["surrogate"] * 2)
    done = train(capfd, *run, "steps=4", "inner_updates=4")
    assert done.status == 2
    assert done.err.startswith("error: 2 updates had no usable reflection, the last is 2 (")
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "train"] == [1, 2]
    assert done.out.count("x reflect/invalid") == 1
