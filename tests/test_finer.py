"""FiNER: reading rows, prompts, scoring by position, what feedback tells, and whole runs."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from test_train import SMALL, finish, metrics
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.config import CONF, validate
from resd.envs import finer
from resd.envs.finer import Batch, Entity, FeedbackKind, Finer, grade, make_batches
from resd.task import Task
from resd.train import train
from resd.types import UserError

DATA = Path(__file__).resolve().parents[2] / "shared/data"
needs_data = pytest.mark.skipif(not (DATA / "finer_500.jsonl").is_file(), reason="the shared data is not there")
TAGS = ("Assets", "Cash", "Debt", "Goodwill", "Rent")


def cases(*tags: str) -> list[dict[str, str]]:
    return [{"entity": f"{number}.5", "tag": tag} for number, tag in enumerate(tags)]


def row(*pairs: tuple[str, str]) -> dict[str, str]:
    """A row in the released columns that asks for the tags of numbers."""
    questions = [f'{n}. Which tag has entity "{n}7" in sentence: "Of {n}7 {w} .?"' for n, (w, _) in enumerate(pairs, 1)]
    context = f"Choose among the options: ,{','.join(TAGS)}. Name them.\n" + "\n".join(questions) + "\nTags:"
    return {"context": context, "target": ",".join(tag for _, tag in pairs)}


def write(folder: Path, train: Sequence[Any], test: Sequence[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def small(folder: Path) -> Path:
    """Eight training rows and three test rows."""
    train = [row(("bread", "Cash"), (f"stone {n}", "Debt"), ("tin", "Rent"), ("oil", TAGS[n % 5])) for n in range(8)]
    return write(folder, train, [row((f"wood {n}", "Debt"), ("wool", "Rent")) for n in range(3)])


# ----------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("<answer>Cash,Debt,Debt,Rent</answer>", 4),
        ("<answer> cash, DEBT ,debt,\nRent </answer>", 4),
        ("<answer>Cash,Debt,Debt,Rent,Rent</answer>", 4),  # what is too much is cut
        ("<answer>Cash,Debt</answer>", 2),  # what is missing is wrong
        ("<answer>Debt,Cash,Debt,Rent</answer>", 2),
        ("<answer>Rent,Cash,Debt,Debt</answer>", 1),
        ("<answer></answer>", 0),
        ("<answer>Cash;Debt;Debt;Rent</answer>", 0),
        ("<answer>Rent</answer> no: <answer>Cash,Debt,Debt,Rent</answer>", 4),
        ("<answer>Cash,Debt,Debt,Rent</answer> no: <answer>Rent</answer>", 0),
        ("<answer>open <answer>Cash,Debt,Debt,Rent</answer></answer>", 4),
        ("<think><answer>Rent</answer></think><answer>Cash,Debt,Debt,Rent</answer>", 4),
        ("<answer>Rent</answer></think><answer>Cash,Debt,Debt,Rent</answer>", 4),
        ("<answer>Cash,Debt,Debt,Rent</answer><think>hm</think>", 4),
        ("<answer>__import__('os').abort(),Debt,Debt,Rent</answer>", 3),  # compared, not evaluated
    ],
)
def test_tags_are_compared_by_position(response: str, right: int) -> None:
    gold = cases("Cash", "Debt", "Debt", "Rent")
    dense, sparse = grade(response, gold), grade(response, gold, reward="sparse")
    assert (dense.cases_passed, dense.cases_total, dense.passed) == (right, 4, right == 4)
    assert (dense.reward, sparse.reward) == (right / 4, float(right == 4))
    assert bool(dense.feedback) == (right < 4)
    assert dense.error is None


@pytest.mark.parametrize(
    "response",
    [
        *("Cash,Debt", "<answer>Cash,Debt", ""),
        "<think><answer>Cash,Debt</answer></think> I am sure",
        "<think>Is it <answer>Cash,Debt</answer>? It may",
    ],
)
def test_without_tags_there_is_no_answer(response: str) -> None:
    verdict = grade(response, cases("Cash", "Debt"))
    assert (verdict.reward, verdict.answer, verdict.error) == (0.0, None, "no_answer")
    assert "<answer>" in verdict.feedback
    assert grade(response, cases("Cash", "Debt"), truncated=True).error == "truncated"


@given(st.lists(st.sampled_from(TAGS), min_size=1, max_size=6), st.lists(st.sampled_from(TAGS), max_size=8))
def test_the_score_is_the_share_of_agreeing_positions(gold: list[str], given_tags: list[str]) -> None:
    verdict = grade(f"<answer>{', '.join(given_tags)}</answer>", cases(*gold))
    agreeing = sum(a == b for a, b in zip(gold, given_tags, strict=False))
    assert verdict.case_fraction == verdict.reward == agreeing / len(gold)
    assert verdict.passed == (given_tags[: len(gold)] == gold)


# ---------------------------------------------------------------------------------------------------- feedback


def test_each_level_of_feedback_tells_what_it_promises() -> None:
    gold = cases("Cash", "Debt", "Goodwill", "Rent")
    texts = {kind: grade("<answer>Cash,Rent,Rent</answer>", gold, feedback=kind).feedback for kind in LEVELS}
    assert "Cash,Debt,Goodwill,Rent" in texts["gold"]
    assert texts["none"] == ""
    for kind in ("gold", "per_entity", "count"):
        assert "1 of 4 tags are right" in texts[kind]
        assert "3 parts" in texts[kind]
    for kind in ("per_entity", "count"):
        assert not {"Debt", "Goodwill"} & set(texts[kind].replace(",", " ").split())
    lines = texts["per_entity"].splitlines()[1:]
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["right.", "wrong.", "wrong.", "wrong."]
    assert [gold[i]["entity"] in lines[i] for i in range(4)] == [True] * 4


LEVELS: tuple[FeedbackKind, ...] = get_args(FeedbackKind)


@pytest.mark.parametrize("kind", LEVELS)
def test_feedback_ends_with_success_and_begins_with_truncation(kind: FeedbackKind) -> None:
    right, wrong = "<answer>Cash,Debt</answer>", "<answer>Debt,Cash</answer>"
    assert grade(right, cases("Cash", "Debt"), feedback=kind).feedback == ""
    assert grade(right, cases("Cash", "Debt"), truncated=True, feedback=kind).passed
    cut = grade(wrong, cases("Cash", "Debt"), truncated=True, feedback=kind).feedback
    assert ("cut off" in cut, "Cash" in cut) == (kind != "none", False)


# ------------------------------------------------------------------------------------------------------- data


def test_rows_that_occur_twice_are_one_problem(tmp_path: Path) -> None:
    once, other = row(("bread", "Cash")), row(("bread", "Debt"))
    problems = Finer(str(write(tmp_path, [], [once, row(("oil", "Rent")), once, other]))).problems("test")
    assert [problem.id for problem in problems] == ["test-0000", "test-0001", "test-0003"]


def test_prompts(tmp_path: Path) -> None:
    long = " ".join(f"word{n}" for n in range(30))
    folder = write(tmp_path, [], [row((long, "Cash"), ("oil", "Rent"))])
    texts = {}
    for kind in ("full", "compact", "official"):
        task = envs.load("finer", source=str(folder), prompt=kind)
        assert isinstance(task, Task)
        (message,) = task.prompt(task.problems("test")[0])
        texts[kind] = message["content"]
        assert "17" in texts[kind]
        assert "<answer>" in texts[kind]
        assert (", ".join(TAGS) in texts[kind]) == (kind == "full")
    assert ("word29" in texts["full"], "word29" in texts["compact"]) == (True, False)
    assert ".?" not in texts["full"]
    assert json.loads((folder / "test.jsonl").read_text())["context"] in texts["official"]


BROKEN = {
    "not json": ("{", "line 1 is not JSON"),
    "not an object": ("[1]", "expected an object"),
    "no target": (json.dumps({"context": "x"}), "context and target must be texts"),
    "target too short": (json.dumps(row(("oil", "Rent"), ("tin", "Cash")) | {"target": "Rent"}), "2 questions"),
    "no questions": (json.dumps(row(("oil", "Rent")) | {"context": "options: A,B. Name them."}), "0 questions"),
    "no options": (json.dumps(row(("oil", "Rent"))).replace("options", "things"), "must list the tags"),
    "empty": ("", "has no test rows"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_said_in_one_sentence(case: str, tmp_path: Path) -> None:
    text, says = BROKEN[case]
    (tmp_path / "test.jsonl").write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        Finer(str(tmp_path)).problems("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"source": "nowhere"}, {"prompt": "long"}, {"feedback": "all"}, {"reward": "x"}, {"prompt": "official"}]
)
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UserError):
        envs.load("finer", **options)


def test_rows_are_made_from_tagged_sentences() -> None:
    names = ["O", "B-Cash", "I-Cash", "B-Debt"]
    plain = {"tokens": ["No", "number"], "ner_tags": [0, 0]}
    two = {"tokens": ["Of", "5", "million", "owe", "3"], "ner_tags": [0, 1, 2, 0, 3]}
    seen = {"tokens": ["Seen", "9"], "ner_tags": [0, 3]}
    rows = list(make_batches([plain, two, seen, two, plain, two, two], names, 2, avoid={"Seen 9"}))
    cash, debt = Entity("5 million", "Of 5 million owe 3", "Cash"), Entity("3", "Of 5 million owe 3", "Debt")
    assert rows == [Batch(["Cash", "Debt"], [cash, debt, cash, debt])] * 2
    assert list(make_batches([two], names, 1)) == []  # never a part of a row


def test_the_judge_tests_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for reward in ("dense", "sparse"):
        for kind in LEVELS:
            Finer(str(tmp_path), feedback=kind, reward=reward).self_test()  # type: ignore[arg-type]
    monkeypatch.setattr(finer, "tagged", lambda response: response)
    with pytest.raises(UserError, match="judge of finer"):
        Finer(str(tmp_path)).self_test()


def released(folder: Path) -> Path:
    folder.mkdir()
    for split, name in (("train", "finer_441"), ("test", "finer_500")):
        (folder / f"{split}.jsonl").symlink_to(DATA / f"{name}.jsonl")
    return folder


@needs_data
def test_the_released_rows(tmp_path: Path) -> None:
    source = str(released(tmp_path / "data"))
    task = Finer(source)
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (441, 499)
    tags = [{case["tag"] for problem in split for case in problem.cases} for split in (train, test)]
    assert [len(found) for found in (*tags, tags[0] | tags[1])] == [137, 132, 139]
    for problem in (*train, *test):
        gold = [case["tag"] for case in problem.cases]
        listed = problem.statement.split("# Tags\n")[1].split("\n")[0].split(", ")
        assert len(listed) == 139
        assert set(gold) <= set(listed)
        assert task.verify(problem, f"<answer>{','.join(gold)}</answer>").passed
        turned = [*gold[1:], gold[0]]
        assert task.verify(problem, f"<answer>{','.join(turned)}</answer>").passed == (turned == gold)
    assert len({problem.statement for problem in Finer(source, prompt="official").problems("test")}) == 499


# ------------------------------------------------------------------------------------------------- whole runs


def test_training_and_evaluation(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    source = released(tmp_path / "data") if DATA.is_dir() else small(tmp_path / "data")
    kept = [a for a in SMALL if not a.startswith(("task", "rollout.max_prompt", "model.max_prompt"))]
    room = ["rollout.max_prompt=700", "model.max_prompt=2200", "evaluation.limit=3"]
    own = [*kept, *room, "task=finer", f"task.options.source={source}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = [f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}", "steps=2"]
        train(validate(compose("config", [*own, *run])))
    rows = metrics(tmp_path / "run")
    assert [row["kind"] for row in rows] == ["eval", "train", "train", "eval"]
    assert all(row.get("rollout/lost", 0) == row.get("eval/too_long", 0) == 0 for row in rows)
    checkpoint = tmp_path / "run/checkpoints/step_000002"
    made = finish([sys.executable, "-m", "resd.evaluate", *own, f"checkpoint={checkpoint}", "samples=2"])
    found = json.loads(made.splitlines()[-1])
    assert found == {name: rows[-1][name] for name in found}
    assert {"eval/per_task/mean@2", "eval/per_case/best@2", "eval/per_case/pooled"} <= found.keys()
