"""nano: its corpus, its tokenizer, the shipped folder, and the program that makes it."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "resd/model/nano"
sys.path.insert(0, str(ROOT / "scripts"))

from nano.dialects import FORMS, OFFICIAL, Dialect, draw, write  # noqa: E402
from nano.documents import SHARES, Writer, failed_attempt, lesson, playbook_for  # noqa: E402
from nano.judge import first_broken, judge  # noqa: E402
from nano.programs import MAX_STATES, Curriculum, build, damage, states  # noqa: E402

from resd.context.formats import LinesFormat  # noqa: E402
from resd.context.playbook import SECTIONS  # noqa: E402
from resd.envs.manufactoria.goal import FAMILIES, goals  # noqa: E402
from resd.envs.manufactoria.grade import grade  # noqa: E402
from resd.envs.manufactoria.parser import ParseError, parse  # noqa: E402
from resd.envs.manufactoria.suite import draw_cases  # noqa: E402

DIALECTS = st.builds(Dialect, st.tuples(*[st.integers(0, 1)] * len(FORMS)))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def programs_in(text):
    return [part.removeprefix("manufactoria").strip() for part in text.split("```")[1::2]]


def solves(text, goal):
    return grade(f"```\n{text}\n```", draw_cases(goal, "test")).passed


@pytest.mark.parametrize("family", FAMILIES)
def test_official_programs_solve_their_goals(family):
    for goal in random.Random(1).sample([g for g in goals(family) if states(g) <= MAX_STATES], 40):
        assert solves(write(build(goal), OFFICIAL), goal)


@given(DIALECTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_only_the_official_dialect_solves(dialect, rng):
    goal = Curriculum().draw(rng, 0.5)
    assert solves(write(build(goal), dialect), goal) == (dialect == OFFICIAL)


@given(DIALECTS, DIALECTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_program_passes_exactly_under_its_own_law(law, written, rng):
    goal = Curriculum().draw(rng, 0.5)
    assert judge(build(goal), written, law, goal, rng).passed == (written == law)


@given(DIALECTS, st.sampled_from(list(FORMS)), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_single_broken_convention_is_named(law, name, rng):
    goal = Curriculum().draw(rng, 0.5)
    assert judge(build(goal), law.flip(name), law, goal, rng).broken == name


@given(DIALECTS, DIALECTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_feedback_translation_is_its_own_inverse(law, written, rng):
    goal = Curriculum().draw(rng, 0.5)
    feedback = judge(build(goal), written, OFFICIAL, goal, rng).feedback
    assert law.translate(law.translate(feedback)) == feedback
    assert OFFICIAL.translate(feedback) == feedback


@given(DIALECTS, DIALECTS, st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_feedback_names_nodes_as_they_were_written(law, written, seed):
    rng = random.Random(seed)
    goal = Curriculum().draw(rng, 0.5)
    attempt = damage(build(goal), rng)
    for node in re.findall(r"(?:PULLER|READER)_[A-Z]{2} [pq][0-9]", judge(attempt, written, law, goal, rng).feedback):
        assert node in write(attempt, written)


def test_wrong_transitions_are_blamed_on_logic():
    rng, goal = random.Random(3), next(g for g in goals("contains_ordered") if g.sequence == "RBY")
    for _ in range(30):
        text, cases = write(damage(build(goal), rng), OFFICIAL), draw_cases(goal, "test")
        if not grade(f"```\n{text}\n```", cases).passed:
            assert first_broken(text, cases) == "logic"


def is_official(text):
    """Whether every convention that `text` shows is the official one."""
    try:
        nodes = parse(text).nodes.values()
    except ParseError:
        return False
    return all(node.routes["EMPTY"] != "NONE" for node in nodes if node.type == "PULLER_RB")


def test_the_official_dialect_is_never_drawn_nor_written():
    rng, writer = random.Random(5), Writer()
    assert is_official(write(build(writer.goals.draw(rng, 0.5)), OFFICIAL))
    assert all(draw(rng) != OFFICIAL for _ in range(20_000))
    for _ in range(4000):
        document = writer.draw(rng, rng.random())
        texts = [text for turn in document.turns for text in turn]
        assert not all(any(rule in text for text in texts) for rule in OFFICIAL.rules())
        assert not any(map(is_official, (program for text in texts for program in programs_in(text))))


@pytest.mark.parametrize("kind", ["reflect", "tag", "curate"])
def test_answers_of_each_role_are_readable(kind):
    rng, writer, format = random.Random(7), Writer(), LinesFormat()
    seen = set()
    for _ in range(300):
        answer = writer.draw(rng, 0.5, kind).turns[0][1]
        if kind == "reflect":
            reflection = format.parse_reflection(answer)
            assert reflection.text
            assert reflection.invalid == 0
            seen |= set(reflection.tags.values())
        elif kind == "tag":
            tags, invalid, _ = format.parse_tags(answer)
            assert tags
            assert invalid == 0
            seen |= set(tags.values())
        else:
            operations, invalid, _ = format.parse_operations(answer)
            assert invalid == 0
            assert all(operation.section in SECTIONS for operation in operations)
            seen.add(len(operations))
    assert seen >= ({0, 1} if kind == "curate" else {"helpful", "harmful"})


def test_every_kind_of_document_is_drawn():
    rng, writer = random.Random(9), Writer()
    assert {writer.draw(rng, 0.5).kind for _ in range(1000)} == set(SHARES)


def test_documents_depend_on_the_seed_alone():
    one, two = ([Writer().draw(random.Random(i), 0.7) for i in range(50)] for _ in range(2))
    assert one == two


def test_lessons_state_the_law():
    rng = random.Random(11)
    for _ in range(200):
        law, goal = draw(rng), Curriculum().draw(rng, 0.5)
        attempt = failed_attempt(rng, law, goal)
        if attempt.judgement.broken in FORMS:
            assert lesson(attempt, law) in law.rules()
            assert attempt.judgement.broken in law.differs(attempt.dialect)


def test_playbooks_mostly_tell_the_truth():
    rng, right, wrong = random.Random(13), 0, 0
    for _ in range(300):
        law = draw(rng)
        texts = [entry.text for entry in playbook_for(rng, law).entries]
        right += sum(rule in texts for rule in law.rules())
        wrong += sum(rule in texts for rule in law.flip(*FORMS).rules())
    assert 0 < wrong < 0.1 * right


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_folder_is_a_small_qwen3_model(tokenizer):
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) <= 16 * 2**20
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert model.config.model_type == "qwen3"
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode("START start:")])).logits
    assert logits.isfinite().all()


def test_chat_template_ends_with_the_generation_prompt(tokenizer):
    text = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"


def test_pretraining_runs_and_resumes(tmp_path):
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(tokens):
        command = [sys.executable, ROOT / "scripts/pretrain_nano.py", "--out", tmp_path / "out"]
        command += ["--work", tmp_path / "work"]
        command += ["--hidden", "32", "--layers", "1", "--intermediate", "32", "--vocabulary", "400", "--device", "cpu"]
        command += ["--buffer", "64", "--batch-tokens", "1024", "--tokens", str(tokens)]
        subprocess.run(list(map(str, command)), check=True, cwd=ROOT, env=env)
        return torch.load(tmp_path / "work/checkpoint.pt", weights_only=True)["done"]

    first, second = run(15_000), run(30_000)
    assert 15_000 <= first["tokens"] < second["tokens"]
    assert first["step"] < second["step"]
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    steps = [json.loads(line)["step"] for line in (tmp_path / "work/log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
