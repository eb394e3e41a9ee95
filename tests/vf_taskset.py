"""An environment of verifiers' newer interface, as a package would have it; a reply may misbehave."""

import time

import verifiers.v1 as vf

WORDS = {"train": ["stone", "river", "cloud", "amber", "table", "chair"], "test": ["ocean", "maple"]}


class BackwardsData(vf.TaskData):
    answer: str


class BackwardsTask(vf.Task[BackwardsData]):
    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        said = trace.last_reply
        trace.info["feedback"] = f"The reply has {len(said)} signs."
        match said:
            case "raise":
                raise ValueError("cannot read this")
            case "hang":
                time.sleep(60)
            case "nan":
                return float("nan")
        return sum(a == b for a, b in zip(said, self.data.answer, strict=False)) / len(self.data.answer)

    @vf.reward(weight=0.5)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) < 9)

    @vf.metric
    async def length(self, trace: vf.Trace) -> float:
        return len(trace.last_reply)

    @vf.metric
    async def cut(self, trace: vf.Trace) -> float:
        return float(trace.is_truncated)


class BackwardsConfig(vf.TasksetConfig):
    split: str = "train"


class BackwardsTaskset(vf.Taskset[BackwardsTask, BackwardsConfig]):
    def load(self):
        for word in WORDS[self.config.split]:
            data = BackwardsData(prompt=f"Write {word!r} backwards.", system_prompt="One word.", answer=word[::-1])
            yield BackwardsTask(data, self.config.task)


__all__ = ["BackwardsTaskset"]
