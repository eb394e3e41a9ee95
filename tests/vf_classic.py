"""An environment of verifiers' older interface, as a package would have it; `kind` says how it is odd."""

import asyncio
import time

ROWS = {"train": ["stone", "river", "cloud", "amber", "table", "chair"], "test": ["ocean", "maple"]}


def load_environment(kind="plain", splits=("train", "test"), weights=(1.0, 0.5, 0.0)):
    import verifiers as vf
    from datasets import Dataset

    def rows(split):
        return Dataset.from_list([{"question": f"Write {w!r} backwards.", "answer": w[::-1]} for w in ROWS[split]])

    async def right(completion, answer, state) -> float:
        await asyncio.sleep(0)
        match completion[-1]["content"]:
            case "raise":
                raise ValueError("cannot read this")
            case "hang":
                time.sleep(60)
            case "nan":
                return float("nan")
        state["feedback"] = f"The reply has {len(completion[-1]['content'])} signs."
        return sum(a == b for a, b in zip(completion[-1]["content"], answer, strict=False)) / len(answer)

    def short(completion, parser, **_) -> float:
        return float(len(parser.parse_answer(completion) or "") < 9)

    def length(completion) -> float:
        return len(completion[-1].content)

    def parts(completion) -> dict:
        return {"words": len(completion[-1].content.split())}

    def raises(completion) -> float:
        raise ValueError("cannot read this")

    def nan(completion) -> float:
        return float("nan")

    def nothing(completion) -> float:
        return None

    def cut(state) -> float:
        return float(state["trajectory"][-1]["is_truncated"])

    def negative(completion) -> float:
        return -3.0

    def compares(completions) -> list[float]:
        return [0.0 for _ in completions]

    third = {each.__name__: each for each in (parts, raises, nan, nothing, cut, negative, compares)}.get(kind, length)
    if kind == "no_rows":
        raise ConnectionError("the data set cannot be reached")
    given = {{"train": "dataset", "test": "eval_dataset"}[split]: rows(split) for split in splits}
    if kind == "columns":
        given["dataset"] = given["dataset"].rename_column("question", "asked")
    if kind in ("info", "offered"):
        info = "{" if kind == "info" else '{"tool_defs": [{"name": "look"}]}'
        given["dataset"] = given["dataset"].map(lambda row: {"info": info})
    options = {"rubric": vf.Rubric([right, short, third], list(weights)), "system_prompt": "One word.", **given}
    if kind in ("turns", "draws", "rewrites", "breaks"):

        class Game(vf.MultiTurnEnv):
            """Three guesses at a word."""

            async def setup_state(self, state):
                state["guesses"] = []

            @vf.stop
            async def solved(self, state):
                return state["answer"] in state["guesses"]

            async def get_prompt_messages(self, state):
                messages = await super().get_prompt_messages(state)
                return messages[:1] + messages[-1:] if kind == "rewrites" else messages

            async def env_response(self, messages, state, **_):
                if kind == "breaks":
                    raise vf.Error("the board is gone")
                said = messages[-1].content
                state["guesses"].append(said)
                right = sum(a == b for a, b in zip(said, state["answer"], strict=False))
                drawn = f" {time.monotonic()}" if kind == "draws" else ""
                told = [{"role": "user", "content": f"{right} letters are right.{drawn}"}]
                if await self.solved(state):
                    state["final_env_response"] = told
                return told

        def guessed(state) -> float:
            return float(state["answer"] in (turn["completion"][0].content for turn in state["trajectory"]))

        def patient(state) -> float:
            return len(state["trajectory"]) / 3

        return Game(max_turns=3, **options | {"rubric": vf.Rubric([guessed, patient], [1.0, 0.0])})
    if kind == "tools":
        return vf.ToolEnv(tools=[rows], **options)
    if kind == "judge":
        options["rubric"] = vf.JudgeRubric(judge_client=object())
        options["rubric"].add_reward_func(right)
    if kind == "group":
        options["rubric"] = vf.RubricGroup([vf.Rubric([right], [1.0]), vf.Rubric([short], [0.5])])
    return vf.SingleTurnEnv(**options)
