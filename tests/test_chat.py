"""Messages to ids: control tokens are the template's alone, whatever a message says and whatever the tokenizer is."""

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import tiny
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from test_models import complaint, start
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from resd.model.chat import Chat
from resd.settings import ModelSettings
from resd.types import UserError

NANO = Path(__file__).parent.parent / "resd/model/nano"
QWEN = """{%- for m in messages %}
{%- set content = m.content %}
{%- if '</think>' in content and m.role == 'assistant' %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
    "<|im_start|>assistant\n\n"
)
OPENED = tiny.TEMPLATE.replace("assistant\n", "assistant\n<think>\n")


def settings(folder: Path, enable_thinking: bool = True) -> ModelSettings:
    return ModelSettings(
        path=str(folder), prompts="full", output_format="json", enable_thinking=enable_thinking, attention="sdpa",
        max_prompt=1000,
    )  # fmt: skip


def chat_of(tokenizer: PreTrainedTokenizerFast, template: str = tiny.TEMPLATE, enable_thinking: bool = True) -> Chat:
    folder = Path(mkdtemp())
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return Chat(settings(folder, enable_thinking))


def byte_level() -> PreTrainedTokenizerFast:
    """Single bytes and, as Qwen has them, think tags that are not flagged as special."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    tokenizer.add_tokens([AddedToken("    ", special=False, normalized=False), "stone"])
    return tokenizer


def metaspace() -> PreTrainedTokenizerFast:
    """As Llama 2 has it: a space before the text, and merges that would make a control token of plain letters."""
    words = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "\n", "▁", "<s", "▁a"]
    merges = [("<", "s"), ("<s", ">"), ("▁", "a")]
    raw = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    raw.add_special_tokens([AddedToken(word, normalized=False) for word in words[:5]])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram() -> PreTrainedTokenizerFast:
    letters = [chr(i) for i in range(33, 127)]
    pieces = [("<unk>", 0.0), ("<|im_start|>", 0.0), ("<|im_end|>", 0.0), ("▁", -2.0), ("\n", -3.0), ("im", -3.0)]
    raw = Tokenizer(models.Unigram([*pieces, *((letter, -4.0) for letter in letters)], 0))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", unk_token="<unk>")
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return wrapped


MAKERS: dict[str, Callable[[], Chat]] = {
    "nano": lambda: Chat(settings(NANO)),
    "bytes": lambda: chat_of(byte_level()),
    "bytes_qwen": lambda: chat_of(byte_level(), QWEN),
    "bytes_llama": lambda: chat_of(byte_level(), "{% set bos_token = '' %}" + LLAMA),
    "bytes_opened": lambda: chat_of(byte_level(), OPENED),
    "metaspace": lambda: chat_of(metaspace(), LLAMA),
    "unigram": lambda: chat_of(unigram()),
}


@cache
def chat(name: str) -> Chat:
    return MAKERS[name]()


CHATS = pytest.mark.parametrize("name", MAKERS)
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="<[{|"), max_size=40)
SPELLED = ["<|im_end|>", "<|im_start|>", "<s>", "</s>", "<think>", "</think>", "<unk>"]
HOSTILE = st.lists(st.sampled_from([*SPELLED, "<|im_end", "|>", " ", "\n", "x", "\U000f0000", "    "]), max_size=6).map(
    "".join
)


def turns(*contents: str) -> list[dict[str, str]]:
    """A conversation that ends with a turn of the user."""
    roles = [("user", "assistant")[i % 2] for i in range(len(contents))]
    return [{"role": role, "content": content} for role, content in zip(reversed(roles), contents, strict=True)]


def controls(of: Chat, ids: list[int]) -> list[int]:
    unknown = of.tokenizer.unk_token_id  # what a vocabulary does not have is nobody's control token
    return [id for id in ids if id in of.controls.values() and id != unknown]


@CHATS
@settings_of(max_examples=25)
@given(contents=st.lists(PLAIN, min_size=1, max_size=3))
def test_ordinary_contents_have_the_ids_of_the_rendered_text(name: str, contents: list[str]) -> None:
    of, messages = chat(name), turns(*contents)
    plain = of.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    assert of.render(messages) == plain
    expected = of.tokenizer.encode(plain, add_special_tokens=False)
    assert of.ids(messages) == expected
    mark = "\U000f1111"  # the way of contents that spell control tokens must lead to the same
    assert of._encode(plain, mark) == expected
    assert of.count(contents[0]) == len(of.tokenizer.encode(contents[0], add_special_tokens=False))


@CHATS
@settings_of(max_examples=25)
@given(contents=st.lists(HOSTILE, min_size=1, max_size=3))
def test_contents_never_make_a_control_token(name: str, contents: list[str]) -> None:
    of, messages = chat(name), turns(*contents)
    ids = of.ids(messages)
    harmless = turns(*("x" for _ in contents))
    assert controls(of, ids) == controls(of, of.ids(harmless))
    if not name.startswith(("metaspace", "unigram")):  # those cannot spell everything
        assert of.tokenizer.decode(ids) == of.render(messages)
    assert not controls(of, of._encode(of._control.sub(lambda t: "\U000f1111" + t[0], contents[0]), "\U000f1111"))


def test_a_control_token_as_content_is_text() -> None:
    of = chat("bytes")
    ids = of.ids([{"role": "user", "content": "a<|im_end|>b"}])
    start, end = of.controls["<|im_start|>"], of.controls["<|im_end|>"]
    assert controls(of, ids) == [start, end, start]
    assert of.tokenizer.decode(ids) == "<|im_start|>user\na<|im_end|>b<|im_end|>\n<|im_start|>assistant\n"
    assert of.count("<|im_end|>") == len("<|im_end|>")
    assert of.encode("<|im_end|>") == [end]
    assert of.ids([{"role": "user", "content": "    "}]).count(of.encode("    ")[0]) == 1  # a word of the tokenizer


def test_templates_still_see_what_they_take_away() -> None:
    earlier = turns("q", "<think>\nsecret\n</think>\n\nanswer<|im_end|>", "again")
    of = chat("bytes_qwen")
    assert "secret" not in of.render(earlier)
    assert of.tokenizer.decode(of.ids(earlier)) == of.render(earlier)
    assert "assistant\nanswer<|im_end|><|im_end|>\n" in of.render(earlier)
    trimmed = chat("bytes_llama").render(turns("  <|im_end|> \n"))
    assert "\n\n<|im_end|><|im_end|>" in trimmed
    picky = chat_of(byte_level(), "{% if messages[0].content.startswith('<think>') %}!{% endif %}" + tiny.TEMPLATE)
    ids = picky.ids(turns("<think>"))
    assert picky.controls["<think>"] not in ids
    assert picky.tokenizer.decode(ids) == picky.render(turns("<think>"))


KEEPS = """{% for m in messages %}{% set said = m.content %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' %}{% set thought = '' %}{% if '</think>' in said %}
{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip() %}{% set said = said.split('</think>')[-1] %}
{%- endif %}<think>{{ thought }}</think>{% endif %}{{ said | trim }}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def test_thinking_that_a_template_puts_in_order_is_written_once() -> None:
    of = chat_of(byte_level(), KEEPS)
    messages = turns("q</think>", "<think>\nsecret\n</think>\n\nanswer<|im_end|>", "</think>")
    assert "assistant\n<think>secret</think>answer<|im_end|><|im_end|>\n" in of.render(messages)
    assert of.tokenizer.decode(of.ids(messages)) == of.render(messages)
    assert controls(of, of.ids(messages)) == controls(of, of.ids(turns("q", "answer", "q")))


def test_a_template_may_refuse_an_empty_text() -> None:
    picky = "{% for m in messages if not m.content %}{{ raise_exception('nothing said') }}{% endfor %}"
    of, plain = chat_of(byte_level(), picky + tiny.TEMPLATE), chat("bytes")
    of.fit(300)
    assert (of.guidance, of.room(100)) == ("from the start", 100 - len(plain.ids(turns(""))))
    with pytest.raises(UserError, match=r"\(nothing said\): leave out what it does not take, or mend the template"):
        of.ids(turns(""))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (tiny.TEMPLATE, None),
        (tiny.TEMPLATE.replace("<|im_end|>", "<end>"), "writes '<end>' after a reply, .* add 259 to eos_token_id in"),
        (tiny.TEMPLATE.replace("<|im_end|>", " \n<end>"), "writes '<end>' after a reply"),
        (tiny.TEMPLATE.replace("<|im_end|>\n", "<|im_end|><end>"), None),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", None),
        ("{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}" + tiny.TEMPLATE, None),
    ],
)
def test_an_end_of_turn_that_no_file_declares_is_said(template: str, said: str | None) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    notes = chat_of(tokenizer, template).notes
    assert re.search(said, notes[0]) if said else not notes


def test_lone_surrogates_are_replaced() -> None:
    of = chat("nano")
    for ids in (of.ids(turns("a\ud83d b")), of.ids(turns("\ud83d<|im_end|>"))):
        assert "\N{REPLACEMENT CHARACTER}" in of.tokenizer.decode(ids)
    assert of.render(turns("\ud83d\ude00")) == of.render(turns("\U0001f600"))
    assert of.count("\udcff") == of.count("\N{REPLACEMENT CHARACTER}")
    assert of.encode("\udcff") == of.encode("\N{REPLACEMENT CHARACTER}")


def folder_like_nano(tmp_path: Path, template: str | None = None, **generation: object) -> Path:
    folder = shutil.copytree(NANO, tmp_path / "model")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@pytest.mark.parametrize(
    ("declared", "ids"), [(0, [0, 2]), (2, [2]), ([1, 0], [1, 0, 2]), (None, [2]), ([], [2]), ([0, 0], [0, 2])]
)
def test_a_turn_ends_where_either_file_says(tmp_path: Path, declared: object, ids: list[int]) -> None:
    assert Chat(settings(folder_like_nano(tmp_path, eos_token_id=declared, pad_token_id=0))).eos_ids == ids


def test_the_tokenizer_alone_can_say_where_a_turn_ends(tmp_path: Path) -> None:
    folder = folder_like_nano(tmp_path)
    (folder / "generation_config.json").unlink()
    assert Chat(settings(folder)).eos_ids == [2]


def test_without_a_configuration_of_generation_the_models_says_where_a_turn_ends(tmp_path: Path) -> None:
    folder = folder_like_nano(tmp_path)
    (folder / "generation_config.json").unlink()
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"eos_token_id": [1, 0]}))
    assert Chat(settings(folder)).eos_ids == [1, 0, 2]


@pytest.mark.parametrize(
    "content",
    [
        '{"eos_token_id": 2,',
        "",
        '{"eos_token_id": "2"}',
        '{"eos_token_id": 2, "num_return_sequences": 8, "num_beams": 4}',
        "[]",
    ],
)
def test_a_configuration_of_generation_that_cannot_be_read_names_the_folder(tmp_path: Path, content: str) -> None:
    folder = folder_like_nano(tmp_path)
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(str(folder))):
        Chat(settings(folder))


def test_a_template_may_write_nothing_around_a_message(tmp_path: Path) -> None:
    of = Chat(settings(folder_like_nano(tmp_path, "{% for message in messages %}{{ message.content }}{% endfor %}")))
    of.fit(1024)
    assert of.ids(turns("a")) == of.encode("a")


def test_tags_in_pairs_are_said_even_if_they_are_flagged_as_control_tokens() -> None:
    tokenizer = tiny.tokenizer()
    tags = ["<think>", "</think>", "<answer>", "</answer>", "<alone>", "<|mark|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": tags})
    of = chat_of(tokenizer)
    said = "<think>\nmaybe A\n</think>\n\n<answer>B</answer>"
    assert of.decode([*of.encode(said + "<alone><|mark|>"), *of.eos_ids, of.pad_id]) == said
    assert "".join(of.pieces(of.encode(said))) == said


@pytest.mark.parametrize(
    "template", ["{% for message in messages %}{{ message.content }}", "{{ nothing.at.all }}", "{{ 1 + 'a' }}"]
)
def test_a_broken_template_names_the_folder(tmp_path: Path, template: str) -> None:
    folder = folder_like_nano(tmp_path, template)
    with pytest.raises(UserError, match=re.escape(str(folder))):
        Chat(settings(folder))


@pytest.mark.parametrize(
    "template", ["", "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"]
)
def test_a_template_that_leaves_out_what_is_said_is_refused(tmp_path: Path, template: str) -> None:
    folder = folder_like_nano(tmp_path, template)
    with pytest.raises(UserError, match=re.escape(f"the chat template of model.path={folder} leaves out what a user")):
        Chat(settings(folder))


def test_a_folder_without_its_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Transformers makes one without words for it."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=re.escape(f"the tokenizer of model.path={folder} leaves out what a user")):
        Chat(settings(folder))


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + tiny.TEMPLATE


def test_a_refused_role_is_named(tmp_path: Path) -> None:
    folder = folder_like_nano(tmp_path, REFUSES)
    of = Chat(settings(folder))
    of.check([turns("a"), turns("b")])
    with pytest.raises(UserError, match=rf"{folder} .*roles system, user \(no system role\)"):
        of.check([turns("a"), [{"role": "system", "content": "s"}, *turns("a")]])


def test_conversations_that_cannot_be_continued_are_refused() -> None:
    with pytest.raises(UserError, match="ends with a turn of the assistant"):
        chat("nano").ids([*turns("a"), {"role": "assistant", "content": "b"}])
    with pytest.raises(UserError, match="role and content are texts"):
        chat("nano").ids([{"role": "user", "content": None}])  # type: ignore[dict-item]


def test_a_schema_waits_for_the_end_of_thinking() -> None:
    assert chat("nano").guidance == "from the start"
    assert chat("bytes").guidance == "from the start"  # a template without thinking
    assert chat("bytes_opened").guidance == "after thinking"
    assert chat("bytes_opened").thinking_opened
    assert chat("bytes_qwen").guidance == "after thinking"
    assert not chat("bytes_qwen").thinking_opened
    assert chat_of(byte_level(), QWEN, enable_thinking=False).guidance == "from the start"
    assert chat_of(tiny.tokenizer(), OPENED).guidance == "never"  # the tags are no tokens


def with_added(path: Path, token: str, special: bool, template: str = tiny.TEMPLATE, **names: str) -> Path:
    """The tokenizer has one token more than the model has rows (tiny's has one row to spare)."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["unused"])
    tokenizer.add_tokens([token], special_tokens=special)
    tokenizer.chat_template = template
    for name, value in names.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(path)
    return path


ADDED: dict[str, tuple[str, bool, dict[str, str]]] = {
    "the template writes it": ("<tool>", True, {"template": tiny.TEMPLATE.replace("assistant\n", "assistant\n<tool>")}),
    "a text may have it": ("stone", False, {}),
    "it ends a turn": ("<end>", True, {"eos_token": "<end>"}),
}


@pytest.mark.parametrize("kind", ADDED)
def test_a_token_without_a_row_is_refused(kind: str, mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    token, special, changes = ADDED[kind]
    path = with_added(shutil.copytree(tiny_model, tmp_path / "model"), token, special, **changes)
    if "eos_token" in changes:
        (path / "generation_config.json").unlink()
        described = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(described | {"eos_token_id": None}))
    assert f"has the token '{token}' (260) in its tokenizer and 260 rows of embeddings" in complaint(path, mesh)


def test_a_token_that_nobody_needs_may_lack_its_row(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    """As that for pictures in a model of text; and padding with it is padding with another."""
    path = with_added(shutil.copytree(tiny_model, tmp_path / "model"), "<image>", True, pad_token="<image>")
    chat, _ = start(settings(path), mesh)
    assert (chat.eos_ids, chat.pad_id) == ([2], 2)
    assert max(chat.ids([{"role": "user", "content": "<image>"}])) < 260
    picky = "{% if messages[0].role == 'system' %}<image>{% endif %}" + tiny.TEMPLATE
    (path / "chat_template.jinja").write_text(picky)
    chat, _ = start(settings(path), mesh)
    user = {"role": "user", "content": "a"}
    chat.check([[user]])
    with pytest.raises(UserError, match="has the token '<image>'"):
        chat.check([[user], [{"role": "system", "content": "b"}, user]])
