"""Self-mined pairs with a scripted model: which attempts become pairs, what a repair reads, and which tokens learn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import CUT, Line, World, model_settings, prompt
from test_config import load
from test_train import metrics, of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd.guard import Guard
from resd.model.chat import Chat
from resd.types import Sample, UserError


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


Make = Callable[..., World]


@pytest.fixture
def world(chat: Chat, tmp_path: Path) -> Make:
    def make(script: dict[str, Line], **changes: Any) -> World:
        lines = {name: list(line) if isinstance(line, list) else line for name, line in script.items()}
        settings = {"group": 3, "mine": 1, "least": 1, "portion": 8, **changes}
        return World(tmp_path, chat, "self_mined_pairs", lines, **settings)

    return make


# A repair's prompt ends like every prompt of the teacher, in "answer".
SCRIPT: dict[str, Line] = {
    "one": ["wrong", "right so", "bad"],
    "two": ["worse", "worse", "worst"],
    "answer": "right at last",
}


def learned(made: World, chat: Chat) -> list[tuple[str, str]]:
    """What each sample reads and learns, in order of both."""
    assert all(sample.demonstrates for sample in made.learned)
    ends = [sample.response_ids[-1] for sample in made.learned]
    assert set(ends) <= set(chat.eos_ids)
    told = [(chat.tokenizer.decode(s.prompt_ids), chat.decode(s.response_ids)) for s in made.learned]
    return sorted((p.rpartition("user\n")[2].partition("<|im_end|>")[0], r) for p, r in told)


ONE = [
    (prompt("one", previous="bad", feedback="one is not bad"), "right so"),
    (prompt("one", previous="wrong", feedback="one is not wrong"), "right so"),
]
TWO = [
    (prompt("two", previous="worse", feedback="two is not worse"), "right at last"),
    (prompt("two", previous="worst", feedback="two is not worst"), "right at last"),
]


def test_a_failure_beside_a_success_and_a_repaired_one_are_learned(world: Make, chat: Chat) -> None:
    made = world(SCRIPT)
    attempts = made.update("one", "two")
    assert made.learned == []
    assert made.asked("try") == ["solve one"] * 3 + ["solve two"] * 3 + [TWO[0][0]]
    repair = attempts[-1]
    assert (repair.parent, repair.response) == (attempts[3], "right at last")
    names = ("pairs/new", "pairs/size", "pairs/right", "pairs/mixed", "train/per_task")
    assert [made.metrics[name] for name in names] == [4, 4, 2, 0.5, 1 / 6]
    assert made.update("one", "two") == []
    assert made.engine.asked == []
    assert learned(made, chat) == sorted(2 * (ONE + TWO))  # four pairs, a batch of eight
    assert {sample.mask for sample in made.learned} == {None}
    assert "train/per_task" not in made.metrics


def test_what_an_update_learns_depends_on_its_number_alone(world: Make, chat: Chat) -> None:
    made = world(SCRIPT, portion=2)
    made.update("one", "two")
    seen = []
    for _ in range(4):
        made.update("one")
        seen.append(learned(made, chat))
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == sorted(ONE + TWO)
    again = world(SCRIPT, portion=2)
    again.algorithm.restore(json.loads(json.dumps(made.algorithm.state())))
    again.run.journal.step = 2
    again.update("two")
    assert learned(again, chat) == seen[1]


def test_what_was_cut_off_fixes_nothing(world: Make) -> None:
    made = world({"one": ["wrong", "right" + CUT, "bad"], "answer": "right" + CUT})
    made.update("one")
    assert made.metrics["pairs/size"] == 0


def test_without_repairs_the_unsolved_give_no_pair(world: Make) -> None:
    made = world(SCRIPT, repairs=0)
    made.update("one", "two")
    assert made.asked("try") == ["solve one"] * 3 + ["solve two"] * 3
    assert made.metrics["pairs/size"] == 2


def test_neither_repair_nor_what_is_learned_reads_feedback_if_it_shall_not(world: Make, chat: Chat) -> None:
    made = world(SCRIPT, feedback=False)
    made.update("one", "two")
    assert made.asked("try")[-1] == prompt("two", previous="worse")
    made.update("one")
    assert {p for p, _ in learned(made, chat)} == {
        prompt(problem, previous=said)
        for problem, said in [("one", "bad"), ("one", "wrong"), ("two", "worse"), ("two", "worst")]
    }


def test_rules_are_in_sight_while_mining_and_not_in_what_is_learned(world: Make, chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "rules.txt").write_text("Begin with right.\n")
    made = world({"answer": ["wrong", "right so", "bad"]}, library=str(tmp_path / "rules.txt"))
    made.update("one")
    assert made.asked("try") == [prompt("one", "err-00001: Begin with right.")] * 3
    made.update("one")
    assert set(learned(made, chat)) == set(ONE)


def test_controls(world: Make, chat: Chat) -> None:
    plain = sorted(2 * [("solve one", "right so")] * 2 + 2 * [("solve two", "right at last")] * 2)
    broken = sorted(2 * [(p, p.partition("previous:\n")[2].partition("\n")[0]) for p, _ in ONE + TWO])
    other = {"right so": "right at last", "right at last": "right so"}
    for control, expected in [
        ("correct", plain),
        ("format", broken),
        ("shuffled", sorted(2 * [(p, other[r]) for p, r in ONE + TWO])),
    ]:
        made = world(SCRIPT, pairs=control)
        made.update("one", "two")
        made.update("one")
        assert (control, learned(made, chat)) == (control, expected)


def test_external_pairs_are_the_task_s_own_solutions_with_a_line_left_out(chat: Chat, tmp_path: Path) -> None:
    told = {"three": "right\nthree", "four": "wrong\nfour"}
    made = World(
        tmp_path, chat, "self_mined_pairs", {}, told=told, mine=1, least=1, portion=1, pairs="external", seed=2
    )
    attempts = made.update("three", "four")
    assert made.engine.asked == []
    assert {attempt.response for attempt in attempts} >= {"right\nthree", "wrong\nfour"}
    broken = next(a for a in attempts if a.problem.id == "three" and not a.passed)
    assert broken.response == "three"
    assert made.metrics["pairs/size"] == 1  # the other solution does not pass
    made.update("three")
    read = prompt("three", previous="three", feedback="three is not three")
    assert learned(made, chat) == [(read, "right\nthree")]


def test_what_was_right_stays_right(world: Make, chat: Chat) -> None:
    made = world(SCRIPT, keep_right=0.25)
    made.update("one", "two")
    made.update("one")
    traces = [
        (prompt("one", previous="right so"), "right so"),
        (prompt("two", previous="right at last"), "right at last"),
    ]
    assert sorted(learned(made, chat)) == sorted(2 * (ONE + TWO) + traces)


def test_the_inside_of_the_last_fence_alone_counts(world: Make, chat: Chat) -> None:
    said = "right: so\n```\nx = 1\n```\nend"
    made = world({"one": ["wrong", said, "bad"]}, part="block")
    made.update("one")
    made.update("one")
    for sample in made.learned:
        assert isinstance(sample, Sample)
        assert sample.mask is not None
        kept = [id for id, counts in zip(sample.response_ids, sample.mask, strict=True) if counts]
        assert chat.decode(kept) == "x = 1\n"


def test_a_pair_that_does_not_fit_is_counted(world: Make) -> None:
    made = world(SCRIPT, repairing__max_prompt=60)
    made.update("one", "two")
    assert made.metrics["pairs/size"] == 2  # a repair does not fit either
    made.update("one")
    assert made.metrics["pairs/too_long"] == 8
    assert made.learned == []


def test_too_few_pairs_end_the_run_and_mining_alone_does_not(world: Make) -> None:
    made = world(SCRIPT, mine=2, least=5)
    guard = Guard(made.run.journal, "stop")
    made.update("one", "two")
    made.run.journal.count("rollout/lost", 1)
    assert guard.check(made.observation) == ""
    assert made.observation.stop == ""
    made.update("one", "two")
    assert made.observation.stop.startswith(
        "4 pairs were found in 2 updates, fewer than algorithm.least=5: mine longer"
    )
    with pytest.raises(UserError, match="none of the 1 updates had anything to learn from"):
        guard.conclude()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (["algorithm.group=1", "algorithm.repairs=0"], "one attempt is no pair"),
        (["algorithm.pairs=borrowed"], "algorithm.pairs"),
        (["algorithm.library=nowhere.txt"], "nowhere.txt cannot be read"),
    ],
)
def test_what_cannot_be_mined_is_refused(override: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load("algorithm=self_mined_pairs", "task=manufactoria", *override).algorithm.check([])


def test_a_run_mines_then_learns(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    """The real program: noise solves nothing, so the solutions of a task are what is learned."""
    settings = ["algorithm=self_mined_pairs", "algorithm.pairs=external", "algorithm.mine=1", "algorithm.least=1"]
    settings += ["task=manufactoria", "task.name=manufactoria", "rollout.max_prompt=4000", "model.max_prompt=4000"]
    run(tiny_model, tmp_path / "run", *settings, "steps=3", "batch_size=2", "evaluation.limit=1")
    rows = of_kind(metrics(tmp_path / "run"), "train")
    assert [row["pairs/size"] > 0 for row in rows] == [True] * 3
    assert [row["grad_norm"] > 0 for row in rows] == [False, True, True]
