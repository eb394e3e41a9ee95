"""What counts as what an environment says between two turns. Anything else is refused with the reason."""

from collections.abc import Mapping, Sequence

from resd.task import Following, is_message
from resd.types import Messages, Problem, Turn, UserError
from resd.verdict import readable

ROLES = ("user", "tool")
SHOWN = 80  # characters of what was said


def heard(given: object) -> Messages:
    """Messages of texts that can be encoded. Raises UserError if it is none."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise UserError(f"follow returned {given!r:.{SHOWN}}, not a list of messages (an empty one when it is over)")
    return [_message(each) for each in given]


def _message(given: object) -> Mapping[str, str]:
    if not is_message(given) or given["role"] not in ROLES:
        raise UserError(f"follow returned {given!r:.{SHOWN}}, not a message with the role user or tool and a content")
    return {key: readable(value) for key, value in given.items()}


def replayed(task: Following, problem: Problem, turns: Sequence[Turn]) -> list[str]:
    """The replies of these turns. Raises UserError if the environment does not say again what it said to them.

    Of a conversation that grows turn by turn, only the last answer is asked for again.
    """
    replies = [turn.reply for turn in turns]
    if len(turns) > 1 and (now := heard(task.follow(problem, replies[:-1]))) != list(turns[-2].heard):
        before = " ".join(message["content"] for message in turns[-2].heard)
        after = " ".join(message["content"] for message in now)
        raise UserError(
            f"to the same replies it said {before!r:.{SHOWN}} at first and {after!r:.{SHOWN}} when asked again: what "
            "follow returns may depend on the problem and the replies alone"
        )
    return replies
