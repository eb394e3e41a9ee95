"""Environments of the newer interface: a package exports a `Taskset`, whose tasks have reward methods.

A response is judged by `Task.score` on a trace of the prompt and this one response, without a machine, as the library's
own `vf-replay` scores a recorded trace again. So tasks that need a machine, tools, a judge or an episode of their own
are refused. Of this interface a metric that fails loses the answer as a reward does.
"""

import inspect
import itertools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from resd.envs.verifiers.environment import Loop, Reply, Row, Scored, exported, plain, reason, refuse, solution
from resd.task import Split
from resd.types import Messages, UserError


class Taskset:
    """`module` exports one; `args` are fields of its configuration. Raises UserError as above.

    A taskset has no splits: all its rows are for training, unless `task.options.test_args` makes another of them.
    """

    several = False

    def __init__(self, env: str, module: ModuleType, args: Mapping[str, Any]) -> None:
        from pydantic import ValidationError
        from verifiers.v1 import Taskset as Base
        from verifiers.v1 import TasksetConfig
        from verifiers.v1.utils.generic import concrete_type

        self.env, self.run = env, Loop()
        (kind, *others) = exported(module, Base)
        if others:
            raise UserError(
                f"env={env} exports several tasksets, {kind.__name__} and {others[0].__name__}: choose another"
            )
        try:
            config = (concrete_type(kind, TasksetConfig, origin=Base) or TasksetConfig)(**{**args, "id": env})
            self.taskset = kind(config)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"env={env} does not take these args: {place}: {first['msg']}") from None
        self.kind = self.taskset.task_type()
        self._refuse(module)
        self.weights = {each.__name__: float(getattr(each, "_vf_weight", 1.0)) for each in self._functions("reward")}

    def rows(self, split: Split, most: int | None) -> list[Row] | None:
        """All tasks, as training rows."""
        if split == "test":
            return None
        if self.taskset.INFINITE and most is None:
            raise UserError(f"env={self.env} makes tasks without end: write task.options.train and task.options.test")
        try:
            return [self._row(task, number) for number, task in enumerate(itertools.islice(self.taskset, most), 1)]
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"env={self.env}: its tasks cannot be loaded: {reason(error)}") from None

    def follow(self, data: dict[str, Any], *replies: Reply) -> Messages:
        """Nothing."""
        return []

    def score(self, data: dict[str, Any], *replies: Reply) -> Scored:
        """What `Task.score` records. Raises what a reward method raises."""
        (reply,) = replies
        task = self.kind(self.kind.data_type().model_validate(data), self.taskset.config.task)
        trace = _trace(task, plain_prompt(task.data, self.env), reply)
        self.run(task.score(trace))
        rewards = {name: each.score for name, each in trace.rewards.items() if each is not None}
        metrics = {name: value for name, value in trace.metrics.items() if value is not None}
        weighted = frozenset(name for name, each in trace.rewards.items() if each is not None and each.weight)
        said = trace.info.get("feedback")
        return Scored(trace.reward, rewards | metrics, weighted, said if isinstance(said, str) else "")

    def _row(self, task: Any, number: int) -> Row:
        data = task.data.model_dump(mode="json")
        messages = plain_prompt(task.data, f"{self.env}, task {number}")
        return Row(number, messages, data, privileged=solution(data.get("answer")))

    def _functions(self, *kinds: str) -> list[Any]:
        sample = self.kind(self.kind.data_type().model_construct(), self.taskset.config.task)
        return [each for kind in kinds for each in sample.hooks(kind)]

    def _refuse(self, module: ModuleType) -> None:
        from verifiers.v1 import Task
        from verifiers.v1.env import Env

        kind, config = self.kind, self.taskset.config.task
        problem = ""
        if exported(module, Env):
            problem = "it plays an episode of its own, of several turns or several agents"
        elif kind.toolsets(config) or type(self.taskset).toolsets(self.taskset.config):
            problem = "it offers tools"
        elif kind.NEEDS_CONTAINER:
            problem = "its tasks need a container"
        elif config.judges:
            problem = "it asks a judge, which is another model"
        elif kind.setup is not Task.setup or kind.finalize is not Task.finalize:
            problem = "its tasks prepare a machine (setup, finalize)"
        elif wanting := [each.__name__ for each in self._functions("reward", "metric") if _wants_machine(each)]:
            problem = f"{', '.join(wanting)} looks at the machine that a program ran on (runtime)"
        elif not self._functions("reward"):
            problem = "it has no reward"
        refuse(self.env, problem)


def plain_prompt(data: Any, place: str) -> list[Any]:
    """The messages of a task, its system prompt first."""
    system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    return [*system, *plain(data.prompt, f"env={place}")]


def _trace(task: Any, messages: list[Any], reply: Reply) -> Any:
    """A trace of one turn, as a chat without tools leaves it."""
    from verifiers.v1.configs.agent import WireAgentConfig
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.state import State, state_cls
    from verifiers.v1.trace import AgentInfo, ModelCall, Trace, TraceTask
    from verifiers.v1.types import AssistantMessage

    said = AssistantMessage(content=reply.content, reasoning_content=reply.thinking)
    nodes = [
        MessageNode(message=message, parent=number - 1 if number else None, sampled=message is said)
        for number, message in enumerate([*messages, said])
    ]
    state = (state_cls(type(task)) or State)()
    call = ModelCall(node=len(messages), finish_reason="length" if reply.truncated else "stop")
    return Trace[type(task).data_type(), type(state), WireAgentConfig](  # type: ignore[misc, unused-ignore]
        task=TraceTask(type=type(task).__name__, data=task.data),
        agent=AgentInfo(config=WireAgentConfig()),
        nodes=nodes,
        calls=[call],
        state=state,
        is_completed=True,
        ok=True,
        stop_condition="agent_completed",
    )


def _wants_machine(function: Any) -> bool:
    """Whether it cannot be called without a runtime, as `Task.score` finds out."""
    wanted = inspect.signature(function).parameters.get("runtime")
    return wanted is not None and wanted.default is inspect.Parameter.empty
