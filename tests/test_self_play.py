"""Self-play with a scripted model: who earns what, what is asked of the task, and what a run says of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted import Judge, Line, Words, World, model_settings
from test_config import load
from test_shard import alone, world
from test_train import metrics, of_kind
from torch.distributed.device_mesh import DeviceMesh
from verifier_tasks import Echo

from resd.guard import Guard
from resd.model.chat import Chat
from resd.settings import AlgorithmSettings
from resd.task import Proposing
from resd.types import Attempt, Messages, Problem, UserError, Verdict


class Inventing(Words):
    """A proposal is `ask NAME`; names with a t are those of test problems."""

    levels = 2

    def propose_prompt(self, seed: int, level: int) -> Messages:
        return [{"role": "user", "content": f"level {level} propose"}]

    def proposed(self, response: str, id: str) -> Problem:
        head, _, name = response.partition(" ")
        if head != "ask":
            raise ValueError(f"{response!r} asks nothing")
        return Problem(id, f"solve {name}")

    def held_out(self, problem: Problem) -> bool:
        return "t" in problem.statement.split()[-1]


class Answers(Judge):
    """The answer is the last word; `mumble` cannot be read."""

    def submit(self, index: int, answer: tuple[Problem, str, bool]) -> None:
        super().submit(index, answer)
        index, verdict = self.done.pop()
        if verdict is not None:
            word = answer[1].split()[-1]
            ballot = "" if word == "mumble" else word
            verdict = Verdict(verdict.reward, verdict.passed, 0, 1, verdict.feedback, word, ballot=ballot)
        self.done.append((index, verdict))


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


Make = Callable[..., World]


@pytest.fixture
def play(chat: Chat, tmp_path: Path) -> Make:
    def make(script: dict[str, Line], **changes: Any) -> World:
        lines = {name: list(line) if isinstance(line, list) else line for name, line in script.items()}
        other = {"task": Inventing(), "verifier": Answers(), "group": 3, **changes}
        return World(tmp_path, chat, "self_play", lines, **other)

    return make


# Of eve's answers two are alike, of bob's all, of ada's none; ed's are not read. Right is what says so, not what is so.
SCRIPT: dict[str, Line] = {
    "propose": ["ask eve", "ask bob", "ask ada", "ask ed"],
    "eve": ["so 7", "right 8", "it is 7"],
    "bob": ["so 5", "is 5", "right 5"],
    "ada": ["right 1", "so 2", "so 3"],
    "ed": ["mumble", "so mumble", "right 9"],
}


def signs(made: World, attempts: Sequence[Attempt]) -> dict[str, list[int]]:
    """Of the advantages: those of the proposals in order, and by problem those of the answers to it."""
    told: dict[str, list[int]] = {}
    for attempt in attempts:
        advantage = attempt.sample.advantage if attempt.sample else None
        key = "propose" if attempt.parent is None else attempt.problem.statement.split()[-1]
        assert (attempt.sample in made.learned) == (advantage is not None)
        if isinstance(advantage, float):
            told.setdefault(key, []).append((advantage > 0) - (advantage < 0))
    return told


def test_agreement_between_none_and_all_is_what_a_proposal_earns_by(play: Make) -> None:
    made = play(SCRIPT)
    attempts = made.update("one")
    assert signs(made, attempts) == {
        "propose": [1, -1, -1, -1],
        "eve": [1, -1, 1],  # the vote is wrong, and nobody says so
        "bob": [0, 0, 0],
        "ada": [0, 0, 0],
        "ed": [0, 0, 0],  # one vote elects nothing
    }
    assert [attempt.passed for attempt in attempts[:4]] == [True, False, False, False]
    assert len(made.learned) == 16
    assert all(sample.sampled_logprobs is not None and sample.teacher_prompt_ids is None for sample in made.learned)
    assert {a.parent.id for a in attempts if a.parent} == {f"1/proposal-0/{n}" for n in range(4)}


def test_what_cannot_be_read_has_no_vote(play: Make) -> None:
    made = play({**SCRIPT, "eve": ["mumble", "mumble", "mumble", "so 7", "is 7"]}, group=5)
    assert signs(made, made.update("one"))["eve"] == [-1, -1, -1, 1, 1]


def test_what_is_right_does_not_count_in_a_vote(play: Make) -> None:
    def learned(script: dict[str, Line]) -> list[Any]:
        made = play(script)
        made.update("one")
        return [sample.advantage for sample in made.learned]

    other = {"eve": ["right 7", "so 8", "right 7"], "ada": ["so 1", "right 2", "so 3"]}
    assert learned(SCRIPT) == learned({**SCRIPT, **other})


def test_with_the_task_as_the_judge_its_verdict_is_what_counts(play: Make) -> None:
    made = play({**SCRIPT, "ed": ["half 1", "so 1", "so 2"]}, judge="task")
    attempts = made.update("one")
    assert signs(made, attempts) == {
        "propose": [1, 1, 1, -1],
        "eve": [-1, 1, -1],
        "bob": [-1, -1, 1],
        "ada": [1, -1, -1],
        "ed": [1, -1, -1],  # half the reward
    }


@pytest.mark.parametrize("judge", ["vote", "task"])
def test_what_a_judge_would_gain_is_measured(play: Make, judge: str) -> None:
    made = play(SCRIPT, judge=judge)
    made.update("one")
    told = {name: value for name, value in made.metrics.items() if name.startswith("vote/")}
    assert told == {
        "vote/agreement": pytest.approx((2 / 3 + 1) / 4),
        "vote/right": 0.0,  # eve and bob elect, and what was given first is wrong
        "vote/passed": 0.5,  # ada's first and ed's only vote are right by chance
        "vote/best": 1.0,
        "vote/gap": 0.5,
    }
    assert made.metrics["train/per_task"] == pytest.approx(4 / 12)  # of the answers
    assert made.metrics["response/truncated"] == 0


def test_a_test_problem_is_left_out_and_a_bad_proposal_earns_nothing(play: Make) -> None:
    script = {**SCRIPT, "propose": ["ask tom", "hello", "ask eve", "ask eve"]}
    made = play(script)
    attempts = made.update("one")
    assert [a.sample is None for a in attempts[:4]] == [True, False, False, False]
    assert signs(made, attempts)["propose"] == [-1, 1, -1]
    assert made.asked("try")[4:] == ["solve eve"] * 3
    counted = {name: made.metrics[f"propose/{name}"] for name in ("invalid", "duplicate", "held_out", "too_long")}
    assert counted == {"invalid": 1, "duplicate": 1, "held_out": 1, "too_long": 0}
    assert attempts[1].verdict is not None
    assert attempts[1].verdict.feedback == "This cannot be read: 'hello' asks nothing."


def test_a_proposal_without_two_verdicts_is_left_out(play: Make) -> None:
    made = play({**SCRIPT, "bob": ["lost", "lost", "right 5"]})
    attempts = made.update("one")
    assert "bob" not in signs(made, attempts)
    assert signs(made, attempts)["propose"] == [1, -1, -1]


def test_each_problem_of_a_batch_is_a_prompt_and_its_proposals_are_a_group(play: Make) -> None:
    script = {**SCRIPT, "propose": ["ask eve", "ask bob", "nothing", "no"]}
    made = play(script, proposals=2)
    attempts = made.update("one", "two")
    prompts = made.asked("try")[:4]
    assert prompts[:1] * 2 + prompts[2:3] * 2 == prompts
    assert set(prompts) <= {"level 0 propose", "level 1 propose"}
    assert signs(made, attempts)["propose"] == [1, -1, 0, 0]
    assert [attempt.problem.id for attempt in attempts[:4]] == ["proposal-0"] * 2 + ["proposal-1"] * 2


def test_levels_vary_with_the_update_and_a_run_that_goes_on_asks_the_same(play: Make) -> None:
    made, asked, seeds = play(SCRIPT), [], []
    for _ in range(6):
        made.update("one", "two")
        asked.append([(each.text, each.request.seed) for each in made.engine.asked])
        seeds.append({each.request.seed for each in made.engine.asked})
    levels = {tuple(text for text, _ in update if "propose" in text) for update in asked}
    assert len({text for told in levels for text in told}) == 2
    assert len(levels) > 1
    assert not set.intersection(*seeds)
    again = play(SCRIPT)
    assert made.algorithm.state() == {}
    again.run.journal.step = 5
    again.update("one", "two")
    same = [(each.text, each.request.seed) for each in again.engine.asked]
    assert [each for each in same if "propose" in each[0]] == [each for each in asked[5] if "propose" in each[0]]


@pytest.mark.parametrize("broken", ["proposed", "held_out", "statement"])
def test_a_broken_task_costs_a_proposal_and_not_the_run(play: Make, broken: str) -> None:
    made = play(SCRIPT)
    if broken == "statement":
        made.task.proposed = lambda response, id: None  # type: ignore[attr-defined]
        made.task.held_out = lambda problem: False  # type: ignore[attr-defined]
    else:
        setattr(made.task, broken, lambda *given: 1 / 0)
    made.update("one")
    assert made.metrics["propose/invalid"] == 4
    assert "train/per_task" not in made.metrics  # nothing was tried


def test_who_proposes_nothing_is_told_apart(play: Make) -> None:
    made = play({"propose": "hello"})
    guard = Guard(made.run.journal, "stop")
    told = []
    for _ in range(2):
        made.algorithm.run.journal.step += 1
        observed = made.algorithm.update([Problem("one", "")])
        told.append(guard.check(observed))
        made.run.finish(observed.attempts, observed.metrics)
    assert told[0] == ""
    assert told[1].startswith(
        "2 updates had no usable proposal, the last is 2 (4 x propose/invalid): look at attempts/"
    )
    assert "or begin with a model that can propose: model.path=…" in told[1]
    assert "author" not in told[1]


def test_test_problems_alone_are_no_silence_but_nothing_to_learn_from(play: Make) -> None:
    made = play({"propose": ["ask tom", "ask tim", "ask t", "ask ted"]})
    guard = Guard(made.run.journal, "stop")
    made.run.journal.step = 1
    observed = made.algorithm.update([Problem("one", "")])
    assert (observed.mute, observed.samples) == ("", [])
    assert guard.check(observed).startswith("update 1 has no sample to learn from (4 x propose/held_out)")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (["algorithm.group=2"], "nothing is between: write algorithm.group=3 or more"),
        (["algorithm.proposals=1"], "compares proposals to one prompt: write algorithm.proposals=2 or more"),
        (["algorithm.group=1", "algorithm.judge=task"], "answers to one proposal: write algorithm.group=2 or more"),
        (["algorithm.judge=me"], "algorithm.judge"),
    ],
)
def test_what_cannot_be_compared_is_refused(override: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load("algorithm=self_play", "task=countdown", *override)
    load("algorithm=self_play", "task=countdown", "algorithm.group=2", "algorithm.judge=task")


def test_a_task_that_asks_for_no_proposals_is_refused_also_inside_another_algorithm() -> None:
    settings = load("algorithm=self_play").algorithm
    settings.check_task(Inventing())
    assert isinstance(Inventing(), Proposing)

    class Outer(AlgorithmSettings):
        inner: AlgorithmSettings

    for each in (settings, Outer(name="outer", group=1, inner=settings)):
        with pytest.raises(UserError, match="and Words cannot ask for any: write task=countdown"):
            each.check_task(Words())


class Letters(Echo):
    """Noise proposes and answers: by the sum of its letters."""

    levels = 1

    def propose_prompt(self, seed: int, level: int) -> Messages:
        return [{"role": "user", "content": "ask"}]

    def proposed(self, response: str, id: str) -> Problem:
        return Problem(id, f"say {sum(map(ord, response)) % 9}")

    def held_out(self, problem: Problem) -> bool:
        return problem.statement == "say 0"

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        answer = str(sum(map(ord, response)) % 2)
        return Verdict(float(answer), answer == "1", int(answer), 1, "" if answer == "1" else "even", answer)


NOISE = [
    *("task.name=test_self_play:Letters", "algorithm=self_play", "algorithm.group=3", "algorithm.proposals=3"),
    *("batch_size=1", "inner_updates=1", "rollout.max_response=6", "evaluation.every=0"),
]


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """What updates say, but for what depends on time."""
    found = of_kind(metrics(run_dir), "train")
    return [{name: row[name] for name in row if not name.startswith(("time/", "perf/"))} for row in found]


def test_a_run_that_was_ended_goes_on_and_several_processes_do_the_same(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path
) -> None:
    """The real program, whose engine samples noise."""
    whole, parts, two = (tmp_path / name for name in ("whole", "parts", "two"))
    alone(tiny_model, whole, *NOISE)
    alone(tiny_model, parts, *NOISE, "steps=1")
    alone(tiny_model, parts, *NOISE)
    world(2, [*NOISE, f"model.path={tiny_model}", f"run_dir={two}", "steps=1"])
    assert rows(parts) == rows(whole)
    assert [row["grad_norm"] > 0 for row in rows(whole)] == [True] * 2
    close = {name: pytest.approx(v, rel=1e-3, abs=1e-5) for name, v in rows(whole)[0].items() if name != "kind"}
    assert rows(two)[0] == {"kind": "train"} | close
    for other, steps in ((parts, (1, 2)), (two, (1,))):
        for file in (f"attempts/step_00000{step}.jsonl" for step in steps):
            assert (other / file).read_text() == (whole / file).read_text()
