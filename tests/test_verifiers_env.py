"""Environments of the package verifiers: rows, scores, what is refused, and judges that misbehave.

Its two interfaces are tested where a version has them: the older one before 0.4, the newer one from 0.3 on.
"""

import asyncio
import inspect
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_local import train_on
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.divided import sides
from resd.envs.verifiers import Verifiers, environment, find
from resd.envs.verifiers.classic import Calls
from resd.task import Task, follows
from resd.types import Lost, UserError
from resd.verify import Verifier, examine

try:
    import verifiers
except ImportError:
    verifiers = None

needs_one = pytest.mark.skipif(verifiers is None, reason="verifiers is not installed")
needs_classic = pytest.mark.skipif(not hasattr(verifiers, "SingleTurnEnv"), reason="verifiers before 0.4 is not there")
ENVIRONMENTS = [pytest.param("vf_classic", marks=needs_classic), pytest.param("vf_taskset", marks=needs_one)]
REPLIES = ["revir", "revir ", "enots", "", "\x00", "🦊" * 500, "rev\ud800", "a word too many", "<think>", "9" * 10**5]


def of(env: str, kind: str = "plain", **options: Any) -> Verifiers:
    options = {"metrics": ["length", "parts/words", "raises", "nan", "nothing"], **options}
    return Verifiers(env, args={"kind": kind} if env == "vf_classic" else {}, **options)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_rows_are_asked_and_judged(env: str) -> None:
    task = pickle.loads(pickle.dumps(of(env)))
    assert isinstance(task, Task)
    problems = pickle.loads(pickle.dumps(task.problems("train")))
    for problem in problems:
        assert [each["role"] for each in task.prompt(problem)] == ["system", "user"]
        assert task.prompt(problem)[1]["content"] == problem.statement
        verdict = task.verify(problem, f"<think>{problem.statement}</think>\n{problem.privileged}")
        assert (verdict.reward, verdict.passed, verdict.feedback, verdict.cases_total) == (1.0, True, "", 1)
        wrong = task.verify(problem, "a word too many for this")
        assert not wrong.passed
        assert wrong.scores["reward/short"] == 0
        assert wrong.scores["length"] == 24
        assert wrong.reward == pytest.approx(wrong.scores["reward/right"] / 1.5)
        assert wrong.feedback.splitlines()[0].endswith("; 1.5 is wanted.")
        assert wrong.feedback.splitlines()[1].startswith("right: 0")
        assert wrong.feedback.splitlines()[-1] == "The reply has 24 signs."


@needs_classic
@pytest.mark.parametrize("kind", ["plain", "group", "negative"])
def test_scores_are_those_of_the_rubric(kind: str) -> None:
    """A reward function that raises apart, the library's own scoring of the same messages gives the same numbers."""
    import vf_classic

    weights = (1.0, 0.5, -0.25)
    task = Verifiers("vf_classic", args={"kind": kind, "weights": weights})
    own = vf_classic.load_environment(kind, weights=weights)
    for problem in task.problems("train")[:2]:
        for reply in REPLIES:
            said = environment.Reply(reply)
            scored = task.environments["train"].score(problem.cases[0][2], said)
            state = verifiers.types.State(input={}, answer=problem.privileged, prompt=[], trajectory=[])
            state["completion"] = [verifiers.types.AssistantMessage(content=reply)]
            asyncio.run(own.rubric.score_rollout(state))
            assert scored.total == pytest.approx(state["reward"])
            assert scored.values == {name: value for name, value in state["metrics"].items() if name != "num_turns"}
            assert scored.weighted == set(scored.values) - ({"length"} if kind == "plain" and not weights[2] else set())


@needs_one
def test_scores_are_those_of_the_task() -> None:
    task = of("vf_taskset")
    for reply in REPLIES:
        if "\ud800" in reply:
            continue  # the library's messages refuse half a sign
        scored = task.environments["train"].score(task.problems("train")[0].cases[0][2], environment.Reply(reply))
        said, wanted = reply.strip(), task.problems("train")[0].privileged
        right = sum(a == b for a, b in zip(said, wanted, strict=False)) / len(wanted)
        assert scored.values == {"right": right, "short": float(len(said) < 9), "length": len(said), "cut": 0}
        assert scored.total == right + 0.5 * (len(said) < 9)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_hostile_answers_are_judged_or_lost_alone(env: str) -> None:
    """Also where a reward function raises, hangs, or gives no number."""
    task = of(env)
    problems = task.problems("train")
    replies = [*REPLIES, "raise", "nan", "hang", "enots"]
    verifier = Verifier(task, workers=1, timeout=5.0)
    try:
        said = dict(verifier.verify([(problems[0], reply, True) for reply in replies]))
    finally:
        verifier.close()
    found = {reply: said[index] for index, reply in enumerate(replies)}
    lost = {reply: verdict.reason for reply, verdict in found.items() if isinstance(verdict, Lost)}
    assert lost.keys() - {"rev\ud800"} == {"raise", "nan", "hang"}
    assert "ValueError: cannot read this" in lost["raise"]
    assert "not finite" in lost["nan"]
    assert lost["hang"].startswith("took longer than 5 s")
    assert found["enots"].passed
    assert found[""].error == "truncated"


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_an_error_in_a_reward_function_is_raised_and_gone_with_the_next_answer(env: str) -> None:
    task = of(env)
    problem = task.problems("train")[0]
    for reply, reason in (("raise", "cannot read this"), ("nan", "not finite")):
        with pytest.raises(Exception, match=reason):
            task.verify(problem, reply)
        assert task.verify(problem, problem.privileged).passed


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_reply_that_was_cut_off_is_known_to_be(env: str) -> None:
    task = of(env, "cut", metrics=["cut"])
    problem = task.problems("train")[0]
    for truncated in (False, True):
        verdict = task.verify(problem, "x", truncated)
        assert (verdict.scores["cut"], verdict.error) == (float(truncated), "truncated" if truncated else None)
        assert task.verify(problem, problem.privileged, truncated).error is None


@needs_classic
def test_a_metric_that_fails_is_left_out() -> None:
    for kind in ("raises", "nan", "nothing"):
        task = of("vf_classic", kind)  # of weight 0
        verdict = task.verify(task.problems("train")[0], "enots")
        assert verdict.scores.keys() == {"reward/right", "reward/short"}
    assert of("vf_classic", metrics=[]).verify(task.problems("train")[0], "enots").scores == verdict.scores
    task = of("vf_classic", "parts")
    assert task.verify(task.problems("train")[0], "two words").scores["parts/words"] == 2


def test_what_a_reward_function_gave_is_known_without_the_package() -> None:
    calls = Calls()

    def right(completion: Any, **_: Any) -> float:
        """Says."""
        return completion[-1]["content"] == completion[-1].content

    class Said:
        def model_dump(self) -> dict[str, str]:
            return {"role": "assistant", "content": "x"}

    watched = calls.watched(right, "right", 1.0)
    assert watched.__name__ == "right"
    assert asyncio.run(watched(completion=[Said()])) == 1.0  # type: ignore[arg-type]
    for value in (float("nan"), float("inf"), None, "7a", [1]):
        calls.begin()
        assert asyncio.run(calls.watched(lambda value=value: value, "odd", 1.0)()) == 0.0  # type: ignore[arg-type]
        assert isinstance(calls.failed, UserError)
        assert str(calls.failed).startswith("the reward function odd gave")
    calls.begin()
    assert asyncio.run(calls.watched(lambda: {"a": 1, "b": True}, "both", 0.0)()) == 0.0  # type: ignore[arg-type]
    assert (calls.failed, calls.spread) == (None, {"both/a": 1.0, "both/b": 1.0})
    asyncio.run(calls.watched(lambda: {"a": 1}, "both", 2.0)())  # type: ignore[arg-type]
    assert "gave {'a': 1}, which is no number" in str(calls.failed)


@needs_classic
def test_splits_of_the_older_interface() -> None:
    both = of("vf_classic")
    assert [len(both.problems(split)) for split in ("train", "test")] == [6, 2]
    assert both.self_test() == (
        "env=vf_classic: 6 problems to train on and 2 to test on; judged by right (1), short (0.5), length (0); "
        "full marks 1.5, passed from 1.5"
    )
    for splits, rows in ((["train"], 6), (["test"], 2)):
        task = Verifiers("vf_classic", args={"splits": splits})
        found = {split: {each.statement for each in task.problems(split)} for split in ("train", "test")}
        assert len(found["train"] | found["test"]) == rows
        assert not found["train"] & found["test"]
        assert f"one data set of {rows} rows, divided by a hash" in str(task.self_test())
    for options in ({}, {"args": {"splits": ["train"]}}, {"args": {"splits": ["test"]}}):
        few = Verifiers("vf_classic", train=1, test=1, **options)
        assert [len(few.problems(split)) for split in ("train", "test")] == [1, 1]


@needs_one
def test_splits_of_the_newer_interface() -> None:
    task = Verifiers("vf_taskset", test_args={"split": "test"})
    assert [each.id for each in task.problems("test")] == ["test-1", "test-2"]
    assert len(task.problems("train")) == 6
    assert task.verify(task.problems("test")[0], "naeco").passed
    one = Verifiers("vf_taskset", test_share=0.5)
    assert len(one.problems("train")) + len(one.problems("test")) == 6
    assert one.problems("train") == Verifiers("vf_taskset", test_share=0.5).problems("train")
    twice = Verifiers("vf_taskset", args={"split": "test"}, test_args={"split": "test"})
    with pytest.raises(UserError, match="env=vf_taskset has no train problem"):
        twice.problems("train")


def test_sides_depend_on_each_key_alone() -> None:
    keys = [str(number) for number in range(200)]
    first = dict(zip(keys, sides(keys, 0.2), strict=True))
    assert 20 <= list(first.values()).count("test") <= 60
    assert all(first[key] == side for key, side in zip(keys[50:], sides(keys[50:], 0.2), strict=True))


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_full_marks_and_where_a_response_passes(env: str) -> None:
    half = of(env, pass_at=0.5)
    verdict = half.verify(half.problems("train")[0], "x")  # short, and nothing right
    assert (verdict.passed, verdict.reward) == (True, pytest.approx(1 / 3))
    generous = of(env, full=0.25)
    verdict = generous.verify(generous.problems("train")[0], "x")
    assert (verdict.passed, verdict.reward) == (True, 1.0)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_thinking_is_apart_or_inline(env: str) -> None:
    thought = "<think>no</think>x"
    for thinking, length in (("apart", 1), ("inline", len(thought))):
        task = of(env, thinking=thinking)
        assert task.verify(task.problems("train")[0], thought).scores["length"] == length
    task = of(env)
    assert task.verify(task.problems("train")[0], "<think>no end").scores["length"] == 0


@needs_classic
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("tools", "it offers tools"),
        ("judge", "asks a judge"),
        ("compares", "rewards responses in comparison"),
        ("no_rows", "cannot be made with args=.*ConnectionError: the data set cannot be reached"),
        ("info", "row 1: its info is no JSON"),
        ("offered", "row 1 offers tools"),
        ("columns", "cannot be made with args=.*KeyError"),
    ],
)
def test_what_the_older_interface_cannot_be_used_for(kind: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        of("vf_classic", kind).problems("train")


@needs_classic
def test_a_game_of_several_turns_is_replayed() -> None:
    """Every turn begins it anew, so that it can be asked in any process and in any order."""
    game = pickle.loads(pickle.dumps(of("vf_classic", "turns", metrics=["patient"])))
    assert follows(game)
    assert not follows(of("vf_classic"))
    problem = game.problems("train")[0]
    right = problem.privileged
    assert right == "enots"
    for replies, heard in (
        (["stone"], "1 letters are right."),
        (["stone", "enot"], "4 letters are right."),
        (["<think>enots</think>stone"], "1 letters are right."),
        ([""], "0 letters are right."),
        (["stone", "enot", "enots"], ""),
        (["enots"], ""),
    ):
        said = [{"role": "user", "content": heard}] if heard else []
        assert list(game.follow(problem, replies)) == said, replies
    for replies, passed in ((["stone", right], True), (["stone"], False), ([right], True), (["a", "b", "c"], False)):
        verdict = game.verify(problem, replies)
        assert (verdict.passed, verdict.reward, verdict.answer) == (passed, float(passed), replies[-1])
        assert verdict.scores["patient"] == pytest.approx(len(replies) / 3)
    assert game.verify(problem, ["stone", "eno"], truncated=True).error == "truncated"


@needs_classic
def test_games_that_cannot_be_replayed_are_refused_or_lost() -> None:
    draws = of("vf_classic", "draws")
    with pytest.raises(UserError, match="may depend on the problem and the replies alone"):
        examine(draws, draws.problems("train"), 30)
    for kind, reason in (("breaks", "the board is gone"), ("rewrites", "changes what was said before")):
        game = of("vf_classic", kind)
        with pytest.raises(Exception, match=reason):
            game.follow(game.problems("train")[0], ["stone"])


@needs_classic
def test_negative_weights_alone_have_no_full_marks() -> None:
    with pytest.raises(UserError, match="no reward function of a positive weight"):
        Verifiers("vf_classic", args={"weights": [-1, 0, 0]})


@needs_one
def test_what_the_newer_interface_cannot_be_used_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import verifiers.v1 as vf
    import vf_taskset

    kind = vf_taskset.BackwardsTask

    async def finalize(self: Any, trace: Any, runtime: Any) -> None: ...

    @vf.reward
    async def right(self: Any, trace: Any, runtime: Any) -> float:
        return 1.0

    class Turns(vf.Env):  # type: ignore[type-arg]
        async def run(self, task: Any, agents: Any) -> None: ...

    for owner, name, value, message in (
        (kind, "NEEDS_CONTAINER", True, "need a container"),
        (kind, "finalize", finalize, "prepare a machine"),
        (kind, "right", right, "right looks at the machine"),
        (kind, "toolsets", classmethod(lambda cls, config: [object()]), "offers tools"),
        (vf_taskset, "Turns", Turns, "an episode of its own"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, value, raising=False)
            if owner is vf_taskset:
                patched.setattr(vf_taskset, "__all__", ["BackwardsTaskset", "Turns"])
            with pytest.raises(UserError, match=message):
                Verifiers("vf_taskset")
    with pytest.raises(UserError, match="does not take these args: nothing: Extra"):
        Verifiers("vf_taskset", args={"nothing": 1})
    monkeypatch.setattr(vf_taskset.BackwardsTaskset, "INFINITE", True)
    with pytest.raises(UserError, match="makes tasks without end: write"):
        Verifiers("vf_taskset").problems("train")
    bounded = Verifiers("vf_taskset", train=2, test=1)
    assert len(bounded.problems("train")) + len(bounded.problems("test")) == 3


@needs_one
def test_games_that_the_library_ships_are_refused() -> None:
    with pytest.raises(UserError, match="it plays an episode of its own"):
        Verifiers("verifiers.v1.tasksets.openenv", args={"env": "any"})


@needs_one
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "not_there"}, "there is no module not_there: install the environment's package"),
        ({"env": "json"}, "json has neither load_environment nor a Taskset"),
        ({"env": "vf_taskset", "thinking": "loud"}, "write one of apart, inline"),
        ({"env": "vf_taskset", "train": 0}, "train=0 is out of range"),
        ({"env": "vf_taskset", "full": 0}, "full=0 is out of range: write a number above 0"),
        ({"env": "vf_taskset", "pass_at": True}, "pass_at=True is out of range"),
        ({"env": "vf_taskset", "test_share": 1}, "test_share=1 is no share"),
        ({"env": "vf_taskset", "args": "train"}, "args='train' has no names"),
        ({"env": "vf_taskset", "metrics": "length"}, "metrics='length' is no list of names"),
        ({"env": "vf_taskset", "names": 1}, "it takes env, args, test_args"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.load("verifiers", **options)


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(UserError, match=r"needs its package: run pip install 'verifiers>=0.3,<0.5'"):
        envs.load("verifiers", env="anything")


def test_an_older_environment_wants_an_older_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", type(sys)("verifiers"))
    monkeypatch.setattr(sys.modules["verifiers"], "__version__", "0.4.0", raising=False)
    with pytest.raises(UserError, match=r"before 0.4 \(load_environment\), and 0.4.0 is installed"):
        find.load("vf_classic", {})


def test_the_configuration_says_what_the_code_does() -> None:
    written = yaml.safe_load((Path(__file__).parent.parent / "conf/task/verifiers.yaml").read_text())["options"]
    taken = {name: each.default for name, each in inspect.signature(Verifiers).parameters.items()}
    assert list(written) == list(taken)
    assert {name: value or None for name, value in written.items() if name != "env"} == {
        name: value or None for name, value in taken.items() if name != "env"
    }


def test_prompts_are_texts_of_a_role() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert environment.plain([{"role": "user", "content": parts, "name": None}], "x") == [
        {"role": "user", "content": "a\nb"}
    ]
    for wrong in (None, [], [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "tool", "content": "a"}]):
        with pytest.raises(UserError, match="x"):
            environment.plain(wrong, "x")


@needs_classic
def test_signal_handlers_stay_those_of_the_run() -> None:
    kept = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    of("vf_classic")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == kept


@needs_one
def test_the_start_of_a_run_says_how_problems_were_divided() -> None:
    task = Verifiers("vf_taskset")
    assert "one data set of 6 rows, divided by a hash" in str(examine(task, task.problems("train"), 20.0))


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_run(env: str, mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    train_on(tiny_model, tmp_path, "task=verifiers", f"task.options.env={env}")
