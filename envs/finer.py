"""FiNER: name the US-GAAP tags of four quoted expressions from financial reports (the paper's fourth task).

    python -m resd.evaluate checkpoint=… task=finer task.options.source=FOLDER

A row states the 139 tags to choose from and four questions, often about one sentence; it is answered by four tags
between answer tags, in the order of the questions, and scored by position. `per_case` is the share of right tags,
`per_task` that of rows with all four right. Rows that occur twice are one problem, as the published numbers count them
(499 of the 500 test rows).

Data: the released JSONL files (columns `context` and `target`) as `train.jsonl` and `test.jsonl` of a folder, or
`source=hf`, which makes rows of the same kind from FiNER-139. Both derive from FiNER-139, CC BY-SA 4.0, and are no part
of this project.

Other than the original: tags are compared as text and never evaluated; the feedback need not contain the answer (it
does with `feedback=gold`). Not covered: rows of `source=hf` are not the released ones.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from resd.envs import rows
from resd.envs.answers import tagged
from resd.envs.options import choice
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

PromptKind = Literal["full", "compact", "official"]
FeedbackKind = Literal["gold", "per_entity", "count", "none"]
RewardKind = Literal["dense", "sparse"]

HUB = "nlpaueb/finer-139"
HUB_SPLITS: Mapping[Split, tuple[str, int]] = {"train": ("train", 1000), "test": ("validation", 500)}
HUB_BATCH = 4
_WINDOW = 4  # words that `compact` shows on either side of an expression

_OPTIONS = re.compile(r"options:\s*([\w,\s]+)\.")
_QUESTION = re.compile(r'^\d+\. .*?entity "(.*?)" in sentence: "(.*)"[ \t]*$', re.MULTILINE)

_FULL = """\
Companies label the figures in their financial reports with tags of the US-GAAP taxonomy. For each quoted expression \
below, choose the tag that says best what it stands for in its sentence.

# Tags
{options}

# Expressions
{questions}

Think about every expression first. Then give the {n} tags in the order of the expressions, separated by commas, \
between <answer> and </answer>, like this:
<answer>{example}</answer>"""
_COMPACT = "Name the US-GAAP tags.\n{questions}\n<answer>{n} tags with commas between them</answer>"
_OFFICIAL = """\
Answer the question with the help of the context.

Context:

Question: {raw}

Reason step by step first, then put your final answer between <answer> and </answer>, for example \
<answer>{example}</answer>."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A quoted expression, the sentence it stands in, and the right tag."""

    text: str
    sentence: str
    tag: str


@dataclass(frozen=True, slots=True)
class Batch:
    """One row: what is asked together. `raw` is the text of a released row, empty for a row that was made here."""

    options: Sequence[str]
    entities: Sequence[Entity]
    raw: str = ""


class Finer:
    """Implements `resd.task.Task`. Raises UserError for a value of an option that does not exist.

    source: `hf`, a folder with `train.jsonl` and `test.jsonl`, or one JSONL file that serves both splits
    prompt: `full`; `compact` shows a few words around each expression and no list of tags; `official` gives the
        released layout, with an empty context and the raw row as the question (released rows only)
    feedback: `gold` gives the right tags away, as the released feedback does; `per_entity` says which ones are wrong;
        `count` how many; `none` nothing
    reward: `dense`, the share of right tags; `sparse`, 1 if all are right
    """

    noun = "answer"

    def __init__(
        self,
        source: str = "hf",
        prompt: PromptKind = "full",
        feedback: FeedbackKind = "per_entity",
        reward: RewardKind = "dense",
    ) -> None:
        choice("prompt", prompt, get_args(PromptKind))
        choice("feedback", feedback, get_args(FeedbackKind))
        choice("reward", reward, get_args(RewardKind))
        source = rows.check_source(source, "hf")
        if source == "hf" and prompt == "official":
            raise UserError("prompt=official needs the released rows: give their folder as source, or prompt=full")
        self.source, self.prompt_kind, self.feedback, self.reward = source, prompt, feedback, reward

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split, at least one; ids are row numbers from 0. Raises UserError for unusable data."""
        if self.source == "hf":
            batches = read_hub(split)
        else:
            batches = [parse(row, place) for place, row in rows.read_file(self.source, split)]
        first: dict[tuple[str, tuple[str, ...]], Problem] = {}
        for number, batch in enumerate(batches):
            statement, tags = state(batch, self.prompt_kind), [entity.tag for entity in batch.entities]
            cases = [{"entity": entity.text, "tag": entity.tag} for entity in batch.entities]
            told = f"<answer>{','.join(tags)}</answer>"
            problem = Problem(f"{split}-{number:04d}", statement, "finer", cases, told)
            first.setdefault((statement, tuple(tags)), problem)
        if not first:
            raise UserError(f"source={self.source!r} has no {split} rows: give a JSONL file with context and target")
        return list(first.values())

    def prompt(self, problem: Problem) -> Messages:
        """One user message."""
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """Grades one response."""
        return grade(response, problem.cases, truncated, reward=self.reward, feedback=self.feedback)

    def self_test(self) -> None:
        """Raises UserError unless right answers pass and wrong ones do not."""
        cases = [{"entity": str(n), "tag": tag} for n, tag in enumerate(("Goodwill", "Revenues", "Revenues", "Taxes"))]
        expected = {
            "<think><answer>a,b,c,d</answer></think> So: <answer>Goodwill, revenues,Revenues ,Taxes,More</answer>": 4,
            "<answer>Goodwill,Revenues,Revenues,Taxes</answer> or rather <answer>Revenues,Goodwill</answer>": 0,
            "<answer>Goodwill,Revenues,Taxes,Revenues</answer>": 2,
            "Goodwill,Revenues,Revenues,Taxes": 0,
        }
        problem = Problem("self-test", "", cases=cases)
        for response, right in expected.items():
            verdict = self.verify(problem, response)
            if (verdict.cases_passed, verdict.passed) != (right, right == 4):
                raise UserError(f"the judge of finer gives {verdict.cases_passed} and not {right} points to {response}")


def grade(
    response: str,
    cases: Sequence[Mapping[str, str]],
    truncated: bool = False,
    *,
    reward: RewardKind = "dense",
    feedback: FeedbackKind = "per_entity",
) -> Verdict:
    """Compares the tags of a response with `cases` (`entity` and `tag`) by position, blind to case and blank space.

    Tags beyond the last case are ignored, missing ones are wrong.
    """
    answer, n = tagged(response), len(cases)
    if answer is None:
        error = "truncated" if truncated else "no_answer"
        return Verdict(0.0, False, 0, n, _explain(None, cases, [], truncated, feedback), error=error)
    given = [tag.strip().lower() for tag in answer.split(",")]
    right = [i < len(given) and given[i] == case["tag"].strip().lower() for i, case in enumerate(cases)]
    passed = all(right) and n > 0
    score = sum(right) / n if reward == "dense" and n else float(passed)
    text = "" if passed else _explain(answer, cases, right, truncated, feedback)
    return Verdict(score, passed, sum(right), n, text, answer)


def _explain(
    answer: str | None, cases: Sequence[Mapping[str, str]], right: Sequence[bool], truncated: bool, kind: FeedbackKind
) -> str:
    """What a failed attempt is told; that it was cut off goes before everything else."""
    n = len(cases)
    if kind == "none":
        return ""
    if truncated:
        return "The response was cut off at its maximum length; be briefer."
    if answer is None:
        return f"No answer was found: give {n} tags, separated by commas, between <answer> and </answer>."
    given = [tag.strip() for tag in answer.split(",")]
    padded = given[:n] + [""] * (n - len(given))
    text = f"{sum(right)} of {n} tags are right."
    if len(given) != n:
        text = f"The answer has {len(given)} parts between its commas instead of {n}. {text}"
    if kind == "gold":
        text += f" The right answer is {','.join(case['tag'] for case in cases)}"
    if kind == "per_entity":
        for number, (case, tag, is_right) in enumerate(zip(cases, padded, right, strict=True), 1):
            text += f"\n{number}. {case['entity']}: {tag[:120] or 'no tag'} is {'right' if is_right else 'wrong'}."
    return text


def state(batch: Batch, kind: PromptKind) -> str:
    """The text of a problem."""
    n = len(batch.entities)
    example = ",".join(f"Tag{number}" for number in range(1, n + 1))
    if kind == "official":
        return _OFFICIAL.format(raw=batch.raw, example=example)
    show = _glance if kind == "compact" else (lambda entity: f'"{entity.text}" in: {entity.sentence}')
    questions = "\n".join(f"{number}. {show(entity)}" for number, entity in enumerate(batch.entities, 1))
    form = _COMPACT if kind == "compact" else _FULL
    return form.format(options=", ".join(batch.options), questions=questions, n=n, example=example)


def _glance(entity: Entity) -> str:
    """An expression with the words around its first occurrence."""
    before, _, after = f" {entity.sentence} ".partition(f" {entity.text} ")
    return " ".join([*before.split()[-_WINDOW:], f"[{entity.text}]", *after.split()[:_WINDOW]])


def parse(row: Mapping[str, Any], place: str) -> Batch:
    """A released row. Raises UserError that names `place` when its parts do not fit together."""
    context, target = row.get("context"), row.get("target")
    if not isinstance(context, str) or not isinstance(target, str):
        raise UserError(f"{place}: context and target must be texts")
    questions = _QUESTION.findall(context)
    tags = [tag.strip() for tag in target.split(",")]
    if not questions or len(questions) != len(tags):
        raise UserError(f"{place}: context has {len(questions)} questions, target has {len(tags)} tags")
    options = _OPTIONS.search(context)
    if options is None:
        raise UserError(f"{place}: context must list the tags after the word options, separated by commas")
    listed = [tag.strip() for tag in options[1].split(",") if tag.strip()]
    entities = [Entity(text, s.removesuffix("?"), tag) for (text, s), tag in zip(questions, tags, strict=True)]
    return Batch(listed, entities, context)


def read_hub(split: Split) -> list[Batch]:
    """As many rows as the released split has, from FiNER-139; no sentence of the test rows is in a training row."""
    test_rows: list[Batch] = read_hub("test") if split == "train" else []
    avoid = {entity.sentence for batch in test_rows for entity in batch.entities}
    name, count = HUB_SPLITS[split]
    data = rows.read_hub(HUB, name, revision="refs/convert/parquet")
    names = data.features["ner_tags"].feature.names
    return list(make_batches(data, names, count, avoid))


def make_batches(
    sentences: Sequence[Mapping[str, Any]], names: Sequence[str], count: int, avoid: Collection[str] = ()
) -> Iterator[Batch]:
    """At most `count` rows from `tokens` and `ner_tags` (indices into `names`, IOB2), evenly spread over `sentences`.

    A row takes the next four expressions in filing order, so that neighbours often share a sentence. `avoid` are
    sentences to pass over.
    """
    options = sorted({name[2:] for name in names if name != "O"})
    after = 0
    for number in range(count):
        after = max(after, number * len(sentences) // count)
        found: list[Entity] = []
        while len(found) < HUB_BATCH and after < len(sentences):
            sentence = sentences[after]
            if " ".join(sentence["tokens"]) not in avoid:
                found += _entities(sentence["tokens"], [names[i] for i in sentence["ner_tags"]])
            after += 1
        if len(found) >= HUB_BATCH:
            yield Batch(options, found[:HUB_BATCH])


def _entities(tokens: Sequence[str], labels: Sequence[str]) -> Iterator[Entity]:
    starts = [i for i, label in enumerate(labels) if label.startswith("B-")]
    for start in starts:
        end = start + 1
        while end < len(labels) and labels[end].startswith("I-"):
            end += 1
        yield Entity(" ".join(tokens[start:end]), " ".join(tokens), labels[start][2:])


load = Finer
