"""A tokenizer and its chat template: messages to ids, ids to text.

What a message says is text, whatever it spells: only the template writes control tokens. Not covered: images, tools.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NoReturn

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from resd.engine.base import Guidance
from resd.model import marks
from resd.model.load import end_of_turn, read
from resd.settings import ModelSettings
from resd.thinking import CLOSE, OPEN
from resd.types import Messages, UserError

MAX_BYTES = 4  # of a character in UTF-8; tokens that do not make one by then are not text
# Added tokens are control tokens if they are flagged so or look like it (<think>, [INST], <|user|>); others are words.
_TAG = re.compile(r"<(?!0x[0-9A-F]{2}>).+>|\[.+\]|\{.+\}|\|.+\|", re.DOTALL)
_WORD = re.compile(r"</?[A-Za-z_][\w-]*>")
_PRIVATE = range(0xF0000, 0xFFFFE)  # characters without a meaning
_ASKED: Messages = [{"role": "user", "content": "x"}]  # some templates refuse an empty text
_REPLY = "Reply-7f3a."  # in the place of what was said: no template spells it, or changes it


class Chat:
    """Raises UserError when the folder has no usable tokenizer, template or end of turn."""

    def __init__(self, settings: ModelSettings) -> None:
        self.path = settings.path
        self.tokenizer = read(AutoTokenizer, settings.path)
        self.enable_thinking = settings.enable_thinking
        if self.tokenizer.chat_template is None:
            raise UserError(f"model.path={settings.path} has no chat template: add chat_template.jinja to the folder")
        self.rows: int | None = None  # of the model's embeddings
        self.eos_ids = self._end_of_turn()
        self.pad_id: int = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos_ids[0]
        self.controls = {
            token.content: id
            for id, token in self.tokenizer.added_tokens_decoder.items()
            if token.content and (token.special or _TAG.fullmatch(token.content))
        }
        self._silent = self._unspoken()
        longest_first = sorted(map(re.escape, self.controls), key=len, reverse=True)
        beginnings = "".join({re.escape(text[0]) for text in self.controls})
        self._control = re.compile(f"(?=[{beginnings}])(?:{'|'.join(longest_first)})" if longest_first else "(?!)")
        self._twins: dict[str, Tokenizer] = {}
        self.answered_by: set[str] = set()  # roles that `check_turns` has found to be in order
        asked = self.render([{"role": "user", "content": _REPLY}])
        self.thinking_opened = asked.rstrip().endswith(OPEN)
        if _REPLY not in asked or not self.encode(_REPLY):
            what = "chat template" if _REPLY not in asked else "tokenizer"
            raise UserError(
                f"the {what} of model.path={self.path} leaves out what a user says: give that of this model"
            )

    def _end_of_turn(self) -> list[int]:
        """What ends a response: the end tokens of the model's files and of the tokenizer."""
        found: list[Any] = []
        for eos in (end_of_turn(self.path), self.tokenizer.eos_token_id):
            found += eos if isinstance(eos, (list, tuple)) else [eos]
        if wrong := [id for id in found if id is not None and not isinstance(id, int)]:
            raise UserError(f"model.path={self.path} has eos_token_id={wrong[0]!r}: write a whole number, or several")
        ids = list(dict.fromkeys(id for id in found if id is not None and id >= 0))
        if not ids:
            raise UserError(
                f"model.path={self.path} names no end-of-turn token: set eos_token_id in generation_config.json"
            )
        return ids

    def _unspoken(self) -> set[int]:
        """Control tokens that are no part of what a model says: of those flagged so, all but tags in pairs (`<think>`
        and `</think>`, `<answer>` and `</answer>`), which fine-tunes flag although judges and prompts need them."""
        named = {*self.tokenizer.special_tokens_map.values()}  # <s>, </s>, <pad>, ...
        tags = {text for text in self.controls if _WORD.fullmatch(text)} - named
        pairs = [(text, end) for text in tags if (end := f"</{text[1:]}") in tags]
        special = {id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return special - {self.controls[tag] for pair in pairs for tag in pair}

    @property
    def guidance(self) -> Guidance:
        """How to hold an answer to a schema although the model thinks first."""
        if not self.thinking_opened:
            switch = self._apply(_ASKED, enable_thinking=True) != self._apply(_ASKED, enable_thinking=False)
            if not self.enable_thinking or not switch:
                return "from the start"
        return "after thinking" if {OPEN, CLOSE} <= self.tokenizer.get_vocab().keys() else "never"

    def fit(self, rows: int) -> None:
        """Keep to the tokens of which a model with `rows` rows of embeddings has one.

        Raises UserError where a text, the template or the end of a turn needs another one.
        """
        self.rows = rows
        self.eos_ids = [id for id in self.eos_ids if id < rows] or self._refuse(self.eos_ids[0])
        self.pad_id = self.pad_id if self.pad_id < rows else self.eos_ids[0]
        for text, id in self.tokenizer.get_vocab().items():
            if id >= rows and text not in self.controls:
                self._refuse(id)
        self.check([_ASKED])

    def check(self, prompts: Iterable[Messages]) -> None:
        """Raises UserError if the template cannot render a conversation like these: one of each order of roles."""
        examples = {tuple(message["role"] for message in prompt): prompt for prompt in prompts}
        for example in examples.values():
            highest = max(self.ids(example), default=0)
            if self.rows is not None and highest >= self.rows:
                self._refuse(highest)

    def _refuse(self, id: int) -> NoReturn:
        token = self.tokenizer.convert_ids_to_tokens(id)
        raise UserError(
            f"model.path={self.path} has the token {token!r} ({id}) in its tokenizer and {self.rows} rows of "
            "embeddings, none for it: give the tokenizer of this model, or a model that was resized for it"
        )

    def render(self, messages: Messages) -> str:
        """The prompt as text to look at, ending with the generation header. `ids` is what a model reads.

        Raises UserError if the template refuses the messages, or if they end with a turn of the assistant.
        """
        text, mark = self._marked(messages)
        return text.replace(mark, "") if mark else text

    def ids(self, messages: Messages) -> list[int]:
        """The ids of the rendered prompt. Control tokens are the template's; raises as `render` does."""
        return self._encode(*self._marked(messages))

    def between(self, heard: Messages) -> list[int]:
        """The ids that lead from a reply, whose last token ended its turn, over messages to the beginning of the next.

        Raises UserError if the template cannot render such a conversation, or does not end a reply as the model does.
        """
        marked, mark = self._marked(_after_a_reply(heard))
        before, there, _ = marked.partition(_REPLY)
        said, whole = self._encode(before + there, mark), self._encode(marked, mark)
        gap = whole[len(said) :]
        if not there or whole[: len(said)] != said or not {*gap[:1]} & {*self.eos_ids}:
            raise UserError(
                f"the chat template of model.path={self.path} does not end a reply with the model's end of turn: "
                "mend the template, or name its end of turn in generation_config.json"
            )
        return gap[1:]

    @property
    def notes(self) -> list[str]:
        """What is to be said where the template writes a control token after a reply that ends no response."""
        try:
            after = self.render(_after_a_reply(_ASKED)).partition(_REPLY)[2].lstrip()
        except UserError:  # it knows no second turn
            return []
        end = self._control.match(after)
        if end is None or (id := self.controls[end[0]]) in self.eos_ids:
            return []
        return [
            f"the chat template of model.path={self.path} writes {end[0]!r} after a reply, which the model's files do "
            f"not name as an end of turn: if responses go on after it, add {id} to eos_token_id in "
            "generation_config.json"
        ]

    def check_turns(self, prompts: Iterable[Messages], roles: Iterable[str]) -> None:
        """Raises UserError unless a conversation of several turns begins with every shorter one, as ids that go on do:
        a template may drop earlier thinking. One of each order of roles is tried, and answers of these roles."""
        examples = {tuple(message["role"] for message in prompt): prompt for prompt in prompts}
        thinks = self.enable_thinking and CLOSE in str(self.tokenizer.chat_template)
        for asked, role in product(examples.values(), roles):
            heard: Messages = [{"role": role, "content": "Answer-7f3a."}]
            begun = self.render(asked)
            opened = begun[begun.rfind(OPEN) :] if self.thinking_opened else ""
            gap = self.render(_after_a_reply(heard)).partition(_REPLY)[2]
            thought = f"Well.\n{CLOSE}\n\n{_REPLY}"
            replies = [thought] if opened else [_REPLY, f"{OPEN}\n{thought}"] if thinks else [_REPLY]
            for reply in replies:
                turn = [{"role": "assistant", "content": opened + reply}, *heard]
                if self.render([*asked, *turn, *turn]) != begun + 2 * (reply + gap) or heard[0]["content"] not in gap:
                    self._refuse_turns(role)
            if self.rows is not None and (highest := max(self.between(heard))) >= self.rows:
                self._refuse(highest)
            self.answered_by.add(role)

    def _refuse_turns(self, role: str) -> NoReturn:
        raise UserError(
            f"the chat template of model.path={self.path} writes earlier turns otherwise than they were once somebody "
            f"of the role {role} answers, as templates do that drop thinking, so that an attempt of several turns "
            "cannot go on: choose another model.enable_thinking, or another template or model"
        )

    def count(self, text: str) -> int:
        """How many tokens `text` is as the content of a message."""
        text = sound(text)
        mark = self._mark_for([text])
        return len(self._encode(self._control.sub(lambda found: mark + found[0], text), mark))

    def room(self, tokens: int) -> int:
        """How much of that many tokens is left to the text of a single message."""
        return tokens - len(self.ids(_ASKED)) + self.count(_ASKED[0]["content"])

    def encode(self, text: str) -> list[int]:
        """Ids of text in which control tokens are meant; nothing is added."""
        return self.tokenizer.encode(sound(text), add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response, without the end-of-turn token and others that only the template writes."""
        return str(self.tokenizer.decode([id for id in ids if id not in self._silent]))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token. A character of several tokens is the last one's, the others have no text."""
        texts: list[str] = []
        start = 0
        for end in range(1, len(ids) + 1):
            text = self.decode(ids[start:end])
            whole = not text.endswith("\N{REPLACEMENT CHARACTER}") or end - start == MAX_BYTES
            texts.append(text if whole or end == len(ids) else "")
            start = end if whole else start
        return texts

    def _marked(self, messages: Messages) -> tuple[str, str]:
        """The rendered text, and a character that stands in it before each control token that a message spells.

        The character is "" if there is none. A template that treats marked contents otherwise (it may look for tags at
        their beginning) gets them with the mark inside the token, which then means nothing to it; where it puts the
        thinking of an earlier reply in order, the tags around that are its own.
        """
        if not all(isinstance(text, str) for message in messages for text in (message.get("role"), *message.values())):
            raise UserError("a task's prompt must be a list of messages whose role and content are texts")
        messages = [{key: sound(value) for key, value in message.items()} for message in messages]
        if messages and messages[-1]["role"] == "assistant":
            raise UserError("a task's prompt ends with a turn of the assistant: let it end with one of the user")
        text = self._apply(messages)
        mark = self._mark_for([text, *(value for message in messages for value in message.values())])
        if not mark:
            return text, ""
        marked = ""
        for at, own in ((0, ()), (0, (OPEN, CLOSE)), (1, ())):
            marked = self._apply([marks.each_content(message, self._control, mark, at, own) for message in messages])
            if marked.replace(mark, "") == text:
                break
        return marked, mark

    def _mark_for(self, texts: Sequence[str]) -> str:
        """A character that occurs in none of the texts, or "" if they have no control token to mark."""
        if not any(self._control.search(text) for text in texts[1:] or texts):
            return ""
        used = set().union(*texts)
        return next(mark for mark in map(chr, _PRIVATE) if mark not in used)

    def _apply(self, messages: Messages, enable_thinking: bool | None = None) -> str:
        """What the template makes of messages."""
        try:
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self.enable_thinking if enable_thinking is None else enable_thinking,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            roles = ", ".join(message["role"] for message in messages)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"the chat template of model.path={self.path} fails on a conversation with the roles {roles} "
                f"({reason}): leave out what it does not take, or mend the template"
            ) from None

    def _encode(self, marked: str, mark: str) -> list[int]:
        """The ids of text in which the control tokens behind a mark are plain text."""
        if not mark:
            return self.encode(marked)
        known = re.compile(f"({mark})?({self._control.pattern})|{mark}")
        if not isinstance(getattr(self.tokenizer, "backend_tokenizer", None), Tokenizer):
            broken = known.sub(lambda found: marks.broken(found, mark), marked)
            return [id for piece in broken.split(mark) for id in self.encode(piece)]
        aliased = known.sub(lambda found: self._name(found, mark), marked)
        if mark not in self._twins:
            self._twins[mark] = marks.twin(self.tokenizer.backend_tokenizer, self.controls, mark)
        return self._twins[mark].encode(aliased, add_special_tokens=False).ids

    def _name(self, found: re.Match[str], mark: str) -> str:
        plain = found[2] is None or found[1]
        return found[2] or "" if plain else marks.alias(self.controls[found[2]], mark)


def _after_a_reply(heard: Messages) -> Messages:
    return [*_ASKED, {"role": "assistant", "content": _REPLY}, *heard]


def sound(text: str) -> str:
    """`text` with the halves of surrogate pairs joined, and the replacement character for those without the other."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
