"""Builds what a run needs from its settings: objective, teacher, engine, and the memory check before them."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.markup import escape
from torch.distributed.device_mesh import DeviceMesh

from resd import dist, plan
from resd.address import Address
from resd.clock import Clock
from resd.config import Config
from resd.engine.base import Engine
from resd.engine.transformers import TransformersEngine
from resd.learn.learner import Objective
from resd.model.build import blank, build_copy, build_student
from resd.model.chat import Chat
from resd.model.external import check_vocabulary, named_teacher
from resd.model.hidden import Policy
from resd.model.load import check_context, load_model, read_config
from resd.model.remote import RemoteTeacher
from resd.model.teacher import Teacher
from resd.objectives.distill import Distillation
from resd.observe.run import Run
from resd.observe.speech import Speech
from resd.observe.stream import Fingerprint
from resd.observe.writer import Author
from resd.report.journal import Journal
from resd.report.log import Log
from resd.report.tracking import Tracking
from resd.settings import ModelSettings, VllmSettings
from resd.task import Task
from resd.types import UserError
from resd.verify import Verifier
from resd.word import flat


@contextmanager
def evaluation_session(settings: Config, task: Task, out: Path | None) -> Iterator[Run]:
    """A run that only generates and verifies, with the weights of `model.path`."""
    chat = Chat(settings.model)
    chat.fit(read_config(settings.model)["vocab_size"])
    for note in chat.notes if dist.first() else ():
        print(note, file=sys.stderr)
    log = Log(out if dist.first() else None, talks=dist.first(), progress=settings.progress)
    verifier = Verifier(task, settings.verify.workers, settings.verify.timeout)
    clock = Clock()
    try:
        yield Run(
            task=task,
            model=settings.model,
            speech=Speech(
                chat, build_engine(settings, chat), verifier, log, clock, settings.seed, settings.rollout.max_turns
            ),
            journal=Journal(log),
            learner=None,
            clock=clock,
            rollout=settings.rollout,
            seed=settings.seed,
            directory=out if dist.first() else None,
        )
    finally:
        verifier.close()
        log.close()


def check_memory(settings: Config) -> None:
    """Say what this run will hold in memory. Raises UserError if it cannot fit."""
    shape = plan.Shape.of(read_config(settings.model))
    other = external(settings)
    teacher = plan.Shape.of(read_config(other)) if other else None
    if shape is None or (other and teacher is None):
        return
    processes, host = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), plan.main_memory()
    cuda = settings.hardware.device == "cuda"
    free, device = torch.cuda.mem_get_info() if cuda else (host // processes, 0)
    author = author_model(settings)
    written = None if author is None else plan.Shape.of(read_config(author))
    says = plan.check(shape, settings, dist.world(), plan.Room(device, free, host, processes), teacher, written)
    dist.barrier()  # all have looked before one takes anything
    if dist.first():
        print(says, flush=True)


def build_objective(settings: Config) -> Objective:
    """What the learner minimises; wrong names end here, before a model is read."""
    algorithm = settings.algorithm
    distillation = None
    if algorithm.objective is not None:
        distillation = Distillation(**algorithm.objective.model_dump(), temperature=settings.rollout.temperature)
    return Objective(settings.loss, settings.rollout.temperature, distillation, algorithm.policy_gradient)


def external(settings: Config) -> ModelSettings | None:
    """The teacher, if it is another model; it is asked as the student is."""
    wanted = settings.algorithm.teacher
    if wanted is None or wanted.path is None:
        return None
    return settings.model.model_copy(update={"path": wanted.path, "lora": None})


def check_teacher(settings: Config, chat: Chat) -> None:
    """Raises UserError if another model cannot teach this one. No weights are read."""
    if model := external(settings):
        with named_teacher():
            check_vocabulary(chat, model, read_config(settings.model)["vocab_size"])
            check_context(model, longest(settings))


def build_teacher(settings: Config, student: Policy, mesh: DeviceMesh) -> Teacher | None:
    """Who scores, or None for algorithms without a teacher."""
    wanted = settings.algorithm.teacher
    if wanted is None or wanted.url is not None:
        return None
    if model := external(settings):
        hardware = settings.hardware.model_copy(update={"activation_checkpointing": False})
        with named_teacher():
            policy = build_student(model, hardware, mesh)
        return Teacher(policy, wanted.kind, vocabulary=len(student.output_embedding))
    shared = wanted.kind == "live" or settings.model.lora is not None
    policy = student if shared else build_copy(settings.model, settings.hardware, mesh, student)
    return Teacher(policy, wanted.kind, wanted.rate)


def open_teacher(settings: Config, chat: Chat) -> RemoteTeacher | None:
    """The teacher at an address, if it is at one. Raises UserError on all ranks if it cannot teach. Collective."""
    wanted = settings.algorithm.teacher
    if wanted is None or wanted.url is None:
        return None
    objective = settings.algorithm.objective
    top = objective.top_k if objective is not None and settings.algorithm.compares else 1
    address = Address("algorithm.teacher", wanted.url, wanted.model, settings.remote)
    teacher = RemoteTeacher(address, top, read_config(settings.model)["vocab_size"])
    address.model = dist.on_first(lambda: teacher.check(chat, longest(settings)))
    return teacher


def open_trackers(settings: Config, run_dir: Path, log: Log) -> None:
    """Who is told of the run beside TensorBoard, by the first process."""
    if settings.trackers and dist.first():
        known = flat(settings.model_dump(mode="json"))
        log.tracking = Tracking(
            settings.trackers, run_dir, known, say=lambda text: log.say(f"[yellow]{escape(text)}[/]")
        )


def open_author(settings: Config) -> Address | None:
    """The author's address, if it is at one. Raises UserError on all ranks if it does not answer. Collective."""
    wanted = settings.author
    if wanted.url is None:
        return None
    address = Address("author", wanted.url, wanted.model, settings.remote)
    address.model = dist.on_first(lambda: address.open()["id"])
    return address


def author_model(settings: Config) -> ModelSettings | None:
    """The local model that writes in the student's place, if there is one."""
    path = settings.author.path
    return None if path is None else settings.model.model_copy(update={"path": path, "lora": None})


def build_author(settings: Config, student: Speech, address: Address | None) -> Author | None:
    """Who writes in the student's place, or None."""
    model = author_model(settings)
    if model is None:
        return None if address is None else Author(settings.author, address)
    theirs = settings.model_copy(update={"model": model})
    chat = Chat(model)
    return Author(settings.author, student.voiced_by(chat, build_engine(theirs, chat, limit=longest_written(settings))))


def longest_written(settings: Config) -> int:
    """Tokens of the longest prompt and answer of an author."""
    author = settings.author
    return (author.max_prompt or settings.model.max_prompt) + (author.max_response or settings.rollout.max_response)


def build_engine(settings: Config, chat: Chat, student: Policy | None = None, limit: int | None = None) -> Engine:
    """Who generates up to `limit` tokens, prompt included (None: what the roles of the run need).

    With the weights of `model.path`, or, where there is a student, with those of the first sync.
    """
    engine, device, limit = settings.engine, settings.hardware.device, limit or longest(settings)
    if isinstance(engine, VllmSettings):
        from resd.engine.vllm import VllmEngine

        return VllmEngine(
            settings.model.path,
            engine,
            eos_ids=chat.eos_ids,
            max_length=limit,
            device=device,
            guidance=chat.guidance,
            temperature=settings.rollout.temperature,
        )
    dtype = getattr(torch, engine.dtype)
    return TransformersEngine(
        blank(settings.model, student, device, dtype) if student else load_model(settings.model),
        eos_ids=chat.eos_ids,
        max_batch=engine.max_batch,
        max_length=limit,
        dtype=dtype,
        device=device,
    )


def longest(settings: Config) -> int:
    """Tokens of the longest prompt and response of any role."""
    return plan.longest_row(settings)


def check_same_on_all_ranks(problems: Mapping[str, Fingerprint], settings: Config) -> None:
    """Raises UserError on all ranks if they would not run the same program on the same data. Collective."""
    same = settings.model_dump(mode="json", exclude={"run_dir", "progress"})  # rank 0's are everyone's
    every = dist.gather({dist.rank(): {**problems, "configuration": same}})
    for name in every[0]:
        other = [rank for rank, told in every.items() if told.get(name) != every[0][name]]
        if other:
            what = "configuration" if name == "configuration" else f"{name} problems, or another order of them"
            raise UserError(
                f"process {other[0]} has another {what} than process 0: give all processes the same command and files, "
                "and let the task return its problems in one order (no sets, no random numbers without a seed)"
            )
