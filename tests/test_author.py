"""Who writes in the student's place: another model with its own chat, or an address. Who was asked what."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from scripted import CUT, SAMPLING, Asked, Engine, Line, World, model_settings, prompt
from stand_in import Server, serve
from test_train import of_kind, run
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.distributed.device_mesh import DeviceMesh
from transformers import PreTrainedTokenizerFast

from resd.address import Address
from resd.model.chat import Chat
from resd.observe.writer import Author
from resd.settings import AuthorSettings, RemoteSettings
from resd.types import UserError

RULE = "check the end"
ROLES = {"reflect", "tag", "curate"}
SCRIPT: dict[str, Line] = {"one": "wrong", "three": "right three", "reflect": "lesson: the student's", "curate": "none"}
WRITES: dict[str, Line] = {"reflect": "lesson: the author's", "tag": "helpful: err-00001", "curate": f"add err: {RULE}"}
SETTINGS = AuthorSettings(path=None, url=None, model=None, max_prompt=900, max_response=77, temperature=0.3, top_p=None)
THINKS = tiny.TEMPLATE.replace("assistant\n", "assistant\n<think>\n")


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


def foreign(folder: Path, template: str = tiny.TEMPLATE) -> Chat:
    """Bytes under other ids than the student's, so that ids which cross over are nonsense."""
    specials = ["<|im_end|>", "<|im_start|>", "<|pad|>", "<|other|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    raw = Tokenizer(models.BPE({c: i for i, c in enumerate([*specials, *alphabet])}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|pad|>")
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|other|>"]})
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    return Chat(model_settings(str(folder)))


@pytest.mark.parametrize("pipelined", [False, True])
def test_another_model_writes_with_its_own_chat(chat: Chat, tmp_path: Path, pipelined: bool) -> None:
    theirs = foreign(tmp_path / "author")
    engine: Any = Engine(theirs, WRITES)
    world = World(
        tmp_path,
        chat,
        "resd",
        SCRIPT,
        author=lambda student: Author(SETTINGS, student.voiced_by(theirs, engine)),
        pipelined=pipelined,
    )
    attempt, _ = world.update("one", "three")
    assert {asked.role for asked in world.engine.asked} == {"try"}
    assert [asked.role for asked in engine.asked] == ["reflect", "curate"]
    assert engine.asked[0].text == prompt("one", "", "wrong", "one is not wrong", ending="write the lesson")
    assert_limits(engine.asked)
    assert world.teacher(attempt) == prompt("one", f"err-00001: {RULE}", "wrong", "one is not wrong", "the author's")
    assert attempt.prompt_ids == chat.ids(attempt.prompt)
    engine.asked.clear()
    world.update("three")
    assert [asked.role for asked in engine.asked] == ["tag"]
    assert world.counters() == {RULE: (1, 0)}


def assert_limits(asked: list[Asked]) -> None:
    """Its own where it has some, the algorithm's else."""
    for request in (each.request for each in asked):
        assert (request.max_tokens, request.temperature, request.top_p) == (77, 0.3, SAMPLING.top_p)


def test_the_thinking_of_either_stays_its_own(chat: Chat, tmp_path: Path) -> None:
    """A template that opens thinking may be the author's or the student's; what is read is what was said after it."""
    lesson = "lesson: about it"
    for name, students, authors, said in [
        ("author", tiny.TEMPLATE, THINKS, f"thought</think>{lesson}"),
        ("student", THINKS, tiny.TEMPLATE, lesson),
        ("both", THINKS, THINKS, f"thought</think>{lesson}"),
    ]:
        ours, theirs = foreign(tmp_path / f"{name}_s", students), foreign(tmp_path / f"{name}_a", authors)
        engine: Any = Engine(theirs, {"reflect": [said, "lesson: cut in thought" if authors == THINKS else "<think>x"]})
        script: dict[str, Line] = {"one": "x</think>wrong" if students == THINKS else "wrong"}
        world = World(
            tmp_path,
            ours,
            "resd",
            script,
            author=lambda student, theirs=theirs, engine=engine: Author(SETTINGS, student.voiced_by(theirs, engine)),
        )
        [attempt] = world.update("one")
        assert attempt.reflection
        assert (name, attempt.reflection.text) == (name, "about it")
        [attempt] = world.update("one")
        assert not (attempt.reflection and attempt.reflection.text)
        assert world.metrics["reflect/thinking_cut"] == 1


def completions(lines: dict[str, Any]) -> Any:
    """Answers by role, which the end of a question tells."""

    def answer(path: str, body: dict[str, Any]) -> Any:
        assert path == "/v1/chat/completions"
        text = body["messages"][-1]["content"]
        role = next(role for ending, role in ENDINGS.items() if text.endswith(ending))
        line = lines[role]
        reason = "length" if line.endswith(CUT) else "stop"
        return {"choices": [{"message": {"content": line.removesuffix(CUT)}, "finish_reason": reason}]}

    return answer


ENDINGS = {"write the lesson": "reflect", "tag the rules": "tag", "add new rules": "curate"}


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Server(completions(dict(WRITES)))) as running:
        yield running


def at(server: Server) -> Any:
    there = Address("author", server.url, "served", RemoteSettings(timeout=5, retries=1, at_once=2))
    return lambda _: Author(SETTINGS, there)


@pytest.mark.parametrize("pipelined", [False, True])
def test_an_address_writes(chat: Chat, tmp_path: Path, server: Server, pipelined: bool) -> None:
    world = World(tmp_path, chat, "resd", SCRIPT, author=at(server), pipelined=pipelined)
    attempt, _ = world.update("one", "three")
    assert {asked.role for asked in world.engine.asked} == {"try"}
    (_, reflected), (_, curated) = server.asked
    question = prompt("one", "", "wrong", "one is not wrong", ending="write the lesson")
    assert reflected["messages"] == [{"role": "user", "content": question}]
    limits = {name: reflected[name] for name in ("model", "max_tokens", "temperature", "top_p")}
    assert limits == {"model": "served", "max_tokens": 77, "temperature": 0.3, "top_p": SAMPLING.top_p}
    assert reflected["seed"] != curated["seed"]
    assert "response_format" not in reflected  # the line format has no schema
    assert world.teacher(attempt) == prompt("one", f"err-00001: {RULE}", "wrong", "one is not wrong", "the author's")
    assert world.metrics["reflect/lost"] == world.metrics["reflect/retried"] == world.metrics["curate/lost"] == 0


def test_an_address_cuts_off_as_an_engine_does(chat: Chat, tmp_path: Path, server: Server) -> None:
    server.answer = completions({**WRITES, "reflect": f"lesson: whole\nlesson: and then and then{CUT}"})
    world = World(tmp_path, chat, "resd", SCRIPT, author=at(server))
    [attempt] = world.update("one")
    assert attempt.reflection
    assert attempt.reflection.text == "whole"
    assert (world.metrics["reflect/cut"], world.metrics["reflect/invalid"]) == (1, 0)


def test_what_an_address_does_not_write_is_counted_and_said(
    chat: Chat, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    for fault, reason, retried in [
        ((400, {}, b'{"error": {"message": "no such schema"}}'), "status 400: no such schema", 0),
        (silent, "an answer without a text (finish_reason length)", 0),
        ({"choices": []}, "not what a chat completion looks like", 0),
        ((200, {}, b'{"choices": [{"mess'), "half an answer", 0),
        ((503, {"Retry-After": "0"}, b""), "status 503, 2 tries", 1),
    ]:
        told: list[str] = []
        world = World(tmp_path, chat, "resd", SCRIPT, author=at(server))
        monkeypatch.setattr(world.run.journal.log, "say", told.append)
        server.faults = [fault, fault] if retried else [fault]
        [attempt] = world.update("one")
        assert attempt.reflection is None
        assert (world.metrics["reflect/lost"], world.metrics["reflect/retried"]) == (1, retried)
        assert f"1 x reflect/lost (reflections that the author did not write): {reason}" in told[0]
        assert world.teacher(attempt) is not None  # its feedback still teaches


def test_a_thinking_student_reads_what_an_address_said(tmp_path: Path, server: Server) -> None:
    world = World(tmp_path, foreign(tmp_path / "s", THINKS), "resd", {"one": "x</think>wrong"}, author=at(server))
    for said, heard in [("lesson: plain", "plain"), ("<think>a</think>lesson: b", "b"), ("a</think>lesson: c", "c")]:
        server.answer = completions({**WRITES, "reflect": said})
        [attempt] = world.update("one")
        assert attempt.reflection
        assert attempt.reflection.text == heard
    server.answer = completions({**WRITES, "reflect": "<think>lesson: never"})
    world.update("one")
    assert world.metrics["reflect/thinking_cut"] == 1


RUN = ["evaluation.before=false", "evaluation.every=0", "evaluation.limit=1", "steps=1"]


def test_a_schema_goes_with_the_question(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, server: Server) -> None:
    """A whole run whose author is at an address, in the JSON format."""
    lesson = {"mistake": "m", "cause": "c", "remedy": "r", "lesson": "the author's", "tags": []}
    added = {"reason": "x", "operations": [{"type": "add", "section": "strategies", "text": RULE}]}

    def answer(path: str, body: dict[str, Any]) -> Any:
        schema = body["response_format"]["json_schema"]
        text = json.dumps(lesson if schema["name"] == "reflect" else added)
        return {"choices": [{"message": {"content": text}}]}

    server.answer = answer
    settings = [f"author.url={server.url}", "model.prompts=full", "model.output_format=json", "model.max_prompt=3000"]
    [row] = of_kind(run(tiny_model, tmp_path, *RUN, *settings), "train")
    assert (row["reflect/lost"], row["reflect/invalid"], row["playbook/size"]) == (0, 0, 1)
    assert {body["response_format"]["json_schema"]["name"] for _, body in server.asked} == {"reflect", "curate"}
    assert server.asked[0][1]["response_format"]["json_schema"]["schema"]["required"] == list(lesson)
    assert (tmp_path / "attempts/step_000001.jsonl").read_text().count("Lesson: the author's") >= 4


def test_a_folder_writes_and_is_never_given_other_weights(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    """The student's own weights as author write what the student would have written in the first update, no other."""
    texts: dict[str, list[list[str]]] = {}
    wanted = [*RUN, "steps=2", "optimizer.lr=0.1", "rollout.max_response=20", "optimizer.warmup=1", "batch_size=2"]
    wanted += ["algorithm.writing.max_response=200"]  # noise that holds whole lines, for what is cut off does not count
    for name, more in [("self", []), ("author", [f"author.path={tiny_model}"])]:
        run(tiny_model, tmp_path / name, *wanted, *more)
        texts[name] = [reflections(tmp_path / name, step) for step in (1, 2)]
    assert texts["author"][0] == texts["self"][0] != ["", ""]
    assert texts["author"][1] != texts["self"][1]


def reflections(run_dir: Path, step: int) -> list[str]:
    lines = map(json.loads, (run_dir / f"attempts/step_{step:06d}.jsonl").read_text().splitlines())
    return [line["reflection"]["text"] for line in lines]


def test_impossible_authors_are_refused(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, server: Server) -> None:
    (tmp_path / "empty").mkdir()
    for i, (overrides, said) in enumerate(
        [
            (["author.url=http://127.0.0.1:9/v1"], "author.url=http://127.0.0.1:9/v1 does not answer"),
            ([f"author.url={server.url}", f"author.path={tiny_model}"], "name two authors"),
            ([f"author.path={tmp_path / 'empty'}"], f"author.path={tmp_path / 'empty'}"),
            ([f"author.path={tiny_model}", "author.max_prompt=9000"], "do not fit into the 4096"),
            (["author.url=ftp://x/v1"], "is no address"),
        ]
    ):
        with pytest.raises(UserError) as caught:
            run(tiny_model, tmp_path / str(i), *RUN, *overrides)
        assert said in str(caught.value)
        assert not (tmp_path / str(i) / "metrics.jsonl").exists()
