"""A run whose model says what a script tells it to: what it was asked, what the learner got, what was written."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from resd import algorithms
from resd.clock import Clock
from resd.config import CONF
from resd.learn.learner import Learner
from resd.model.chat import Chat
from resd.observe.run import Run
from resd.observe.speech import Speech
from resd.observe.writer import Author
from resd.report.journal import Journal
from resd.report.log import Log
from resd.settings import ModelSettings, SamplingSettings
from resd.types import Attempt, Completion, Messages, Observation, Problem, Request, Sample, Verdict

# A compact prompt ends with what is asked for, a small one has a line that begins with it; anything else is a problem.
ROLES = {"write the lesson": "reflect", "tag the rules": "tag", "add new rules": "curate"}
SMALL_ROLES = {
    "Complaint: ": "reflect",
    "Which rules does": "tag",
    "Lesson: ": "curate",
    "Summarise what the attempt did": "summarise",
    "State at most": "compare",
    "Change the rules so": "decide",
    "Make one list of changes": "consolidate",
}
SAMPLING = SamplingSettings(max_prompt=1000, max_response=200, temperature=0.9, top_p=0.8)
LOGPROB = -1.5

# What a role says: always the same, one after the other (the last one from then on), or as the prompt demands.
CUT = " ..."  # what ends a line that the limit on tokens cut off
Line = str | list[str] | Callable[[str], str]


@dataclass(frozen=True)
class Asked:
    role: str
    text: str
    request: Request


@dataclass
class Engine:
    """Answers `try` by problem id (the end of its statement) and the other roles by their lines in `script`."""

    chat: Chat
    script: dict[str, Line]
    asked: list[Asked] = field(default_factory=list)
    replica: int = 0
    replicas: int = 1

    def generate(self, requests: Sequence[Request], more: Any = None) -> Iterator[tuple[int, Completion]]:
        number, waiting = 0, list(requests)
        while waiting:
            for request in waiting:
                yield number, self._answer(request)
                number += 1
            waiting = list(more(True)) if more else []

    def _answer(self, request: Request) -> Completion:
        text = said(self.chat, request.prompt_ids)
        role = next((role for ending, role in ROLES.items() if text.endswith(ending)), "try")
        role = next((r for start, r in SMALL_ROLES.items() if f"\n{start}" in f"\n{text}"), role)
        self.asked.append(Asked(role, text, request))
        line = self._line(text.split()[-1] if role == "try" else role, text)
        cut = line.endswith(CUT)
        ids = self.chat.encode(line.removesuffix(CUT))
        ids += [] if cut else [self.chat.eos_ids[0]]
        return Completion(ids, [LOGPROB] * len(ids), cut)

    def _line(self, key: str, text: str) -> str:
        line = self.script.get(key, "nothing")
        if isinstance(line, list):
            return line.pop(0) if len(line) > 1 else line[0]
        return line if isinstance(line, str) else line(text)


class Judge:
    """`right…` passes, `half…` earns half, `lost…` has no verdict; everything else fails. In this process."""

    follows = False

    def __init__(self) -> None:
        self.done: list[tuple[int, Verdict | None]] = []

    def verify(self, answers: Sequence[tuple[Problem, str, bool]]) -> Iterator[tuple[int, Verdict | None]]:
        for index, answer in enumerate(answers):
            self.submit(index, answer)
        yield from self.poll()

    def submit(self, index: int, answer: tuple[Problem, str, bool]) -> None:
        problem, response, _ = answer
        said = response.rpartition("</think>")[2].strip()
        right, half = said.startswith("right"), said.startswith("half")
        feedback = "" if right else f"{problem.id} is not {said}"
        verdict = Verdict(1.0 if right else 0.5 if half else 0.0, right, int(right or half), 1 + half, feedback)
        self.done.append((index, None if said.startswith("lost") else verdict))

    @property
    def busy(self) -> bool:
        return bool(self.done)

    def poll(self, idle: bool = True) -> list[tuple[int, Verdict | None]]:
        done, self.done = self.done, []
        return done


class Words:
    """`told` are privileged texts by problem id."""

    noun = "answer"

    def __init__(self, told: Mapping[str, str] | None = None) -> None:
        self.told = told or {}

    def problem(self, id: str) -> Problem:
        part, _, last = id.rpartition("/")
        return Problem(id, f"solve {last}", privileged=self.told.get(id, ""), part=part)

    def problems(self, split: str) -> Sequence[Problem]:
        return [self.problem(id) for id in ("one", "two", *self.told)]

    def prompt(self, problem: Problem) -> Messages:
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        raise NotImplementedError


class Recorded(Run):
    """Notes what is learned, by a learner if there is one."""

    def learn(self, samples: Sequence[Sample]) -> dict[str, float]:
        self.learned = list(samples)
        return self.learner.update(samples, self.step) if self.learner else {"loss": 0.25, "grad_norm": 1.0}


class World:
    """An algorithm in a scripted run; `changes` are settings of the algorithm by dotted name (`a__b` for a.b)."""

    def __init__(
        self,
        folder: Path,
        chat: Chat,
        name: str,
        script: Mapping[str, Line],
        *,
        pipelined: bool = False,
        seed: int = 7,
        learner: Learner | None = None,
        told: Mapping[str, str] | None = None,
        author: Callable[[Speech], Author] | None = None,
        prompts: str = "compact",
        task: Any = None,
        verifier: Any = None,
        max_turns: int = 16,
        **changes: Any,
    ) -> None:
        self.folder, self.chat, self.task = folder, chat, task or Words(told)
        self.engine = Engine(chat, dict(script))
        log, clock = Log(None, talks=False), Clock()
        judge = verifier or Judge()
        engine: Any = self.engine
        speech = Speech(chat, engine, judge, log, clock, seed, max_turns)
        self.run = Recorded(
            task=self.task,
            model=model_settings("unread", prompts=prompts),
            speech=speech,
            journal=Journal(log),
            learner=learner,
            clock=clock,
            rollout=SAMPLING,
            seed=seed,
            directory=folder,
            pipelined=pipelined,
            author=author(speech) if author else None,
        )
        self.algorithm = algorithms.build(self.run, algorithms.settings(configured(name, changes)))

    def update(self, *ids: str) -> list[Attempt]:
        """The attempts of the next update; `asked`, `learned` and `metrics` tell about it alone."""
        self.engine.asked.clear()
        self.run.journal.step += 1
        self.observation: Observation = self.algorithm.update(list(map(self.task.problem, ids)))
        self.learned = self.run.learned
        self.metrics = self.run.finish(self.observation.attempts, self.observation.metrics)
        return self.observation.attempts

    def asked(self, role: str) -> list[str]:
        """The texts of the prompts of a role, in order."""
        return [asked.text for asked in self.engine.asked if asked.role == role]

    def teacher(self, attempt: Attempt) -> str | None:
        """What the learner's teacher reads before this attempt, decoded."""
        assert attempt.sample in self.learned
        ids = attempt.sample.teacher_prompt_ids
        if ids is None:
            assert attempt.teacher_prompt is None
            return None
        assert self.chat.tokenizer.decode(ids) == attempt.teacher_prompt
        return said(self.chat, ids)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The playbook's log on disk."""
        lines = (self.folder / "playbook.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def counters(self) -> dict[str, tuple[int, int]]:
        """Helpful and harmful of each entry, by its text."""
        entries = self.algorithm.state()["playbook"]["entries"]
        return {entry["text"]: (entry["helpful"], entry["harmful"]) for entry in entries}


def problems(*ids: str) -> list[Problem]:
    return [Problem(id, f"solve {id}") for id in ids]


def said(chat: Chat, ids: Sequence[int]) -> str:
    """The last message of the user in a rendered prompt, which may spell control tokens itself."""
    starts, ends = (
        [i for i, id in enumerate(ids) if id == chat.controls[f"<|im_{mark}|>"]] for mark in ("start", "end")
    )
    return chat.tokenizer.decode(ids[starts[-2] + 1 : ends[-1]]).removeprefix("user\n")


def model_settings(path: str, **changes: Any) -> ModelSettings:
    small = yaml.safe_load((CONF / "model" / "nano.yaml").read_text())["model"]
    return ModelSettings(**{**small, "path": path, "max_prompt": 1000, **changes})


def configured(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The shipped settings of an algorithm, with `changes`."""
    values = copy.deepcopy(_shipped(name))
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = values
        for section in sections:
            place[section] = dict(place[section])
            place = place[section]
        place[last] = value
    return values


@cache
def _shipped(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole: Any = OmegaConf.to_container(compose("config", [f"algorithm={name}"]).algorithm, resolve=True)
    return _at_ease(whole)


def _at_ease(values: dict[str, Any]) -> dict[str, Any]:
    """With limits that hold what is scripted, also in an algorithm inside another."""
    for key, value in values.items():
        if isinstance(value, dict):
            values[key] = SAMPLING.model_dump() if "max_response" in value else _at_ease(value)
        elif key == "max_tokens":
            values[key] = 1000
    return values


def prompt(
    problem: str,
    rules: str = "",
    previous: str = "",
    feedback: str = "",
    lesson: str = "",
    solution: str = "",
    ending: str = "write the answer",
) -> str:
    """A compact prompt, written out."""
    parts = {"previous": previous, "feedback": feedback, "lesson": lesson, "solution": solution}
    head = [f"rules:\n{rules}"] if rules else []
    return "\n".join([*head, f"task:\nsolve {problem}", *(f"{k}:\n{v}" for k, v in parts.items() if v), ending])
