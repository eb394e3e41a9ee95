"""Whether another model can teach this one: they must mean the same by the same token ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resd.model import files
from resd.model.chat import Chat
from resd.model.load import read_config
from resd.settings import ModelSettings
from resd.types import UserError

FOREIGN = 0.01  # share of words that only one of two related tokenizers may have: added special tokens


@contextmanager
def named_teacher() -> Iterator[None]:
    """What is wrong with a model's folder is said of the setting that names the teacher's."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("model.path=", "algorithm.teacher.path=")) from None


def check_vocabulary(student: Chat, teacher: ModelSettings, words: int) -> None:
    """Raises UserError if the tokenizers differ, the teacher's table has fewer than the student's `words`, or its
    folder lacks weights."""
    has = read_config(teacher)["vocab_size"]
    if Path(teacher.path).is_dir() and (problem := files.problem_of_weights(Path(teacher.path))):
        raise UserError(f"model.path={teacher.path} {problem}")
    ours = {id: token for token, id in student.tokenizer.get_vocab().items()}
    theirs = {id: token for token, id in Chat(teacher).tokenizer.get_vocab().items()}
    other = next((id for id in sorted(ours.keys() & theirs.keys()) if ours[id] != theirs[id]), None)
    remedy = "choose a teacher of the student's family"
    if other is not None:
        raise UserError(
            f"model.path={teacher.path} has another vocabulary: token {other} is {theirs[other]!r} there and "
            f"{ours[other]!r} here; {remedy}"
        )
    if len(ours.keys() ^ theirs.keys()) > FOREIGN * len(ours):
        raise UserError(
            f"model.path={teacher.path} has another vocabulary, of {len(theirs)} tokens and not {len(ours)}: {remedy}"
        )
    if has < words:
        raise UserError(f"model.path={teacher.path} has {has} output words, the student {words}: {remedy}")
