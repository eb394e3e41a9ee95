"""A teacher that is another model: what it costs, that no checkpoint keeps it, and what is refused before it is read;
and whole runs of the algorithms that are built on others, resumed in the middle."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_config import load
from test_plan import config, shape
from test_train import metrics, of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd.plan import GB, Room, check, estimate, longest_prompt
from resd.storage.shards import read_metadata
from resd.types import UserError

NANO = "resd/model/nano"
OPD = ("algorithm=opd", f"algorithm.teacher.path={NANO}")
QUICK = ("evaluation.every=1", "evaluation.limit=1", "evaluation.samples=1")


def numbers(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


# ---------------------------------------------------------------------------------------------------- memory plan


def test_the_teacher_s_shards_are_its_own_and_shared() -> None:
    student, teacher = tiny.model(), tiny.model(layers=5)
    settings = config("model=nano", *OPD)
    one, four = (estimate(shape(student), settings, ranks, 0, shape(teacher)).phases["learning"] for ranks in (1, 4))
    assert one["teacher"] == 4 * numbers(teacher) == 4 * four["teacher"]
    assert one["parameters"] == 4 * numbers(student)
    adapted = config("model=nano", *OPD, "model.lora={rank: 2, alpha: 4, targets: [q_proj]}")
    assert estimate(shape(student), adapted, 1, 0, shape(teacher)).phases["learning"]["teacher"] == one["teacher"]


def test_the_teacher_is_counted_where_it_is_read_and_not_where_it_is_saved() -> None:
    student, teacher = shape(tiny.model()), shape(tiny.model(layers=5))
    phases = estimate(student, config("model=nano", *OPD), 1, 0, teacher).phases
    frozen, live = (
        estimate(student, config("model=nano", f"algorithm.teacher.kind={kind}"), 1, 0).phases
        for kind in ("frozen", "live")
    )
    assert phases["loading the teacher"]["the teacher as it is read"] == 4 * teacher.parameters
    assert phases["learning"]["checkpoint"] == live["learning"]["checkpoint"] < frozen["learning"]["checkpoint"]
    assert phases["learning"]["head"] == frozen["learning"]["head"]  # two heads of one width
    assert "loading the teacher" not in frozen


def test_a_teacher_of_its_own_build_is_the_student_s() -> None:
    """What is foreseen for a copy of the student does not depend on how it is told."""
    size = shape(tiny.model())
    settings = config("model=nano", "algorithm.teacher.kind=frozen")
    assert estimate(size, settings, 2, 0) == estimate(size, settings, 2, 0, None)
    gpu = config("model=nano", *OPD, "hardware.offload=teacher")
    cuda = gpu.model_copy(update={"hardware": gpu.hardware.model_copy(update={"device": "cuda"})})
    guess = estimate(size, cuda, 2, 80 * GB, shape(tiny.model(layers=5)))
    assert "teacher" not in guess.phases["learning"]
    assert guess.host[1] > estimate(size, cuda.model_copy(update={"algorithm": settings.algorithm}), 2, 80 * GB).host[1]


def test_a_teacher_beyond_the_machine_is_one_sentence() -> None:
    student = shape(tiny.model())
    teacher = replace(student, layers=200_000)
    settings, room = config("model=nano", *OPD), Room(0, 3 * GB, 3 * GB, 1)
    assert "of 3.0" in check(student, settings, 1, room)
    with pytest.raises(UserError, match=r"teacher [0-9.]+\): take a smaller teacher"):
        check(student, settings, 1, room, teacher)
    assert longest_prompt(student, settings, 1, room) > longest_prompt(student, settings, 1, room, teacher) == 0


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny.save(tmp_path / "teacher", 1)


def describe(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def huge(folder: Path) -> None:
    describe(folder, num_hidden_layers=400, hidden_size=16384, intermediate_size=65536, layer_types=None)


def other_words(folder: Path) -> None:
    file = folder / "tokenizer.json"
    raw = json.loads(file.read_text())
    words = {id: word for word, id in raw["model"]["vocab"].items()}
    words[100], words[101] = words[101], words[100]
    raw["model"]["vocab"] = {word: id for id, word in words.items()}
    file.write_text(json.dumps(raw))


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "other vocabulary": (other_words, r"algorithm\.teacher\.path=\S+ has another vocabulary: token 100 is"),
    "small table": (lambda f: describe(f, vocab_size=250), r"algorithm\.teacher\.path=\S+ has 250 output words"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"algorithm\.teacher\.path=\S+ has no weights"),
    "short context": (
        lambda f: describe(f, max_position_embeddings=64),
        r"do not fit into the 64 of algorithm\.teacher\.path",
    ),
    "too large": (huge, r"a process needs .* take a smaller teacher"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_teacher_that_cannot_teach_is_refused_before_weights_are_read(
    mesh: DeviceMesh, tiny_model: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    spoil, says = BROKEN[case]
    spoil(teacher)
    monkeypatch.setattr("resd.model.build.load_model", lambda settings: pytest.fail("weights were read"))
    with pytest.raises(UserError, match=says) as caught:
        run(tiny_model, tmp_path / "run", "algorithm=opd", f"algorithm.teacher.path={teacher}")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run").rglob("metrics.jsonl"))


def test_weights_that_are_not_those_described_are_the_teacher_s(
    mesh: DeviceMesh, tiny_model: Path, teacher: Path, tmp_path: Path
) -> None:
    file = teacher / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"^algorithm\.teacher\.path=\S+ has weights that are no numbers"):
        run(tiny_model, tmp_path / "run", "algorithm=opd", f"algorithm.teacher.path={teacher}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("algorithm=opd", "write teacher.kind=external and one of teacher.path=…, teacher.url=…, or none of these"),
        ("algorithm=opd algorithm.teacher.path=/nowhere", "algorithm.teacher.path=/nowhere is not a model folder"),
        ("algorithm=opd algorithm.teacher.path=./missing", "algorithm.teacher.path=./missing is not a model folder"),
        (f"algorithm=resd +algorithm.teacher.path={NANO}", "teacher.path=…, teacher.url=…"),
        (
            f"algorithm=opd algorithm.teacher.path={NANO} algorithm.teacher.kind=ema",
            "teacher.path=…, teacher.url=…",
        ),
        ("algorithm=resd algorithm.teacher.kind=external", "teacher.path=…, teacher.url=…"),
        ("algorithm=srpo algorithm.group=1", "srpo compares rollouts of one prompt: write algorithm.group=2 or more"),
        ("algorithm=rlsd algorithm.group=1", "rlsd compares rollouts of one prompt: write algorithm.group=2 or more"),
        ("algorithm=srpo algorithm.context.group=1", "algorithm.context.group=1 is not algorithm.group=8"),
        ("algorithm=rlsd algorithm@algorithm.context=grpo", "rlsd needs a context with a teacher"),
        ("algorithm=srpo algorithm@algorithm.context=grpo", "algorithm.context.objective"),
        ("algorithm=switch algorithm.then.group=1", "write algorithm.then.group=2 or more"),
        ("algorithm=switch algorithm.first.group=16", "write algorithm.first.group=1"),
        ("algorithm=switch algorithm.group=4", "write algorithm.then.group, and leave it out"),
        ("algorithm=rlsd algorithm.clip=1", "algorithm.clip=1"),
        ("algorithm=opsd algorithm.slot=answer", "algorithm.slot=answer"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        load(*words.split())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ["srpo", "rlsd", "opsd", "sdft", "switch"])
@pytest.mark.parametrize("preset", ["default", "paper", "official"])
def test_presets_leave_an_algorithm_its_reduction(algorithm: str, preset: str) -> None:
    settings = load(f"algorithm={algorithm}", f"preset={preset}")
    assert settings.loss.reduction == ("token_mean" if algorithm == "srpo" else "sequence_mean")
    assert settings.loss.importance_cap == 2.0


# ----------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("signal", ["divergence", "sampled"])
def test_no_checkpoint_keeps_the_teacher(
    mesh: DeviceMesh, tiny_model: Path, teacher: Path, tmp_path: Path, signal: str
) -> None:
    words = ["algorithm=opd", f"algorithm.teacher.path={teacher}", f"algorithm.signal={signal}", "steps=1", *QUICK]
    [row] = of_kind(run(tiny_model, tmp_path / "run", *words), "train")
    assert row["grad_norm"] > 0
    folder = tmp_path / "run/checkpoints/step_000001"
    kept = {name.split(".")[0] for name in read_metadata(folder / "state").state_dict_metadata}
    assert kept == {"student", "optimizer"}
    whole = sum(file.stat().st_size for file in folder.rglob("*"))
    words[-4] = "steps=2"
    of_more_layers = tiny.write(tiny.model(1, layers=9), tmp_path / "deep")
    words[1] = f"algorithm.teacher.path={of_more_layers}"  # any other may go on
    rows = of_kind(run(tiny_model, tmp_path / "run", *words), "train")
    assert [row["step"] for row in rows] == [1, 2]
    second = sum(file.stat().st_size for file in (tmp_path / "run/checkpoints/step_000002").rglob("*"))
    assert abs(second - whole) < 0.05 * whole


HALVES = "algorithm.when={passed: 0.0, updates: 2, mixed: 0.0}"  # a switch after two updates, for good
WHOLE = {
    "opd": ["algorithm.signal=sampled"],
    "srpo": ["algorithm.group=2"],
    "rlsd": ["algorithm.group=2", "algorithm@algorithm.context=sdpo", "algorithm.decay=3"],
    "switch": ["algorithm.then.group=2", HALVES],
    "reflect_retry_reward": ["algorithm.group=2"],
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_run_that_was_resumed_ends_the_same(
    mesh: DeviceMesh, tiny_model: Path, teacher: Path, tmp_path: Path, name: str
) -> None:
    words = [
        f"algorithm={name}",
        *WHOLE[name],
        *QUICK,
        *([f"algorithm.teacher.path={teacher}"] if name == "opd" else []),
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    run(tiny_model, one, *words, "steps=3")
    for steps in (1, 3):
        run(tiny_model, two, *words, f"steps={steps}")
    rows = [
        [{k: v for k, v in row.items() if not k.startswith(("time/", "perf/"))} for row in metrics(folder)]
        for folder in (one, two)
    ]
    assert rows[0] == rows[1]
    ends = [folder / "checkpoints/step_000003" for folder in (one, two)]
    weights = [load_file(end / "model/model.safetensors") for end in ends]
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])
    states = [json.loads((end / "state/run.json").read_text())["algorithm"] for end in ends]
    assert states[0] == states[1]
    if name == "switch":
        assert [row["switch/switched"] for row in of_kind(rows[1], "train")] == [0, 0, 1]
        assert states[0]["switched"] is True


def test_the_inner_algorithm_is_part_of_what_a_run_is(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    words = ["algorithm=rlsd", "algorithm.group=2", "steps=1", *QUICK]
    run(tiny_model, tmp_path, *words)
    with pytest.raises(UserError, match=r"holds a run with algorithm\.context\.name=resd, not sdpo"):
        run(tiny_model, tmp_path, *words, "steps=2", "algorithm@algorithm.context=sdpo")
