"""SDPO, SDPO+ss, GRPO and RESD's controls with a model that follows a script: what each of them learns from."""

import math
from pathlib import Path
from typing import Any

import pytest
from scripted import CUT, LOGPROB, SAMPLING, Line, World, model_settings, problems, prompt, said

from resd.measure.evaluation import evaluate
from resd.model.chat import Chat
from resd.settings import EvaluationSettings

SCRIPT: dict[str, Line] = {
    "one": "wrong",
    "two": "bad",
    "three": "right three",
    "four": "worse",
    "reflect": lambda text: f"lesson: about {text.partition('solve ')[2].split()[0]}",
    "tag": "helpful: err-00001",
    "curate": "add err: check the end",
}


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


def test_sdpo_reads_feedback_or_a_sibling_s_success(chat: Chat, tmp_path: Path) -> None:
    tries: dict[str, Line] = {"one": ["wrong", "right first", "right second"], "two": ["bad", "right", "bad"]}
    world = World(tmp_path, chat, "sdpo", SCRIPT | tries | {"two": "bad"}, group=3)
    attempts = world.update("one", "two")
    first = prompt("one", solution="right first")
    feedback = prompt("two", feedback="two is not bad")
    assert [world.teacher(a) for a in attempts] == [first, prompt("one", solution="right second"), first] + 3 * [
        feedback
    ]
    assert [s.advantage for s in world.learned] == [None] * 6
    assert {asked.role for asked in world.engine.asked} == {"try"}


def test_sdpo_skips_a_lone_success_and_sdpo_ss_distils_it(chat: Chat, tmp_path: Path) -> None:
    for name, own in (("sdpo", None), ("sdpo_ss", prompt("three", solution="right three"))):
        world = World(tmp_path, chat, name, SCRIPT)
        one, three = world.update("one", "three")
        assert world.teacher(three) == own
        assert world.teacher(one) == prompt("one", feedback="one is not wrong")
        assert [s.weight for s in world.learned] == [1.0, 1.0]


def test_sdpo_ss_takes_the_first_success_its_own_included(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "sdpo_ss", SCRIPT | {"one": ["right first", "right second", "wrong"]}, group=3)
    attempts = world.update("one")
    assert [world.teacher(a) for a in attempts] == [prompt("one", solution="right first")] * 3


def test_sdpo_remembers_nothing(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "sdpo_ss", SCRIPT | {"one": ["right one", "wrong"]})
    world.update("one")
    [attempt] = world.update("one")
    assert world.teacher(attempt) == prompt("one", feedback="one is not wrong")
    assert world.algorithm.state() == {}


def test_a_response_that_was_cut_off_is_learned_from_whole(chat: Chat, tmp_path: Path) -> None:
    for name in ("resd", "sdpo", "grpo"):
        world = World(tmp_path, chat, name, SCRIPT | {"one": ["wrong ending" + CUT, "right"]}, group=2)
        cut, _ = world.update("one")
        assert cut.truncated
        assert chat.decode(world.learned[0].response_ids) == "wrong ending"
        assert chat.eos_ids[0] not in world.learned[0].response_ids
        assert (world.learned[0].mask, world.learned[0].weight) == (None, 1.0)
        assert world.learned[0].speaks


def test_advantages_have_the_sign_of_the_reward(chat: Chat, tmp_path: Path) -> None:
    tries: dict[str, Line] = {"one": ["wrong", "half", "right", "wrong"], "two": ["right", "bad"]}
    world = World(tmp_path, chat, "grpo", SCRIPT | tries, group=4)
    attempts = world.update("one", "two")
    rewards = [[0.0, 0.5, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    expected = []
    for group in rewards:
        mean = sum(group) / 4
        deviation = math.sqrt(sum((r - mean) ** 2 for r in group) / 3)
        expected += [(r - mean) / (deviation + 1e-6) for r in group]
    assert [s.advantage for s in world.learned] == pytest.approx(expected, rel=1e-5)
    assert [chat.decode(s.response_ids) for s in world.learned] == [a.response for a in attempts]
    assert all(s.teacher_prompt_ids is None and s.weight == 1.0 for s in world.learned)
    plain = World(
        tmp_path, chat, "grpo", SCRIPT | {"one": ["wrong", "half", "right", "wrong"]}, group=4, normalise_std=False
    )
    plain.update("one")
    assert [s.advantage for s in plain.learned] == pytest.approx([-0.375, 0.125, 0.625, -0.375])


def test_equal_rewards_have_no_advantage(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "grpo", SCRIPT | {"one": ["half"]}, group=3)
    world.update("one", "three")
    assert [s.advantage for s in world.learned] == [0.0] * 6
    assert not any(s.speaks for s in world.learned)


def test_a_group_is_compared_among_those_that_have_a_verdict(chat: Chat, tmp_path: Path) -> None:
    tries: dict[str, Line] = {"one": ["lost", "wrong", "right"], "two": ["lost", "right", "lost"]}
    world = World(tmp_path, chat, "grpo", SCRIPT | tries, group=3)
    attempts = world.update("one", "two")
    assert [a.response for a in attempts] == ["wrong", "right", "right"]
    assert [chat.decode(s.response_ids) for s in world.learned] == ["wrong", "right"]  # alone, there is no comparison
    half = 0.5 / (math.sqrt(0.5) + 1e-6)
    assert [s.advantage for s in world.learned] == pytest.approx([-half, half], rel=1e-5)
    world.engine.script |= {"two": ["lost", "right", "lost"], "one": ["wrong", "right", "right"]}
    world.update("two", "one")  # a group without a comparison comes first
    assert [chat.decode(s.response_ids) for s in world.learned] == ["wrong", "right", "right"]


def test_a_lone_rollout_is_refused(chat: Chat, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"grpo compares rollouts of one prompt: write algorithm.group=2 or more"):
        World(tmp_path, chat, "grpo", SCRIPT, group=1)
    assert World(tmp_path, chat, "grpo", SCRIPT, group=2).update("one")


def test_swapped_reflections_are_handed_to_the_failure_before(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "resd_swapped", SCRIPT)
    one, three, two, four = world.update("one", "three", "two", "four")
    lessons = [(a.reflection.text if a.reflection else None) for a in (one, two, four, three)]
    assert lessons == ["about two", "about four", "about one", None]
    rules = "err-00001: check the end"
    assert world.teacher(one) == prompt("one", rules, "wrong", "one is not wrong", "about two")
    assert world.teacher(four) == prompt("four", rules, "worse", "four is not worse", "about one")
    assert world.teacher(three) == prompt("three", rules, "right three", solution="right three")
    [one] = world.update("one")
    assert world.teacher(one) == prompt("one", rules, "wrong", "one is not wrong", "about one")


def test_a_given_playbook_is_read_and_never_changed(chat: Chat, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"entries": ["first given", "second given"], "playbook__max_entries": 1}
    lines: dict[str, Line] = {"reflect": "lesson: mine\nharmful: err-00002"}
    world = World(tmp_path, chat, "resd_fixed", SCRIPT | lines, playbook__frequency=1, **settings)
    rules = "err-00001: first given\nerr-00002: second given"
    for step in (1, 2, 3):
        one, three = world.update("one", "three")
        assert world.teacher(one) == prompt("one", rules, "wrong", "one is not wrong", "mine")
        assert world.teacher(three) == prompt("three", rules, "right three", solution="right three")
        assert world.counters() == {"first given": (step, 0), "second given": (0, step)}
        assert (world.metrics["playbook/added"], world.metrics["playbook/removed"]) == (0, 0)
    assert [event["text"] for event in world.events("add")] == ["first given", "second given"]
    assert world.events("remove") == []
    assert world.asked("curate") == []


@pytest.mark.parametrize("pipelined", [False, True])
def test_feedback_taken_word_for_word_is_the_playbook(chat: Chat, tmp_path: Path, pipelined: bool) -> None:
    world = World(tmp_path, chat, "resd_verbatim", SCRIPT, teacher_prompt__reflection=False, pipelined=pipelined)
    one, three, again = world.update("one", "three", "one")
    rules = "err-00001: one is not wrong"
    assert world.teacher(one) == world.teacher(again) == prompt("one", rules, "wrong", "one is not wrong")
    assert world.teacher(three) == prompt("three", rules, "right three", solution="right three")
    assert [a.reflection.text if a.reflection else None for a in (one, three)] == ["one is not wrong", None]
    assert (world.metrics["playbook/added"], world.metrics["curate/duplicates"]) == (1, 0)
    one, _ = world.update("one", "two")
    rules += "\nerr-00002: two is not bad"
    assert world.teacher(one) == prompt("one", rules, "wrong", "one is not wrong")
    assert (world.metrics["playbook/added"], world.metrics["curate/duplicates"]) == (1, 1)
    assert {asked.role for asked in world.engine.asked} == {"try"}


def test_an_evaluation_asks_the_plain_problem(chat: Chat, tmp_path: Path) -> None:
    settings = EvaluationSettings(every=0, before=False, samples=2, temperature=0.6, top_p=0.7, limit=2)
    for name in ("resd", "resd_fixed", "sdpo", "grpo"):
        given = {"entries": ["first given"]} if name == "resd_fixed" else {}
        world = World(tmp_path, chat, name, SCRIPT, group=2, **given)
        world.update("one")
        world.engine.asked.clear()
        speech, ask = world.run.speech, world.algorithm.prompt
        metrics, attempts = evaluate(speech, problems("one", "three", "two"), settings, SAMPLING, ask)
        assert world.asked("try") == ["solve one", "solve one", "solve three", "solve three"]
        assert len(world.engine.asked) == len({asked.request.seed for asked in world.engine.asked}) == 4
        assert {(a.request.temperature, a.request.top_p, a.request.max_tokens) for a in world.engine.asked} == {
            (0.6, 0.7, 200)
        }
        assert (metrics["eval/per_task/mean@2"], metrics["eval/per_task/best@2"]) == (0.5, 0.5)
        assert [a.logprobs[0] for a in attempts] == [LOGPROB] * 4
        assert said(chat, attempts[2].prompt_ids) == "solve three"
        seeds = [asked.request.seed for asked in world.engine.asked]
        world.run.journal.step += 1
        evaluate(speech, problems("one", "three", "two"), settings, SAMPLING, ask)
        assert [asked.request.seed for asked in world.engine.asked[4:]] == seeds  # every evaluation draws the same


@pytest.mark.parametrize("name", ["grpo", "opd", "opsd", "resd", "sdpo"])
def test_who_has_a_prompt_of_their_own_rolls_out_with_it(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    more = {"teacher": {"kind": "external", "path": "/elsewhere"}} if name == "opd" else {}
    world = World(tmp_path, chat, name, SCRIPT, told={"one": "one is 1"}, **more)
    asked = [{"role": "user", "content": "please solve one"}]
    monkeypatch.setattr(world.algorithm, "prompt", lambda problem: asked)
    observation = world.algorithm.observe([world.task.problem("one")])
    assert {attempt.prompt_text for attempt in observation.attempts} == {chat.render(asked)}
    assert set(world.asked("try")) == {"please solve one"}
