"""Attempts of several turns: ids that go on, what is trained of them, and environments that fail."""

import json
import math
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scripted
import test_learner
import test_train
import tiny
import torch
from command import rows, train
from scripted import CUT, LOGPROB, World, model_settings
from torch.distributed.device_mesh import DeviceMesh
from turn_tasks import Clues

from resd import turns
from resd.context.playbook import Playbook
from resd.context.reflect import Reflector
from resd.context.render import Prompts
from resd.context.shorten import Budget
from resd.guard import Guard
from resd.learn.learner import Objective
from resd.measure.evaluation import evaluate
from resd.model.chat import Chat
from resd.observe.run import outcome
from resd.report.samples import write_attempts
from resd.settings import EvaluationSettings
from resd.types import Attempt, Completion, Lost, Messages, Problem, Turn, UserError
from resd.verify import Verifier, examine
from resd.verify.pool import outcome as of_reply
from resd.verify.serve import QUESTIONS, explain


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


class Here:
    """The judge of a task that answers, in this process."""

    follows = True

    def __init__(self, task: Any) -> None:
        self.task = task

    def verify(self, answers: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        return self._asked("verify", answers)

    def follow(self, conversations: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        return self._asked("follow", conversations)

    def _asked(self, kind: str, asked: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for index, each in enumerate(asked):
            try:
                yield index, of_reply(QUESTIONS[kind](self.task, pickle.dumps(each)))
            except UserError as error:
                yield index, Lost(explain(error))


def world(folder: Path, chat: Chat, name: str, script: Any, task: Any = None, **changes: Any) -> World:
    task = task or Clues()
    return World(folder, chat, name, script, task=task, verifier=Here(task), **changes)


SCRIPT = {"one": "ask", "one-1": "again", "one-2": "right two", "two": "bad", "two-1": "worse", "two-2": "worst"}


def test_ids_go_on_where_a_reply_ended(tmp_path: Path, chat: Chat) -> None:
    made = world(tmp_path, chat, "sdpo", SCRIPT)
    one, two = made.update("one", "two")
    asked = [each.request for each in made.engine.asked if each.role == "try"]
    prompts = [list(each.prompt_ids) for each in asked if "one" in chat.decode(each.prompt_ids)]
    end = chat.eos_ids[0]
    said = [{"role": "user", "content": "clue one-1"}]
    assert prompts[0] == list(one.prompt_ids)
    assert prompts[1] == [*prompts[0], *chat.encode("ask"), end, *chat.between(said)]
    conversation = [*one.prompt, {"role": "assistant", "content": "ask"}, *said]
    assert prompts[1] == chat.ids(conversation)
    whole = [*conversation, {"role": "assistant", "content": "again"}, {"role": "user", "content": "clue one-2"}]
    assert prompts[2] == chat.ids(whole)
    assert one.response_ids == [*prompts[2][len(prompts[0]) :], *chat.encode("right two"), end]
    assert len({each.seed for each in asked}) == len(asked)
    assert (one.passed, two.passed, one.truncated) == (True, False, False)
    assert two.verdict is not None
    assert two.verdict.feedback == "two is not worst in 3 turns"
    assert made.metrics["response/turns"] == 3


def test_only_what_the_student_wrote_counts(tmp_path: Path, chat: Chat) -> None:
    made = world(tmp_path, chat, "sdpo", SCRIPT)
    one, _ = made.update("one", "two")
    assert one.mask is not None
    assert chat.tokenizer.decode(one.own(one.response_ids)) == "ask<|im_end|>again<|im_end|>right two<|im_end|>"
    assert one.logprobs == [LOGPROB * own for own in one.mask]
    assert (turns.ends(one), turns.own_words(one)) == ([LOGPROB] * 3, "ask\n\nagain\n\nright two")
    assert turns.ends(replace(one, truncated=True)) == [LOGPROB] * 2
    found = outcome([one])
    assert found["response/length"] == len("ask again right two") + 1  # letters, and three ends for two blanks
    assert found["response/entropy"] == found["response/end_logprob"] * -1 == -LOGPROB
    for sample in made.learned:
        assert sample.mask == [not math.isnan(p) for p in sample.sampled_logprobs or ()]


@pytest.mark.parametrize("name", ["sdpo", "grpo", "resd"])
def test_samples_of_every_algorithm_have_the_mask(tmp_path: Path, chat: Chat, name: str) -> None:
    script = {**SCRIPT, "reflect": "lesson: ask first", "curate": "add: ask first"}
    made = world(tmp_path, chat, name, script, **({"group": 2} if name == "grpo" else {}))
    attempts = made.update("one", "two")
    masks = [attempt.mask for attempt in attempts]
    assert [sample.mask for sample in made.learned] == masks
    assert all(not all(mask) and len(mask) == len(a.response_ids) for mask, a in zip(masks, attempts, strict=True))


def attempt_of(chat: Chat, *said: str, **fields: Any) -> Attempt:
    """An attempt of these replies and, between them, answers, by turns."""
    messages = Clues().prompt(Clues().problem("one"))
    made = Attempt(
        "0/one/0", Clues().problem("one"), messages, chat.render(messages), chat.ids(messages), [], [], "", True
    )
    for number, text in enumerate(said):
        ids = [*chat.encode(text), chat.eos_ids[0]]
        if number % 2:
            heard = [{"role": "user", "content": text}]
            turns.hear(made, heard, chat.between(heard))
        else:
            turns.reply(made, Completion(ids, [-5.0 - 0.1 * t for t in range(len(ids))], False), text)
    return replace(made, **fields)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_the_loss_is_that_of_the_students_tokens_alone(mesh: DeviceMesh, chat: Chat, reduction: Any) -> None:
    """Against plain autograd: value, gradient, normaliser, and the statistics of the comparison."""
    distil, loss = test_learner.DISTIL, test_learner.LOSS.model_copy(update={"reduction": reduction})
    objective = Objective(loss, 1.0, distil, test_learner.CLIP)
    attempts = [attempt_of(chat, "a", "b c d", "e f"), attempt_of(chat, "ghij", "k", "l", "m", "no")]
    given = zip(attempts, (0.5, -1.0), strict=True)
    batch = [each.as_sample(advantage=advantage, teacher_prompt_ids=[7, 8, 9]) for each, advantage in given]
    student, teacher = tiny.model(0), tiny.model(1)
    tokens = sum(sum(each.mask or []) for each in attempts)
    total, mass, drift = torch.zeros(()), 0.0, 0.0
    for attempt, sample in zip(attempts, batch, strict=True):
        own_T = torch.tensor(attempt.mask)
        z_T_V = test_learner.logits(student, sample.prompt_ids, sample.response_ids)[own_T]
        q_T_V = test_learner.logits(teacher, [7, 8, 9], sample.response_ids)[own_T].detach()
        ids_T = torch.tensor(sample.response_ids)[own_T]
        logp_T = z_T_V.log_softmax(-1).gather(-1, ids_T[:, None])[:, 0]
        gap_T = logp_T.detach() - torch.tensor(attempt.logprobs)[own_T]
        divergence_T, found = distil(z_T_V, q_T_V)
        loss_T = gap_T.exp().clamp(max=2.0) * (divergence_T - (logp_T - logp_T.detach()).exp() * sample.advantage)
        total = total + loss_T.sum() / (2 * len(ids_T) if reduction == "sequence_mean" else tokens)
        mass += float(found["topk_mass"].sum())
        drift += float((gap_T.exp() - 1 - gap_T).sum())
    total.backward()
    learner = test_learner.make(mesh, objective=objective)
    metrics: dict[str, float] = {}
    update = learner.update
    learner.update = lambda *given: metrics.update(update(*given)) or metrics  # type: ignore[method-assign,func-returns-value]
    value, caught = test_learner.gradients(learner, batch)
    assert value == pytest.approx(float(total.detach()), rel=1e-5)
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(caught[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert metrics["topk_mass"] == pytest.approx(mass / tokens, rel=1e-4)
    assert metrics["mismatch_kl"] == pytest.approx(drift / tokens, rel=1e-4)


def test_one_budget_for_all_that_is_said(tmp_path: Path, chat: Chat) -> None:
    """Requests have what is left; what would not fit is not heard, and the attempt counts as cut off."""
    made = world(tmp_path, chat, "sdpo", {"one": "x" * 60, "one-1": "y" * 60, "one-2": "right"})
    [attempt] = made.update("one")
    left = [each.request.max_tokens for each in made.engine.asked if each.role == "try"]
    gap = len(chat.between([{"role": "user", "content": "clue one-1"}]))
    assert left == [200, 139 - gap, 78 - 2 * gap]
    assert attempt.passed
    cut = world(tmp_path, chat, "sdpo", {"one": "x" * (199 - gap)}).update("one")[0]
    assert (cut.truncated, len(cut.turns), cut.turns[0].heard) == (True, 1, ())
    assert cut.verdict is not None
    assert cut.verdict.error == "truncated"
    fits = world(tmp_path, chat, "sdpo", {"one": "x" * (198 - gap), "one-1": f"y{CUT}"}).update("one")[0]
    assert (fits.truncated, len(fits.turns), len(fits.response_ids)) == (True, 2, 200)


def test_no_more_turns_than_allowed(tmp_path: Path, chat: Chat) -> None:
    for most in (1, 2):
        made = world(tmp_path, chat, "sdpo", SCRIPT, max_turns=most)
        attempts = made.update("one", "two")
        assert [len(attempt.turns) for attempt in attempts] == [most, most]
        assert not any(attempt.truncated for attempt in attempts)
        assert [attempt.turns[-1].heard for attempt in attempts] == [(), ()]


def test_an_environment_that_fails_loses_one_sample(tmp_path: Path, chat: Chat) -> None:
    script = {"one": "none", "two": "differ", "three": "ask", "three-1": "right", "four": "role"}
    made = world(tmp_path, chat, "grpo", script, group=2)
    attempts = made.update("one", "two", "three", "four")
    assert {attempt.problem.id for attempt in attempts} == {"three"}
    assert len(made.learned) == 2
    assert [made.metrics[f"{what}/lost"] for what in ("follow", "verify", "rollout")] == [6, 0, 0]
    assert made.metrics["interactions"] == 2


def test_a_role_that_the_template_does_not_know_loses_the_attempt(tmp_path: Path, tiny_model: Path) -> None:
    """Also one in which the environment did not speak when the template was tried."""
    own = Chat(model_settings(str(tiny_model)))
    own.tokenizer.chat_template = tiny.TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] if m.role != 'tool' }}")
    made = world(tmp_path, own, "sdpo", {"one": "ask", "two": "right"}, Clues(role="tool"))
    made.run.speech.chat.check_turns([Clues().prompt(Clues().problem("one"))], ["user"])
    assert [attempt.problem.id for attempt in made.update("one", "two")] == ["two"]
    assert made.metrics["follow/lost"] == 1


def test_workers_answer_and_are_replaced() -> None:
    """Also what is no message, hangs or dies is lost alone, with its reason; so is what is not said again."""
    verifier = Verifier(Clues(), workers=2, timeout=3.0)
    problem = Clues().problem("one")
    try:
        replies = ["ask", "hang", "die", "none", "text", "role", "number", "right", "over\ud800"]
        said = dict(verifier.follow([(problem, [Turn(reply)]) for reply in replies]))
        clue = [{"role": "user", "content": "clue one-1"}]
        again = dict(verifier.follow([(problem, [Turn("ask", heard), Turn("x")]) for heard in (clue, clue * 2)]))
        ended = [Turn("right")], [Turn("ask"), Turn("x")]
        judged = dict(verifier.verify([(problem, turns, False) for turns in ended]))
        [empty] = dict(verifier.verify([(problem, "right", False)])).values()
    finally:
        verifier.close()
    found = {reply: said[number] for number, reply in enumerate(replies)}
    assert found["ask"] == clue
    assert found["right"] == []
    reasons = {reply: lost.reason for reply, lost in found.items() if isinstance(lost, Lost)}
    assert reasons.keys() - {"over\ud800"} == {"hang", "die", "none", "text", "role", "number"}
    assert reasons["hang"].startswith("took longer than 3 s")
    assert "follow returned None, not a list of messages" in reasons["none"]
    assert "not a message with the role user or tool" in reasons["role"]
    assert again[0] == [{"role": "user", "content": "clue one-2"}]
    assert isinstance(again[1], Lost)
    assert "to the same replies it said 'clue one-1 clue one-1' at first and 'clue one-1' when" in again[1].reason
    assert judged[0].passed
    assert isinstance(judged[1], Lost)
    assert empty.passed


def test_a_task_is_examined_with_an_empty_reply() -> None:
    class Odd(Clues):
        def follow(self, problem: Problem, replies: Sequence[str]) -> Messages:
            raise KeyError("no board")

    assert examine(Clues(), Clues().problems("train"), 20) is None
    with pytest.raises(UserError, match=r"environment of Odd fails on an empty response to problem 'train0'.*no board"):
        examine(Odd(), Odd().problems("train"), 20)


def test_an_environment_that_draws_is_refused_at_the_start() -> None:
    class Draws(Clues):
        def follow(self, problem: Problem, replies: Sequence[str]) -> Messages:
            return super().follow(problem, [*replies[:-1], "differ"])

    with pytest.raises(UserError, match="may depend on the problem and the replies alone"):
        examine(Draws(), Draws().problems("train"), 20)


def test_evaluations_hold_conversations_too(tmp_path: Path, chat: Chat) -> None:
    made = world(tmp_path, chat, "sdpo", {**SCRIPT, "three": "none"})
    settings = EvaluationSettings(every=0, before=True, samples=2, temperature=0.5, top_p=1.0, limit=None)
    problems = list(map(Clues().problem, ("one", "two", "three")))
    metrics, attempts = evaluate(made.run.speech, problems, settings, scripted.SAMPLING, Clues().prompt)
    assert metrics["eval/per_task/mean@2"] == pytest.approx(1 / 3)
    assert metrics["eval/lost"] == 2
    assert metrics["eval/response/turns"] == pytest.approx((3 + 3 + 1) / 3)
    assert [attempt.lost is None for attempt in attempts] == [True] * 4 + [False] * 2


def test_people_and_models_read_who_said_what(tmp_path: Path, chat: Chat) -> None:
    made = world(tmp_path, chat, "resd", {**SCRIPT, "reflect": "lesson: ask first", "curate": "add: ask first"})
    one, two = made.update("one", "two")
    said = "assistant: bad\n\nuser: clue two-1\n\nassistant: worse\n\nuser: clue two-2\n\nassistant: worst"
    assert two.response == said
    assert said in made.asked("reflect")[0]
    assert said in (made.teacher(two) or "")
    for sample, attempt in zip(made.learned, (one, two), strict=True):
        sample.token_loss = [0.5] * len(attempt.response_ids)
    write_attempts(tmp_path, 1, [one, two], chat.pieces)
    record = json.loads((tmp_path / "attempts/step_000001.jsonl").read_text().splitlines()[1])
    assert record["turns"][0] == {"reply": "bad", "heard": [{"role": "user", "content": "clue two-1"}]}
    assert "".join(record["token_text"]) == record["response"] == said
    assert record["tokens"] == sum(two.mask or [])
    assert [loss is not None for loss in record["token_loss"]] == two.mask
    assert record["token_text"][0] == "assistant: b"


def test_thinking_is_left_out_of_every_turn(chat: Chat) -> None:
    attempt = attempt_of(chat, "<think>hm</think>a", "b", "<think>hm</think>c")
    assert turns.spoken(attempt) == "assistant: a\n\nuser: b\n\nassistant: c"
    opened = replace(attempt_of(chat, "hm</think>a", "b", "no end"), prompt_text="x<think>\n")
    assert turns.spoken(opened, True) == "assistant: a\n\nuser: b\n\nassistant: "
    assert [turn.reply for turn in opened.answer[1]] == ["<think>hm</think>a", "<think>no end"]


def test_a_long_attempt_is_shortened_in_the_middle(chat: Chat) -> None:
    said = [text for number in range(40) for text in (f"reply {number} is a line", f"answer {number} is a line")]
    attempt = attempt_of(chat, *said, "the last reply")
    prompts = Prompts("compact", "answer")
    question = Reflector(lambda questions: [], prompts, Budget(600, len)).question(attempt, Playbook())
    text = question.messages[-1]["content"]
    assert question.truncated
    assert len(text) <= 600
    assert "assistant: reply 0 is a line" in text
    assert "assistant: the last reply" in text
    assert "reply 20 is" not in text
    assert text.count("[...]") == 1


def refused(chat: Chat, template: str, *, role: str = "user", thinks: bool = True) -> str:
    chat.tokenizer.chat_template, chat.enable_thinking = template, thinks
    chat.thinking_opened = chat.render([{"role": "user", "content": ""}]).rstrip().endswith("<think>")
    try:
        chat.check_turns([[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]], [role])
    except UserError as error:
        return str(error)
    return ""


def test_templates_that_rewrite_what_was_said_are_refused(tiny_model: Path) -> None:
    from test_chat import OPENED, QWEN

    own = Chat(model_settings(str(tiny_model)))
    assert not refused(own, tiny.TEMPLATE)
    assert not refused(own, tiny.TEMPLATE, role="tool")
    assert not refused(own, OPENED)
    assert "drop thinking" in refused(own, QWEN)
    assert "drop thinking" in refused(own, QWEN, thinks=False)  # begins with an empty thought, and forgets it
    assert not refused(own, QWEN.replace("'<think>\\n\\n</think>\\n\\n'", "''"), thinks=False)
    unknown = "{% for m in messages if m.role == 'tool' %}{{ raise_exception('no') }}{% endfor %}" + tiny.TEMPLATE
    assert "fails on a conversation with the roles user, assistant, tool" in refused(own, unknown, role="tool")
    silent = tiny.TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] if m.role != 'tool' }}")
    assert "of the role tool answers" in refused(own, silent, role="tool")
    assert "does not end a reply with the model's end of turn" in unended(own)


def unended(chat: Chat) -> str:
    chat.tokenizer.chat_template = tiny.TEMPLATE.replace("<|im_end|>", "###")
    with pytest.raises(UserError) as caught:
        chat.between([{"role": "user", "content": "x"}])
    return str(caught.value)


@pytest.mark.parametrize("name", [pytest.param("sdpo", marks=pytest.mark.slow), "grpo", "resd"])
def test_a_run_from_the_command_line(mesh: DeviceMesh, tmp_path: Path, capfd: Any, name: str) -> None:
    """With real workers, engine and learner, which agree on what was sampled."""
    task = ["task=custom", "task.name=turn_tasks:Clues", "+task.options.turns=2", f"algorithm={name}", "on_empty=warn"]
    group = ["algorithm.group=2"] if name == "grpo" else []
    limits = ["rollout.max_response=360", "batch_size=2", "steps=1", "inner_updates=1"]
    done = train(capfd, *task, *limits, *group, f"run_dir={tmp_path / 'run'}")
    assert done.status == 0, done.err
    [found] = [row for row in rows(tmp_path / "run") if row["kind"] == "train"]
    assert 1 < found["response/turns"] <= 2
    assert found["follow/lost"] == found["verify/lost"] == 0
    assert found.get("mismatch_kl", 0) < 1e-3
    attempts = [json.loads(line) for line in (tmp_path / "run/attempts/step_000001.jsonl").read_text().splitlines()]
    assert all("clue train" in each["response"] for each in attempts if len(each["turns"]) > 1)


NANO = Path(__file__).parent.parent / "resd/model/nano"  # whose replies end
TALK = [
    *("task.name=turn_tasks:Killing", "batch_size=2", "inner_updates=1", "rollout.max_response=360", "steps=2"),
    *("evaluation.before=false", "evaluation.limit=1", "evaluation.samples=1", "hardware.threads=1"),
]


def attempts_of(run_dir: Path) -> list[dict[str, Any]]:
    files = sorted((run_dir / "attempts").glob("step_*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_two_ranks_talk_as_one_does(mesh: DeviceMesh, tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    test_train.run(NANO, one, *TALK)
    words = [*test_train.SMALL, *TALK, f"model.path={NANO}", f"run_dir={two}"]
    test_train.finish([sys.executable, str(Path(__file__).with_name("world.py")), "2", *words])
    for left, right in zip(attempts_of(one), attempts_of(two), strict=True):
        ours, theirs = ([loss or 0.0 for loss in each.pop("token_loss", [])] for each in (left, right))
        assert left == right
        assert ours == pytest.approx(theirs, rel=0.01, abs=1e-5)  # of some, nothing but rounding is left
    found = [test_train.of_kind(test_train.metrics(run_dir), "train") for run_dir in (one, two)]
    assert max(row["response/turns"] for row in found[0]) > 1
    for left, right in zip(*found, strict=True):
        assert left.keys() == right.keys()
        for name in left.keys() - {"kind"}:
            if not name.startswith(("time/", "perf/", "ratio_")):  # of ratios, how many are beyond a limit
                assert left[name] == pytest.approx(right[name], rel=1e-4, abs=1e-6), name
    a, b = test_train.weights(one, 2), test_train.weights(two, 2)
    for name in a:
        assert (a[name] - b[name]).abs().max() < 1e-4, name


def test_a_run_that_is_killed_between_two_turns_ends_as_if_it_had_not_been(mesh: DeviceMesh, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    test_train.run(NANO, whole, *TALK)
    killing = {**test_train.environment(), "RESD_TEST_KILLED": str(broken)}
    killed = subprocess.run(test_train.command(NANO, broken, *TALK), env=killing, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert test_train.reached(broken) == 1
    test_train.run(NANO, broken, *TALK)
    assert any(len(each["turns"]) > 1 for each in attempts_of(broken) if each["id"].startswith("2/"))
    test_train.same_end(whole, broken, 2)


def test_a_template_is_refused_before_the_first_update(tiny_model: Path, tmp_path: Path) -> None:
    from test_chat import QWEN

    own = Chat(model_settings(str(tiny_model)))
    own.tokenizer.chat_template, own.enable_thinking = QWEN, True
    made = world(tmp_path, own, "sdpo", {})
    guard, problems = Guard(made.run.journal, "stop"), Clues().problems("train")
    with pytest.raises(UserError, match="writes earlier turns otherwise than they were"):
        guard.check_prompts(made.run, problems, [], Clues().prompt)
    single = World(tmp_path, own, "sdpo", {})
    guard.check_prompts(single.run, problems, [], Clues().prompt)
