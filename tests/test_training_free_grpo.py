"""Training-Free GRPO: what is asked of whom, what changes the library, and what the student reads afterwards."""

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from scripted import Line, World, model_settings
from stand_in import Server, serve
from test_train import metrics, of_kind

from resd.config import CONF, validate
from resd.context.contrast import Contrast
from resd.context.formats import LinesFormat
from resd.context.library import read
from resd.context.render import Prompts
from resd.guard import Guard
from resd.model.chat import Chat
from resd.train import train
from resd.types import Attempt, Problem, Question, UserError

SAYS: dict[str, Line] = {
    "two": "right two",
    "summarise": lambda text: "it was right" if "which passed" in text else "it was wrong",
    "compare": "rule: be right\nrule: be brief and right",
    "decide": "add: be right always",
    "consolidate": "add: be right always",
}


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


class Untrained(World):
    def update(self, *ids: str) -> list[Attempt]:
        self.run.learned = []
        return super().update(*ids)

    @property
    def rules(self) -> list[str]:
        return [entry["text"] for entry in self.algorithm.state()["playbook"]["entries"]]


def world(folder: Path, chat: Chat, script: dict[str, Line] | None = None, **changes: Any) -> Untrained:
    answers = cycle(["right one", "wrong"])
    one: dict[str, Line] = {"one": lambda text: next(answers)}
    settings: dict[str, Any] = {"group": 2, "placement": "before", **changes}
    return Untrained(folder, chat, "training_free_grpo", {**SAYS, **one, **(script or {})}, **settings)


def test_a_contrast_becomes_a_rule_that_the_student_reads(chat: Chat, tmp_path: Path) -> None:
    it = world(tmp_path, chat)
    attempts = it.update("one", "two")
    assert [a.passed for a in attempts] == [True, False, True, True]
    assert "Rules learned" not in it.asked("try")[0]
    # Of problem two all passed: nothing to compare.
    assert len(it.asked("summarise")) == 2
    assert "solve one" in it.asked("summarise")[0]
    assert "which failed: wrong\nFeedback: one is not wrong" in it.asked("summarise")[1]
    (compared,) = it.asked("compare")
    assert "Attempt 1, which passed: it was right\nAttempt 2, which failed: it was wrong\nState at most 2" in compared
    (decided,) = it.asked("decide")
    assert "Learned:\n- be right\n- be brief and right\n" in decided
    assert "Rules so far" not in decided
    assert "Proposed changes:\n1 x add: be right always\nMake one list" in it.asked("consolidate")[0]
    assert it.rules == ["be right always"]
    assert it.observation.samples == []
    assert it.metrics["library/groups"] == 1
    assert it.metrics["playbook/size"] == 1

    it.update("one")
    assert it.asked("try")[0].startswith(
        "Rules learned from earlier problems; apply those that fit:\n- be right always"
    )
    assert it.asked("try")[0].endswith("solve one")
    assert "Problem: solve one\n" in it.asked("summarise")[0]  # the task's words, without the rules


def test_what_one_problem_decides_is_counted_for_all(chat: Chat, tmp_path: Path) -> None:
    it = world(tmp_path, chat, {"two": ["wrong", "right two"]})
    it.update("one", "two")
    assert len(it.asked("decide")) == 2
    assert "2 x add: be right always" in it.asked("consolidate")[0]


def test_only_some_groups_are_compared(chat: Chat, tmp_path: Path) -> None:
    script: dict[str, Line] = {"one": "wrong", "two": "right", "three": ["half", "wrong"]}
    for groups, compared in [("mixed", {"three"}), ("failed", {"one", "three"}), ("all", {"one", "two", "three"})]:
        it = world(tmp_path / groups, chat, script | {"compare": "none"}, groups=groups)
        (tmp_path / groups).mkdir()
        it.engine.script["three"] = ["half", "wrong"]
        it.update("one", "two", "three")
        assert {text.partition("solve ")[2].split()[0] for text in it.asked("compare")} == compared
        assert it.asked("decide") == [] == it.asked("consolidate")
        assert it.rules == []
    assert "failed with a reward of 0.5" in it.asked("compare")[2]


def test_rules_are_changed_within_bounds(chat: Chat, tmp_path: Path) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("never be late\nalways be polite\n")
    said = (
        "update err-00001: be there early\nmerge err-00001 err-00002: be polite and there early\n"
        "delete err-00009\nadd: always be polite\nadd: keep it short\nadd: keep it dry"
    )
    it = world(tmp_path, chat, {"consolidate": said}, library=str(rules), cap=3, floor=0.5)
    assert it.rules == ["never be late", "always be polite"]
    it.update("one")
    # The first goes; of the others one must stay, so no merge; one id is unknown, one rule is there, one is too many.
    assert it.rules == ["always be polite", "be there early", "keep it short"]
    refused = {name.rpartition("_")[2]: it.metrics[name] for name in it.metrics if "refused" in name}
    assert refused == {"unknown": 2, "duplicate": 1, "floor": 0, "cap": 1, "gate": 0}
    assert "\nAt most 3 rules may be there afterwards.\n" in it.asked("consolidate")[0]
    assert it.metrics["library/churn"] == 0.5
    assert it.metrics["library/rewritten"] == 1 / 4
    (removed,) = it.events("remove")
    assert removed["reason"] == "update"
    assert [e["parents"] for e in it.events("add")] == [[], [], ["err-00001"], []]


def test_the_floor_forbids_what_is_possible_without_it(chat: Chat, tmp_path: Path) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("never be late\nalways be polite\n")
    for floor, left in [(0.0, ["be polite and there early"]), (1.0, ["never be late", "always be polite"])]:
        said = "merge err-00001 err-00002: be polite and there early"
        it = world(tmp_path / str(floor), chat, {"consolidate": said}, library=str(rules), floor=floor)
        (tmp_path / str(floor)).mkdir()
        it.update("one")
        assert it.rules == left
        assert it.metrics["library/refused_floor"] == floor


def test_an_unread_answer_changes_nothing_and_is_counted(chat: Chat, tmp_path: Path) -> None:
    it = world(tmp_path, chat, {"consolidate": "I would add something.", "decide": ["add: a good rule", "who knows"]})
    it.update("one")
    assert len(it.asked("consolidate")) == 3
    assert it.rules == []
    assert it.metrics["consolidate/invalid"] == 3
    assert it.metrics["decide/invalid"] == 0
    it.update("one")
    assert it.asked("consolidate") == []
    assert it.metrics["decide/invalid"] == 1
    it = world(tmp_path, chat, {"consolidate": ["what?", "add: a good rule"]})
    it.update("one")
    assert it.rules == ["a good rule"]
    assert it.metrics["consolidate/invalid"] == 1


def test_a_comparison_states_no_more_than_asked(chat: Chat, tmp_path: Path) -> None:
    it = world(tmp_path, chat, rules=1)
    it.update("one")
    assert "State at most 1 rules" in it.asked("compare")[0]
    assert "Learned:\n- be right\nChange" in it.asked("decide")[0]


def test_thinking_that_the_template_opens_is_no_part_of_a_summary() -> None:
    asked = []

    def generate(questions: Sequence[Question]) -> list[str | None]:
        asked.extend(question.messages[-1]["content"] for question in questions)
        return ["hm</think>it was late", "it was early"]

    attempts = [
        Attempt(id, Problem("p", "solve p"), [], "", [], [], [], f"well</think>{id} is said", False, None)
        for id in ("first", "second")
    ]
    prompts = Prompts("full", "answer", LinesFormat(thinking_opened=True))
    contrast = Contrast(generate, prompts, lambda problem: problem.statement)
    assert contrast.summarise({"p": attempts}) == {"first": "it was late"}  # the other one was cut in its thinking
    assert contrast.report() == ({"summarise/invalid": 1, "summarise/repaired": 0}, "")
    assert "first is said" in asked[0]
    assert "well" not in asked[0]


def test_a_long_response_is_shortened_for_its_summary_and_counted(chat: Chat, tmp_path: Path) -> None:
    it = world(tmp_path, chat, {"one": ["right one", "wrong " + "and so on " * 60]}, writing__max_prompt=500)
    it.update("one")
    assert len(it.asked("summarise")) == 2
    assert 50 < it.asked("summarise")[1].count("and so on") * len("and so on ") < 500
    assert it.metrics["summarise/truncated"] == 1
    assert it.metrics["summarise/too_long"] == 0


@pytest.mark.parametrize(
    ("role", "name"),
    [("compare", "comparison"), ("decide", "decision"), ("consolidate", "consolidation")],
)
def test_two_updates_without_one_answer_end_the_run(chat: Chat, tmp_path: Path, role: str, name: str) -> None:
    it = world(tmp_path, chat, {role: "who knows"})
    guard = Guard(it.run.journal, "stop", learns=False)
    said = []
    for _ in range(2):
        it.update("one", "two")
        assert it.observation.mute == name
        said.append(guard.check(it.observation))
    assert said[0] == ""
    assert f"2 updates had no usable {name}, the last is 2" in said[1]
    usable = world(tmp_path, chat, {"consolidate": ["who knows", "add: a good rule"]})
    usable.update("one")
    assert usable.observation.mute == ""


def test_a_library_that_does_not_rest_ends_the_run(chat: Chat, tmp_path: Path) -> None:
    said = [f"delete err-0000{n}\nadd: rule number {n + 1}" for n in range(1, 5)]
    rules = tmp_path / "rules.txt"
    rules.write_text("rule number 1\n")
    it = world(tmp_path, chat, {"consolidate": list(said)}, library=str(rules), max_churn=0.6)
    it.update("one")
    assert it.observation.stop == ""
    assert it.rules == ["rule number 2"]
    resumed = world(tmp_path, chat, {"consolidate": list(said[1:])}, library=str(rules), max_churn=0.6)
    resumed.algorithm.restore(json.loads(json.dumps(it.algorithm.state())))
    for each in (it, resumed):
        each.update("one")
        assert "max_churn=0.6" in each.observation.stop
        assert each.rules == ["rule number 3"]
        assert each.metrics["library/half_life"] == 1
    calm = world(tmp_path, chat, {"consolidate": list(said)}, library=str(rules))
    for _ in range(3):
        calm.update("one")
        assert calm.observation.stop == ""


def test_what_cannot_be_is_one_sentence(chat: Chat, tmp_path: Path) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("never be late\nalways be polite\n")
    with pytest.raises(UserError, match=r"has 2 rules, algorithm\.cap=1"):
        world(tmp_path, chat, library=str(rules), cap=1)
    with pytest.raises(ValueError, match=r"algorithm\.group=2 or more"):
        world(tmp_path, chat, group=1)
    world(tmp_path, chat, group=1, groups="failed")
    with pytest.raises(UserError, match="cannot be read"):
        world(tmp_path, chat, library=str(tmp_path / "missing.txt"))


def test_the_scripted_author_teaches_the_laboratory_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import scripted_author
    from nano.dialects import OFFICIAL

    with serve(Server(scripted_author.answer, id="scripted")) as server:
        overrides = [
            "algorithm=training_free_grpo",
            f"author.url={server.url}",
            "task=manufactoria",
            "algorithm.group=3",
            "algorithm.groups=failed",
            "algorithm.placement=template",
            "batch_size=12",
            "inner_updates=1",
            "checkpoints.every=1",
            "evaluation.every=1",
            "evaluation.samples=1",
            "evaluation.limit=12",
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            for steps in (1, 2):  # the second update is that of a run that goes on
                words = [*overrides, f"steps={steps}", f"run_dir='{tmp_path / 'run'}'"]
                train(validate(compose("config", words)))
    lines = metrics(tmp_path / "run")
    before, *after = [line["eval/per_task/mean@1"] for line in of_kind(lines, "eval")]
    assert before == 0.0
    written = {entry.text for entry in read(tmp_path / "run/playbook.jsonl").entries}
    assert written <= set(OFFICIAL.rules())
    assert len(written) >= 7
    assert after[-1] >= 0.25
    assert not list((tmp_path / "run/checkpoints").glob("*/model"))


SEED = 1  # keeps other problems than "one" apart
GATED: dict[str, Line] = {
    id: (lambda text, id=id: "wrong" if "be bad" in text else f"right {id}") for id in ("two", "dev", "other")
}


def gated(folder: Path, chat: Chat, said: list[str], **changes: Any) -> Untrained:
    folder.mkdir(exist_ok=True)
    return world(
        folder, chat, GATED | {"consolidate": said}, told={"dev": "-", "other": "-"}, gate=2, seed=SEED, **changes
    )


def test_a_library_that_does_worse_on_problems_kept_apart_is_not_taken(chat: Chat, tmp_path: Path) -> None:
    it = gated(tmp_path, chat, ["add: be right", "add: be bad always", "add: be quick"])
    apart = [problem.id for problem in it.algorithm.apart]
    assert len(set(apart)) == 2  # by lot, of one, two, dev, other
    assert "one" not in apart
    it.update("one", *apart)
    assert [attempt.problem.id for attempt in it.observation.attempts] == ["one", "one"]  # those are not tried
    asked = [text.partition("solve ")[2] for text in it.asked("try")]
    assert sorted(asked) == sorted(["one", "one", *apart, *apart])  # the library before, and after
    assert it.rules == ["be right"]
    assert it.metrics["gate/change"] == 0.0

    it.update("one")
    assert it.rules == ["be right"]
    assert it.metrics["library/refused_gate"] == 1
    assert (it.metrics["gate/change"], it.metrics["playbook/added"]) == (-1.0, 0)
    assert len(it.asked("try")) == 2 + 2  # what the library earns is known
    assert it.observation.stop == ""
    it.update("one")
    assert it.rules == ["be right", "be quick"]
    assert [event["text"] for event in it.events("add")] == ["be right", "be quick"]


def test_what_the_gate_knows_outlives_a_resume(chat: Chat, tmp_path: Path) -> None:
    it = gated(tmp_path / "it", chat, ["add: be bad always"])
    it.update("one")
    resumed = gated(tmp_path / "resumed", chat, ["add: be bad always"])
    resumed.algorithm.restore(json.loads(json.dumps(it.algorithm.state())))
    for each in (it, resumed):
        each.update("one")
        assert len(each.asked("try")) == 2 + 2
        assert each.metrics["library/refused_gate"] == 1
        assert each.observation.stop == ""  # that is for patience to say
        assert each.rules == []


def test_changes_that_nothing_can_judge_are_not_made_and_the_run_goes_on(chat: Chat, tmp_path: Path) -> None:
    it = gated(tmp_path, chat, ["add: lose all", "add: be right", "add: be quick"])
    first, second = (problem.id for problem in it.algorithm.apart)
    for id in (first, second):
        it.engine.script[id] = lambda text, id=id: "lost" if "lose all" in text else f"right {id}"
    it.update("one")
    assert (it.rules, it.metrics["playbook/added"], it.observation.stop) == ([], 0, "")
    assert (it.metrics["gate/lost"], it.metrics["library/refused_gate"], it.metrics["verify/lost"]) == (1, 1, 2)
    assert "gate/change" not in it.metrics
    assert it.run.journal.lost["gate/lost"] == 1  # and is told with its reason

    # One has a verdict before the change, the other after it and from then on: both are asked again.
    it.engine.script |= {first: ["right", "lost"], second: ["lost", "right"]}
    it.update("one")
    assert (it.rules, it.metrics["gate/lost"]) == ([], 1)
    it.update("one")
    assert (it.rules, it.metrics["gate/lost"], it.metrics["gate/change"]) == (["be quick"], 0, 0.0)


def test_a_gate_leaves_half_of_the_problems_to_learn_from(chat: Chat, tmp_path: Path) -> None:
    it = world(tmp_path, chat)
    with pytest.raises(UserError, match=r"algorithm\.gate=2 keeps more than half of 3 training problems apart"):
        it.algorithm.settings.model_copy(update={"gate": 2}).check([it.task.problem(id) for id in ("a", "b", "c")])


def test_updates_without_a_better_share_end_the_run(chat: Chat, tmp_path: Path) -> None:
    it = world(tmp_path, chat, {"consolidate": [f"add: rule {n}" for n in range(9)]}, patience=2)
    stops = []
    for answer in ("one", "two", "one", "one"):  # half, all, half and half of the attempts pass
        it.update(answer)
        stops.append(it.observation.stop)
    assert stops[:3] == ["", "", ""]
    assert "algorithm.patience=2" in stops[3]


def test_a_library_that_drifts_ends_the_run(chat: Chat, tmp_path: Path) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("rule zero\nrule nought\n")
    said = ["delete err-00001\nadd: rule 3", "update err-00002: rule 4", "add: rule 5", "add: rule 6"]
    it = world(tmp_path, chat, {"consolidate": list(said)}, library=str(rules), max_drift=0.9)
    drifts, stops = [], []
    for _ in said:
        it.update("one")
        drifts.append(it.metrics.get("library/drift"))
        stops.append(it.observation.stop)
    assert drifts == [None, None, 1.0, 0.5]  # after the third, none of the first two is left
    assert stops == ["", "", "", ""]
    again = world(tmp_path, chat, {"consolidate": list(said)}, library=str(rules), max_drift=0.4)
    for _ in said:
        again.update("one")
    assert "max_drift=0.4" in again.observation.stop


def test_the_log_of_a_branch_begins_with_what_led_to_it(chat: Chat, tmp_path: Path) -> None:
    for name in ("first", "branch"):
        (tmp_path / name).mkdir()
    first = world(tmp_path / "first", chat)
    first.update("one")
    state = json.loads(json.dumps(first.algorithm.state()))
    branch = world(tmp_path / "branch", chat, {"decide": "add: be wrong never"})
    branch.run.journal.step = first.run.journal.step
    for _ in range(2):  # killed before an update, it begins again
        branch.algorithm.restore(state)
    branch.update("one")
    file = tmp_path / "branch/playbook.jsonl"
    assert [entry.text for entry in read(file).entries] == branch.rules
    assert len(branch.events("start")) == 1
    first.algorithm.restore(state)
    assert first.events("start") == []
