"""Reflect, Retry, Reward with a scripted model: what reflections and retries read, which tokens learn what, and what
becomes of a batch without failures, of what does not fit and of the controls."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import LOGPROB, SAMPLING, Engine, Line, World, model_settings, prompt
from test_config import load
from test_plan import config, shape
from test_train import metrics, of_kind, run
from tiny import model as tiny_weights
from torch.distributed.device_mesh import DeviceMesh

from resd import seeds
from resd.model.chat import Chat
from resd.observe.speech import Speech
from resd.observe.writer import Author
from resd.plan import estimate
from resd.report.read import read_run
from resd.report.trace import traces
from resd.settings import AuthorSettings
from resd.types import Attempt, UserError

GROUP = 4


def by_lesson(text: str) -> str:
    """A retry is right if it reads the lesson that is."""
    return "right now" if "lesson:\nlook twice" in text else "wrong again"


def script(*lessons: str, one: str = "wrong") -> dict[str, Line]:
    """Reflections say these, one after the other; a retry ends like every prompt of the teacher, in "answer"."""
    return {"one": one, "two": "bad", "three": "right three", "reflect": list(lessons), "answer": by_lesson}


MIXED = script("lesson: look twice", "lesson: hurry", "lesson: hurry", "lesson: look twice")


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


@pytest.fixture
def world(chat: Chat, tmp_path: Path) -> Callable[..., World]:
    def make(script: dict[str, Line], **changes: Any) -> World:
        lines = {name: list(line) if isinstance(line, list) else line for name, line in script.items()}
        return World(tmp_path, chat, "reflect_retry_reward", lines, **{"group": GROUP, **changes})

    return make


Make = Callable[..., World]


def named(attempts: list[Attempt], kind: str) -> list[Attempt]:
    """First tries, reflections, or retries after a reflection or without one."""
    depth = {"try": 0, "reflect": 1, "plain": 1, "retry": 2}[kind]

    def ancestors(attempt: Attempt) -> int:
        return 0 if attempt.parent is None else 1 + ancestors(attempt.parent)

    found = [attempt for attempt in attempts if ancestors(attempt) == depth]
    return [a for a in found if depth != 1 or ("/reflect/" in a.id) == (kind == "reflect")]


def normalised(*rewards: float) -> list[float]:
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (deviation + 1e-6) for r in rewards]


def advantages(made: World) -> list[Any]:
    return [sample.advantage for sample in made.learned]


def test_a_reflection_reads_the_failure_and_a_retry_reads_the_reflection(world: Make) -> None:
    made = world(MIXED)
    attempts = made.update("one", "three")
    asked = prompt("one", previous="wrong", feedback="one is not wrong", ending="write the lesson")
    assert made.asked("reflect") == [asked] * GROUP
    lessons = ["look twice", "hurry", "hurry", "look twice"]
    retries = [prompt("one", previous="wrong", lesson=lesson) for lesson in lessons]
    assert made.asked("try") == ["solve one", "solve three", *retries]
    assert len({asked.request.seed for asked in made.engine.asked}) == 2 + 2 * GROUP
    one, three = named(attempts, "try")
    reflections, retried = named(attempts, "reflect"), named(attempts, "retry")
    assert [a.parent for a in reflections] == [one] * GROUP
    assert [a.parent for a in retried] == reflections
    assert [a.member for a in reflections] == [0, 1, 2, 3]
    assert len(attempts) == 2 + 2 * GROUP
    assert three.sample is None
    records = [json.loads(line) for line in (made.folder / "attempts/step_000001.jsonl").read_text().splitlines()]
    parents = {record["id"]: record["parent"] for record in records}
    assert parents["1/one/0/reflect/1/retry/0"] == "1/one/0/reflect/1"
    assert parents["1/one/0/reflect/1"] == "1/one/0"
    assert parents["1/one/0"] is None


def test_the_reward_of_the_retry_is_the_advantage_of_the_reflection_s_tokens_alone(world: Make, chat: Chat) -> None:
    made = world(MIXED)
    attempts = made.update("one", "three")
    assert advantages(made) == pytest.approx(normalised(1, 0, 0, 1), rel=1e-5)
    for reflection, sample in zip(named(attempts, "reflect"), made.learned, strict=True):
        assert reflection.sample is sample
        assert chat.decode(sample.response_ids) == reflection.response
        assert (sample.advantage > 0) == ("look twice" in reflection.response)  # type: ignore[operator]
        assert sample.prompt_ids == reflection.prompt_ids
        assert sample.sampled_logprobs == [LOGPROB] * len(sample.response_ids)
        assert (sample.teacher_prompt_ids, sample.pull, sample.mask, sample.weight) == (None, 1.0, None, 1.0)
    assert [a.sample for a in (*named(attempts, "try"), *named(attempts, "retry"))] == [None] * (2 + GROUP)


def test_each_failure_is_a_group_of_its_own(world: Make) -> None:
    lessons = ["lesson: look twice"] * 3 + ["lesson: hurry"] + ["lesson: hurry"] * 4
    made = world(script(*lessons), normalise_std=False)
    made.update("one", "two")
    assert advantages(made) == pytest.approx([0.25, 0.25, 0.25, -0.75, 0, 0, 0, 0])
    assert made.metrics["retry/passed"] == 3 / 8
    assert made.metrics["retry/mixed"] == 0.5
    assert made.metrics["reflect/distinct"] == 2
    assert made.metrics["retry/failures"] == 2
    assert "retry/plain" not in made.metrics


def test_equal_rewards_move_nothing(world: Make) -> None:
    made = world(script("lesson: look twice"))
    made.update("one")
    assert advantages(made) == [0.0] * GROUP
    assert not any(sample.speaks for sample in made.learned)
    assert (made.metrics["retry/passed"], made.metrics["retry/mixed"], made.metrics["reflect/distinct"]) == (1, 0, 1)


def test_a_graded_retry_earns_what_it_is_worth(world: Make) -> None:
    lines = script("lesson: look twice", "lesson: hurry", "lesson: half way", "lesson: hurry")
    lines["answer"] = lambda text: "half" if "half way" in text else by_lesson(text)
    made = world(lines, normalise_std=False)
    made.update("one")
    assert advantages(made) == pytest.approx([0.625, -0.375, 0.125, -0.375])
    assert made.metrics["retry/passed"] == 0.25


def test_random_rewards_know_nothing_of_the_retry_and_repeat_by_seed(world: Make) -> None:
    found = {}
    for name, lines in (("mixed", MIXED), ("all right", script("lesson: look twice")), ("again", MIXED)):
        made = world(lines, reward="random", normalise_std=False)
        attempts = made.update("one", "two")
        found[name] = advantages(made)
        lots = [float(seeds.derive(7, "reward", a.id) % 2) for a in named(attempts, "reflect")]
        means = [sum(lots[:GROUP]) / GROUP] * GROUP + [sum(lots[GROUP:]) / GROUP] * GROUP
        assert found[name] == pytest.approx([lot - mean for lot, mean in zip(lots, means, strict=True)])
        assert made.metrics["retry/passed"] == (1.0 if name == "all right" else 6 / 8)  # the last line goes on
    assert found["mixed"] == found["again"] == found["all right"]
    other = world(MIXED, reward="random", normalise_std=False, seed=8)
    other.update("one", "two")
    assert advantages(other) != found["mixed"]


@pytest.mark.parametrize("kl", [0.0, 0.01])
def test_reflections_are_held_to_the_first_weights_only_if_that_is_wanted(world: Make, kl: float) -> None:
    made = world(MIXED, kl=kl)
    attempts = made.update("one")
    settings = made.algorithm.settings
    assert (settings.teacher is None, settings.objective is None) == (not kl, not kl)
    for reflection, sample in zip(named(attempts, "reflect"), made.learned, strict=True):
        assert sample.teacher_prompt_ids == (reflection.prompt_ids if kl else None)
        assert sample.pull == (kl or 1.0)
        assert made.teacher(reflection) == (made.asked("reflect")[0] if kl else None)
    assert advantages(made) == pytest.approx(normalised(1, 0, 0, 1), rel=1e-5)


def test_feedback_can_be_kept_from_reflections_and_never_reaches_a_retry(world: Make) -> None:
    for feedback in (True, False):
        made = world(MIXED, feedback=feedback, plain_retry=True)
        made.update("one")
        assert all(("feedback:" in text) is feedback for text in made.asked("reflect"))
        assert "feedback:" not in "".join(made.asked("try"))


def test_the_plain_retry_reads_no_reflection_and_trains_nothing(world: Make) -> None:
    lines = MIXED | {"answer": lambda text: "right" if "solve two" in text else by_lesson(text)}
    made = world(lines, plain_retry=True)
    attempts = made.update("one", "two")
    plain = named(attempts, "plain")
    assert made.asked("try")[-2:] == [prompt("one", previous="wrong"), prompt("two", previous="bad")]
    assert [a.passed for a in plain] == [False, True]
    assert made.metrics["retry/plain"] == 0.5
    assert made.metrics["retry/passed"] == 6 / 8
    assert made.metrics["train/per_task"] == 0
    assert len(made.learned) == 2 * GROUP


def test_only_so_many_failures_are_reflected_on(world: Make) -> None:
    made = world(MIXED, failures=1)
    attempts = made.update("three", "one", "two")
    assert {a.problem.id for a in named(attempts, "reflect")} == {"one"}
    assert made.metrics["retry/failures"] == 1


def test_successes_train_too_if_that_is_wanted(world: Make) -> None:
    made = world(MIXED, successes=True)
    attempts = made.update("three", "one")
    assert advantages(made) == pytest.approx([*normalised(1, 0, 0, 1), 1.0], rel=1e-5)
    assert made.learned[-1] is attempts[0].sample
    assert made.learned[-1].response_ids == attempts[0].response_ids


def test_a_batch_without_failures_trains_nothing(world: Make) -> None:
    made = world(MIXED)
    made.update("three")
    assert made.learned == []
    assert made.metrics["retry/nothing_failed"] == 1
    assert made.metrics["train/per_task"] == 1
    assert not {"retry/passed", "retry/mixed", "reflect/distinct"} & set(made.metrics)
    made.update("one")
    assert made.metrics["retry/nothing_failed"] == 0
    assert len(made.learned) == GROUP


def test_a_reflection_without_words_earns_nothing_and_is_not_retried(world: Make) -> None:
    made = world(script("lesson: look twice", "helpful: err-00001", "lesson: look twice", "lesson: hurry"))
    made.update("one")
    assert advantages(made) == pytest.approx(normalised(1, 0, 1, 0), rel=1e-5)
    assert len(made.asked("try")) == 1 + GROUP - 1
    assert made.metrics["reflect/invalid"] == 1
    assert made.metrics["retry/passed"] == 0.5


def test_a_reflection_whose_retry_has_no_verdict_is_left_out(world: Make) -> None:
    lines = MIXED | {"answer": ["lost", "wrong", "lost", "right"]}
    made = world(lines)
    attempts = made.update("one")
    assert [a.response for a in named(attempts, "retry")] == ["wrong", "right"]
    assert [made.chat.decode(s.response_ids) for s in made.learned] == ["lesson: hurry", "lesson: look twice"]
    assert advantages(made) == pytest.approx(normalised(0, 1), rel=1e-5)
    assert made.metrics["verify/lost"] == 2
    assert (made.metrics["retry/passed"], made.metrics["interactions"]) == (0.5, 1 + GROUP)


def test_a_reflection_that_does_not_fit_beside_the_problem_is_left_out(world: Make) -> None:
    lines = script("lesson: " + "hurry up " * 40, "lesson: look twice", "lesson: hurry", "lesson: look twice")
    made = world(lines, retrying=SAMPLING.model_dump() | {"max_prompt": 150})
    made.update("one")
    assert made.metrics["retry/too_long"] == 1
    assert len(made.asked("try")) == 1 + GROUP - 1
    assert advantages(made) == pytest.approx(normalised(1, 0, 1), rel=1e-5)
    assert made.metrics["retry/passed"] == 2 / 3


def test_a_long_attempt_is_shortened_before_a_reflection_is(world: Make) -> None:
    made = world(MIXED | {"one": "wrong " * 60}, retrying=SAMPLING.model_dump() | {"max_prompt": 300})
    made.update("one")
    assert (made.metrics["retry/truncated"], made.metrics["retry/too_long"]) == (GROUP, 0)
    assert all("lesson:\n" in text and "[...]" in text for text in made.asked("try")[1:])


def test_where_no_retry_fits_nothing_is_learned_and_it_is_said(world: Make) -> None:
    made = world(MIXED, retrying=SAMPLING.model_dump() | {"max_prompt": 20})
    made.update("one")
    assert made.learned == []
    assert made.run.journal.lost["retry/too_long"] == GROUP


def test_rules_are_in_sight_of_attempts_and_retries(world: Make, tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("- mind the gap\n- close the door\n")
    made = world(MIXED, library=str(tmp_path / "rules.md"), plain_retry=True)
    made.update("one")
    rules = "err-00001: mind the gap\nerr-00002: close the door"
    told = f"rules:\n{rules}\ntask:\nsolve one\nwrite the answer"
    lessons = ("look twice", "hurry", "hurry", "look twice")
    retries = [prompt("one", rules, "wrong", lesson=lesson) for lesson in lessons]
    # a prompt with rules ends like a retry; the script answers it with what `answer` says
    plain = prompt("one", rules, "wrong again")
    assert made.asked("try") == [told, *(text.replace("wrong", "wrong again") for text in retries), plain]
    assert "rules" not in "".join(made.asked("reflect"))
    assert made.asked("reflect")[0].startswith("task:\nsolve one\nprevious:\nwrong again\n")
    assert made.algorithm.prompt(made.task.problem("two"))[-1]["content"] == told.replace("one", "two")


@pytest.mark.parametrize("style", ["full", "small"])
def test_other_styles_ask_in_their_own_words(world: Make, style: str) -> None:
    made = world({"answer": "nothing"}, prompts=style, group=2)
    attempts = made.update("one")
    for reflection, retry in zip(named(attempts, "reflect"), named(attempts, "retry"), strict=True):
        assert reflection.reflection is not None
        assert "one is not nothing" in reflection.prompt[-1]["content"]
        assert reflection.reflection.text in retry.prompt[-1]["content"]
        assert "one is not nothing" not in retry.prompt[-1]["content"]


def test_what_is_trained_is_the_students_own(chat: Chat, tmp_path: Path) -> None:
    """An author is not asked, and how little it reads shortens no reflection."""
    terse = AuthorSettings(path=None, url=None, model=None, max_prompt=30, max_response=5, temperature=None, top_p=None)
    engine: Any = Engine(chat, dict(MIXED))

    def author(student: Speech) -> Author:
        return Author(terse, student.voiced_by(chat, engine))

    made = World(tmp_path, chat, "reflect_retry_reward", dict(MIXED), group=GROUP, author=author)
    made.update("one")
    assert engine.asked == []
    assert made.metrics["reflect/truncated"] == 0
    assert len(made.learned) == GROUP


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    for words, says in (
        (["algorithm.group=1"], "reflect_retry_reward compares reflections on one failure: write algorithm.group=2"),
        (["algorithm.kl=0.1", "algorithm.teacher=null"], "algorithm.kl needs algorithm.teacher"),
        (["algorithm.failures=0"], "algorithm.failures=0"),
        (["algorithm.reward=luck"], "algorithm.reward=luck"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            load("algorithm=reflect_retry_reward", *words)
        assert "\n" not in str(caught.value)
    settings = load("algorithm=reflect_retry_reward", f"algorithm.library={tmp_path}/none.md").algorithm
    with pytest.raises(UserError, match=r"library=\S+none.md cannot be read"):
        settings.check([])


def test_what_is_trained_is_as_long_as_a_reflection_may_be() -> None:
    size = shape(tiny_weights())
    words = ["rollout.max_prompt=100", "model.max_prompt=1000", "hardware.micro_batch_tokens=100"]
    ours, theirs = (
        estimate(size, config("model=nano", f"algorithm={name}", *words), 1, 0).phases["learning"]["activations"]
        for name in ("reflect_retry_reward", "grpo")
    )
    assert ours * (100 + 320) == theirs * (1000 + 320)


def test_a_run_of_two_updates(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    words = ["algorithm=reflect_retry_reward", "algorithm.group=2", "algorithm.kl=0.1", "algorithm.plain_retry=true"]
    rows = of_kind(run(tiny_model, tmp_path / "run", *words, "steps=2"), "train")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["retry/failures"] == 4
        assert {"retry/passed", "retry/plain", "retry/mixed", "time/reflect", "time/retry"} <= set(row)
        assert row["interactions"] == row["step"] * (4 + 4 * 2 + 4)
        assert row["reflect/distinct"] > 1
    assert rows[0]["grad_norm"] == pytest.approx(0, abs=1e-5)  # equal rewards, and the first weights
    assert metrics(tmp_path / "run")
    record = read_run(tmp_path / "run")
    assert all(item["group"] == 1 for items in traces(record, 9).values() for item in items)
