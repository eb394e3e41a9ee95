"""A stand-in for a strong author: an address that answers the four questions of Training-Free GRPO without a fault.

    python scripts/scripted_author.py --port 8123 &
    python -m resd.train task=manufactoria algorithm=training_free_grpo author.url=http://127.0.0.1:8123/v1 \
        algorithm.group=4 algorithm.groups=failed algorithm.placement=template batch_size=16 inner_updates=1 steps=3

It looks up which convention of Manufactoria a failed program broke first (`nano.judge`), states that rule, and adds it
to the library if it is not there. So what a run reaches with it is what the loop can reach at best, whoever writes.
With `--spoil P` it spoils what there is: whenever something failed, every rule is dropped or turned into its opposite
with probability P an update.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from nano.dialects import OFFICIAL, RULES
from nano.documents import LESSONS
from nano.judge import FENCE, LOGIC, first_broken

from resd import envs
from resd.envs.manufactoria.grade import extract


@cache
def _cases() -> Mapping[str, Any]:
    """The cases of every training problem, by its statement."""
    return {problem.statement: problem.cases for problem in envs.load("manufactoria").problems("train")}


def summarise(text: str) -> str:
    problem, _, rest = text.removeprefix("Problem: ").partition("\nAttempt, which ")
    outcome, _, rest = rest.partition(": ")
    if outcome.startswith("passed"):
        return "It broke no rule."
    source = extract(rest.rpartition("\nSummarise what")[0])
    statement = max((statement for statement in _cases() if statement in problem), key=len)
    broken = FENCE if source is None else first_broken(source, _cases()[statement])
    return f"It broke: {LESSONS[broken] if broken in LESSONS else OFFICIAL.rule(broken)}"


def compare(text: str) -> str:
    stated = dict.fromkeys(re.findall(r"It broke: (.*)", text))
    conventions = [rule for rule in stated if rule != LESSONS[LOGIC]]
    return "\n".join(f"rule: {rule}" for rule in conventions) or "none"


def decide(text: str) -> str:
    known, _, learned = text.rpartition("\nLearned:\n")
    new = [rule for rule in re.findall(r"^- (.*)", learned, re.MULTILINE) if f": {rule}" not in known]
    return "\n".join(f"add: {rule}" for rule in new) or "none"


def consolidate(text: str) -> str:
    return "\n".join(re.findall(r"^[0-9]+ x (.*)", text, re.MULTILINE)) or "none"


def spoiled(text: str, share: float, turn: int) -> str:
    """Changes to some rules of a text, the same within a turn: half are dropped, half turned into their opposites."""
    opposite = {pair[0]: pair[1] for pair in RULES.values()} | {pair[1]: pair[0] for pair in RULES.values()}
    changes = []
    for id, rule in re.findall(r"^([a-z]+-[0-9]+): (.*)", text, re.MULTILINE):
        lot = Random(f"{id}/{turn}")
        if lot.random() < share:
            drop = lot.random() < 0.5 or rule not in opposite
            changes.append(f"delete {id}" if drop else f"update {id}: {opposite[rule]}")
    return "\n".join(changes)


# By what the prompts of style `small` end with.
STAGES: Mapping[str, Callable[[str], str]] = {
    "Summarise what": summarise,
    "State at most": compare,
    "Change the rules": decide,
    "Make one list": consolidate,
}


def answer(path: str, body: Mapping[str, Any], spoil: float = 0.0, turn: int = 0) -> dict[str, Any]:
    """A chat completion."""
    text = body["messages"][-1]["content"]
    last = text.strip().splitlines()[-1]
    said = next(stage for beginning, stage in STAGES.items() if last.startswith(beginning))(text)
    if spoil and last.startswith("State at most") and said == "none":
        said = f"rule: {LESSONS[LOGIC]}"  # so that there is something to decide
    if spoil and last.startswith("Change the rules"):
        said = "\n".join(
            filter(None, [said.removesuffix("none"), spoiled(text.rpartition("\nLearned:\n")[0], spoil, turn)])
        )
    return {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}


class Handler(BaseHTTPRequestHandler):
    spoil = 0.0
    turn = 0  # how often summaries were asked for after something else, which is once an update
    deciding = False

    def _reply(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._reply({"data": [{"id": "scripted", "max_model_len": 1 << 20}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        summary = body["messages"][-1]["content"].strip().splitlines()[-1].startswith("Summarise what")
        Handler.turn += summary and Handler.deciding
        Handler.deciding = not summary
        self._reply(answer(self.path, body, self.spoil, self.turn))

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--spoil", type=float, default=0.0, metavar="P")
    options = parser.parse_args()
    Handler.spoil = options.spoil
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
