"""OPD, SRPO, RLSD and the switch with a scripted model: which sample goes which way, what the teacher reads, and how
large each token's advantage or pull is when it is known what the teacher thinks."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted import LOGPROB, Line, World, configured, model_settings, prompt, said

from resd.learn.learner import Scores
from resd.model.chat import Chat
from resd.types import Attempt, Observation, Problem, Sample, Verdict

SCRIPT: dict[str, Line] = {
    "two": "bad",
    "three": "right three",
    "reflect": lambda text: f"lesson: about {text.partition('solve ')[2].split()[0]}",
    "tag": "none",
    "curate": "add err: check the end",
}
RULES = "err-00001: check the end"
Number = Callable[[int], float]


class Knowing:
    """A learner whose teacher thinks what it is told of the token at each place; what it was given to read."""

    def __init__(self, logprob: Number, entropy: Number = lambda t: 1.0) -> None:
        self.logprob, self.entropy = logprob, entropy
        self.read: list[Sequence[int]] = []

    def score(self, samples: Sequence[Sample]) -> list[Scores]:
        self.read = [s.teacher_prompt_ids or s.prompt_ids for s in samples]
        places = [range(len(s.response_ids)) for s in samples]
        return [Scores(list(map(self.logprob, each)), list(map(self.entropy, each))) for each in places]

    def update(self, samples: Sequence[Sample], step: int) -> dict[str, float]:
        return {"loss": 0.25, "grad_norm": 1.0}


class Given:
    """A context that has seen what it is given."""

    def __init__(self, attempts: list[Attempt], more: Sequence[Sample] = ()) -> None:
        self.observation = Observation(attempts, [*(a.sample for a in attempts if a.sample), *more])

    def observe(self, problems: Sequence[Problem]) -> Observation:
        return self.observation


def attempt(
    id: str, reward: float, *, teacher: bool = True, parent: Attempt | None = None, mask: list[bool] | None = None
) -> Attempt:
    """Of three tokens."""
    made = Attempt(id, Problem("p", "solve p"), [], "", [3], [5, 6, 7], [LOGPROB] * 3, "", False, parent=parent)
    made.verdict = Verdict(reward, reward == 1, int(reward), 1)
    made.sample = Sample([3], [5, 6, 7], [LOGPROB] * 3, [4] if teacher else None, mask=mask)
    made.teacher_prompt = "read" if teacher else None
    return made


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


@pytest.fixture
def world(chat: Chat, tmp_path: Path) -> Callable[..., World]:
    def make(name: str, script: dict[str, Line], learner: Any = None, over: str = "sdpo", **changes: Any) -> World:
        if name in ("srpo", "rlsd"):
            inner = configured(over, {"success_weighting__enabled": False})
            changes["context"] = inner | {"group": changes["group"]} | changes.get("context", {})
        return World(tmp_path, chat, name, SCRIPT | script, learner=learner, **changes)

    return make


Make = Callable[..., World]


def advantages(*rewards: float) -> list[float]:
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (deviation + 1e-6) for r in rewards]


# ------------------------------------------------------------------------------------------------------------- OPD


def test_opd_distils_every_answer_after_its_own_prompt(world: Make) -> None:
    made = world("opd", {"one": ["wrong", "right"]}, group=2, teacher={"kind": "external", "path": "/elsewhere"})
    attempts = made.update("one", "two")
    assert [a.passed for a in attempts] == [False, True, False, False]
    for attempt, sample in zip(attempts, made.learned, strict=True):
        assert attempt.sample is sample
        assert sample.teacher_prompt_ids == sample.prompt_ids
        assert made.teacher(attempt) == attempt.problem.statement
        assert (sample.advantage, sample.pull, sample.weight, sample.mask) == (None, 1.0, 1.0, None)
        assert sample.sampled_logprobs == [LOGPROB] * len(sample.response_ids)
    assert {asked.role for asked in made.engine.asked} == {"try"}


def test_opd_sampled_is_the_log_ratio_of_each_token(world: Make) -> None:
    knowing = Knowing(lambda t: -0.5 * t)  # likes the first tokens more than the student does, and the others less
    external = {"kind": "external", "path": "/elsewhere"}
    made = world("opd", {"one": ["wrong", "right"]}, knowing, group=2, signal="sampled", teacher=external)
    attempts = made.update("one")
    for attempt, sample in zip(attempts, made.learned, strict=True):
        expected = [-0.5 * t + 1.5 for t in range(len(attempt.response_ids))]
        assert expected[0] > 0 > expected[4]
        assert sample.advantage == pytest.approx(expected)
        assert sample.teacher_prompt_ids is None
    assert knowing.read == [attempt.prompt_ids for attempt in attempts]


# ------------------------------------------------------------------------------------------------------------ SRPO


def test_srpo_sends_successes_to_the_reward_and_failures_to_the_teacher(world: Make) -> None:
    made = world("srpo", {"one": ["wrong", "right one", "half"]}, Knowing(lambda t: -1.0), group=3)
    attempts = made.update("one", "two")
    wrong, right, half, *bad = attempts
    solution = prompt("one", solution="right one")
    feedback = prompt("two", feedback="two is not bad")
    assert [made.teacher(a) for a in attempts] == [solution, None, solution, feedback, feedback, feedback]
    assert right.sample is not None
    assert right.sample.advantage == pytest.approx(advantages(0, 1, 0.5)[1])
    assert right.sample.advantage > 0
    assert [a.sample.advantage for a in (wrong, half, *bad) if a.sample] == [None] * 5
    assert made.metrics["srpo/distilled"] == 5 / 6
    assert [s.weight for s in made.learned] == [1.0] * 6


def test_srpo_over_resd_reads_playbook_and_reflection(world: Make) -> None:
    made = world("srpo", {"one": ["wrong", "right one"]}, Knowing(lambda t: -1.0), "resd", group=2)
    wrong, right = made.update("one")
    expected = prompt("one", RULES, "wrong", "", "about one", "right one")
    assert made.teacher(wrong) == expected
    assert made.teacher(right) is None
    assert [said(made.chat, ids) for ids in made.run.learner.read] == [expected]  # type: ignore[union-attr]
    assert made.asked("try") == ["solve one"] * 2


@pytest.mark.parametrize("beta", [0.0, 0.7, 400.0])
def test_srpo_pulls_where_the_teacher_is_sure(world: Make, beta: float) -> None:
    made = world(
        "srpo", {"one": ["wrong", "right"]}, Knowing(lambda t: -1.0, lambda t: 2.0 + t % 2), group=2, beta=beta
    )
    wrong, right = made.update("one")
    assert wrong.sample is not None
    assert right.sample is not None
    raw = [math.exp(-beta * (t % 2)) for t in range(len(wrong.response_ids))]
    mean = sum(raw) / len(raw)
    assert wrong.sample.pull == pytest.approx([value / mean for value in raw])
    assert right.sample.pull == 1.0
    assert wrong.sample.pull[0] > wrong.sample.pull[1] or not beta  # type: ignore[index]


def test_srpo_s_mean_is_over_the_tokens_of_all_failures_that_count(world: Make) -> None:
    failed = [attempt("0", 0.0, mask=[True, False, True]), attempt("1", 0.5)]
    made = world("srpo", {}, Knowing(lambda t: -1.0, float), group=2)
    made.algorithm.context = Given([*failed, attempt("2", 1.0)])  # type: ignore[attr-defined]
    made.update("p")
    mean = (1 + math.exp(-2) + 1 + math.exp(-1) + math.exp(-2)) / 5
    for each in failed:
        assert each.sample is not None
        assert each.sample.pull == pytest.approx([math.exp(-t) / mean for t in range(3)])
    assert failed[0].sample is not None
    assert failed[0].sample.mask == [True, False, True]


def test_srpo_without_a_teacher_is_the_reward(world: Make) -> None:
    silent = {"teacher_prompt": configured("sdpo", {})["teacher_prompt"] | {"feedback": False}}
    made = world("srpo", {"one": ["wrong", "half"]}, Knowing(lambda t: -1.0), group=2, context=silent)
    made.update("one")
    assert [s.advantage for s in made.learned] == pytest.approx(advantages(0, 0.5))
    assert [s.teacher_prompt_ids for s in made.learned] == [None, None]
    assert made.metrics["srpo/distilled"] == 0


# ------------------------------------------------------------------------------------------------------------ RLSD


def scaled(advantage: float, log_ratio: float, mix: float, clip: float) -> float:
    """arXiv 2604.03128, written out."""
    agreement = math.exp(log_ratio if advantage > 0 else -log_ratio)
    return advantage * ((1 - mix) + mix * min(max(agreement, 1 - clip), 1 + clip))


@pytest.mark.parametrize("clip", [0.2, 0.6])
def test_rlsd_keeps_the_sign_and_scales_by_agreement(world: Make, clip: float) -> None:
    def log_ratio(t: int) -> float:
        return [0.0, 0.1, -0.1, 9.0, -9.0][t % 5]

    made = world("rlsd", {"one": ["wrong", "right"]}, Knowing(lambda t: LOGPROB + log_ratio(t)), group=2, clip=clip)
    attempts = made.update("one")
    for attempt, advantage in zip(attempts, advantages(0, 1), strict=True):
        assert attempt.sample is not None
        expected = [scaled(advantage, log_ratio(t), 0.5, clip) for t in range(len(attempt.response_ids))]
        assert attempt.sample.advantage == pytest.approx(expected if attempt is attempts[0] else advantage)
        assert attempt.sample.teacher_prompt_ids is None
    found = attempts[0].sample.advantage  # type: ignore[union-attr]
    assert isinstance(found, list)
    assert found[0] == pytest.approx(advantages(0, 1)[0])
    assert found[3] == pytest.approx(found[0] * (1 - clip / 2))  # the teacher would have said it: blamed less
    assert found[4] == pytest.approx(found[0] * (1 + clip / 2))


def test_rlsd_rewards_more_what_the_teacher_would_have_said(world: Make) -> None:
    both = [attempt("0", 0.0), attempt("1", 1.0)]
    made = world("rlsd", {}, Knowing(lambda t: LOGPROB + (0.1, -0.1, 9.0)[t]), group=2)
    made.algorithm.context = Given(both)  # type: ignore[attr-defined]
    made.update("p")
    for each, advantage in zip(both, advantages(0, 1), strict=True):
        assert each.sample is not None
        expected = [scaled(advantage, ratio, 0.5, 0.2) for ratio in (0.1, -0.1, 9.0)]
        assert each.sample.advantage == pytest.approx(expected)
    assert both[1].sample.advantage[2] == pytest.approx(1.1 * advantages(0, 1)[1])  # type: ignore[union-attr,index]


def test_rlsd_s_teacher_reads_the_context(world: Make) -> None:
    for context, expected in (
        ("resd", prompt("one", RULES, "wrong", "", "about one", "right one")),
        ("sdpo", prompt("one", solution="right one")),
    ):
        knowing = Knowing(lambda t: LOGPROB)
        made = world("rlsd", {"one": ["wrong", "right one"], "two": "bad"}, knowing, context, group=2)
        wrong, right, *_ = made.update("one", "two")
        read = [said(made.chat, ids) for ids in knowing.read]
        assert read[0] == expected
        assert len(read) == (2 if context == "resd" else 1)  # RESD distils a success on its own answer; two has no A
        assert said(made.chat, made.chat.tokenizer(wrong.teacher_prompt)["input_ids"]) == expected
        assert (right.teacher_prompt is None) == (context == "sdpo")
        assert [s.advantage for s in made.learned[2:]] == [0.0, 0.0]


def test_rlsd_s_mix_decays_to_the_reward_alone(world: Make) -> None:
    knowing = Knowing(lambda t: LOGPROB - 9)
    made = world("rlsd", {"one": ["wrong", "right"] * 5}, knowing, group=2, decay=4)
    for step, mix in enumerate((0.5, 0.375, 0.25, 0.125, 0.0)):
        wrong, _ = made.update("one")
        assert made.metrics["rlsd/mix"] == pytest.approx(mix)
        assert wrong.sample is not None
        expected = advantages(0, 1)[0] * (1 + 0.2 * mix)
        each = [expected] * len(wrong.response_ids)
        assert wrong.sample.advantage == pytest.approx(each if mix else expected), step
        assert bool(knowing.read) == (mix > 0)


# ---------------------------------------------------------------------------------------- retries, demonstrations


@pytest.mark.parametrize("name", ["srpo", "rlsd"])
def test_a_retry_is_compared_with_what_follows_from_the_same_attempt(world: Make, name: str) -> None:
    first = [attempt("0", 0.0, teacher=False), attempt("1", 0.5, teacher=False)]
    retries = [attempt(f"r{i}", reward, teacher=False, parent=first[0]) for i, reward in enumerate((1.0, 0.0))]
    lone = attempt("r2", 1.0, teacher=False, parent=first[1])
    made = world(name, {}, Knowing(lambda t: LOGPROB), group=2)
    made.algorithm.context = Given([*first, *retries, lone])  # type: ignore[attr-defined]
    made.update("p")
    found = [s.advantage for s in made.learned]
    assert found[:4] == pytest.approx([*advantages(0, 0.5), *advantages(1, 0)])
    assert found[4] is None


@pytest.mark.parametrize("name", ["srpo", "rlsd"])
def test_a_demonstration_stays_one_with_its_mask(world: Make, name: str) -> None:
    shown = attempt("0", 1.0, teacher=False, mask=[False, True, True])
    assert shown.sample is not None
    shown.sample.sampled_logprobs = None
    other = Sample([3], [8, 9], None, mask=[True, False])
    made = world(name, {}, Knowing(lambda t: LOGPROB), group=2)
    made.algorithm.context = Given([shown, attempt("1", 0.0), attempt("2", 1.0)], [other])  # type: ignore[attr-defined]
    made.update("p")
    assert [s.demonstrates for s in made.learned] == [True, False, False, True]
    assert [s.mask for s in made.learned] == [[False, True, True], None, None, [True, False]]


# ---------------------------------------------------------------------------------------------------------- switch


WHEN = {"passed": 0.5, "updates": 2, "mixed": 0.5}


def switching(world: Make, script: dict[str, Line], when: dict[str, Any] = WHEN) -> World:
    then = configured("grpo", {"group": 2})
    return world("switch", script, first=configured("sdpo", {}), then=then, group=2, when=when)


def half(made: World) -> str:
    """Which algorithm made the samples."""
    return "then" if made.metrics["switch/switched"] else "first"


def test_the_switch_waits_for_enough_successes_in_a_row(world: Make) -> None:
    #  one alone while `first` has the updates: its outcomes are the shares
    tries = ["right", "wrong", "right", "right", "right", "wrong"]
    made = switching(world, {"one": tries})
    halves = []
    for _ in range(4):
        made.update("one")
        halves.append(half(made))
    assert halves == ["first"] * 4  # ripe after the fourth, a failure came between
    made.update("one")
    assert half(made) == "then"
    assert len(made.learned) == 2
    assert [s.advantage for s in made.learned] == pytest.approx(advantages(1, 0))
    assert all(s.teacher_prompt_ids is None for s in made.learned)


def test_first_distils_and_its_share_must_reach_the_threshold(world: Make) -> None:
    made = switching(world, {"one": "right", "two": "bad", "four": "worse"}, WHEN | {"updates": 1})
    made.update("one", "two", "four")
    assert half(made) == "first"
    assert [s.teacher_prompt_ids is not None for s in made.learned] == [False, True, True]
    assert all(s.advantage is None for s in made.learned)
    made.update("one", "two")  # a third has passed: not enough; a half is
    assert half(made) == "first"
    made.update("one", "two")
    assert half(made) == "then"


@pytest.mark.parametrize(("outcomes", "share"), [(["right", "wrong"], 0.5), (["right", "right"], 0.0)])
def test_the_first_update_after_the_switch_shows_whether_groups_are_mixed(
    world: Make, outcomes: list[str], share: float
) -> None:
    lines: dict[str, Line] = {"one": ["right", *outcomes, "right", "wrong", "right"], "two": "bad"}
    made = switching(world, lines, {"passed": 0.2, "updates": 1, "mixed": 0.5})
    made.update("one")
    made.update("one", "two")
    assert (half(made), made.metrics["switch/mixed"]) == ("then", share)
    made.update("one")
    assert half(made) == ("then" if share else "first")


def test_the_switch_goes_back_when_success_is_rare_again(world: Make) -> None:
    pairs = ["right", "wrong", "right", "right", "wrong", "wrong", "wrong", "wrong"]
    made = switching(world, {"one": ["right", "right", *pairs, "right"]})
    halves = []
    for _ in range(7):
        made.update("one")
        halves.append(half(made))
    assert halves == ["first", "first", "then", "then", "then", "then", "first"]  # not for the pair that both passed


def test_retries_do_not_decide(world: Make) -> None:
    made = switching(world, {}, WHEN | {"updates": 1})
    first = attempt("0", 0.0)
    made.algorithm.first = Given([first, attempt("r", 1.0, parent=first), attempt("s", 1.0, parent=first)])  # type: ignore[attr-defined]
    made.update("p")
    assert counted(made) == (False, False, 0)
    assert made.metrics["switch/mixed"] == 0


def counted(made: World) -> tuple[bool, bool, int]:
    algorithm: Any = made.algorithm
    return algorithm.switched, algorithm.probing, algorithm.row


def test_an_update_without_a_verdict_decides_nothing(world: Make) -> None:
    made = switching(world, {"one": ["right", "lost", "right", "lost", "lost", "right", "right"]})
    states = []
    for _ in range(5):
        made.update("one")
        states.append(counted(made))
    assert states == [(False, False, 1), (False, False, 1), (True, True, 0), (True, True, 0), (False, False, 0)]


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_a_resumed_switch_goes_on_where_it_was(world: Make, updates: int) -> None:
    tries = ["right", "right", "right", "wrong", "wrong", "wrong"]
    whole = switching(world, {"one": list(tries)})
    told = []
    for _ in range(4):
        whole.update("one")
        told.append((half(whole), counted(whole)))
    assert [name for name, _ in told] == ["first", "first", "then", "then"]
    assert told[-1][1] == (True, False, 1)
    begun = switching(world, {"one": list(tries)})
    for _ in range(updates):
        begun.update("one")
    resumed = switching(world, begun.engine.script)
    resumed.run.journal.step = updates
    resumed.algorithm.restore(json.loads(json.dumps(begun.algorithm.state())))
    for expected in told[updates:]:
        resumed.update("one")
        assert (half(resumed), counted(resumed)) == expected


def test_both_halves_of_a_switch_keep_their_memory(world: Make) -> None:
    def switching() -> World:
        halves = {"first": configured("resd", {}), "then": configured("resd", {"group": 2})}
        return world("switch", {}, **halves, group=2, when=WHEN | {"updates": 1})

    made = switching()
    made.update("two", "three")
    made.update("one")
    assert half(made) == "then"
    state = made.algorithm.state()
    assert [len(state[name]["playbook"]["entries"]) for name in ("first", "then")] == [1, 1]
    resumed = switching()
    resumed.algorithm.restore(json.loads(json.dumps(state)))
    assert json.dumps(resumed.algorithm.state()) == json.dumps(state)


def test_the_context_s_memory_is_kept(world: Make) -> None:
    for name in ("srpo", "rlsd"):
        made = world(name, {"one": ["wrong", "right one"]}, Knowing(lambda t: LOGPROB), "resd", group=2)
        made.update("one")
        resumed = world(name, {"one": "wrong"}, Knowing(lambda t: LOGPROB), "resd", group=2)
        resumed.algorithm.restore(json.loads(json.dumps(made.algorithm.state())))
        assert resumed.counters() == made.counters() != {}
        resumed.run.journal.step = 1
        resumed.update("one")
        assert f"rules:\n{RULES}" in resumed.asked("reflect")[0]
