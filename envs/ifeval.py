"""IFEval: instructions that a program can check ("at least 300 words, no commas"), a test for forgetting.

    python -m resd.evaluate checkpoint=… task=ifeval samples=4
    python -m resd.train task=manufactoria forgetting.every=4

The checks are those of lm-eval (the extra `ifeval`), of which only the verifier is imported, not the harness. A
response is judged without its thinking. `per_task` says that every instruction of a prompt is followed, `per_case` is
the share that is, averaged over prompts, as in the paper's Table 5; `per_task_loose` and `per_case_loose` are the same
for the best of eight forms of the response (without asterisks, first or last line), instruction by instruction.

Everything works without a network. Two instructions count sentences or words with nltk, which needs a model of English
abbreviations. nltk's own is used where it is installed (`python -m nltk.downloader punkt_tab`); else the small one
shipped beside this file, with which 99.6 % of 836 English paragraphs have the same number of sentences. Language
detection has a fixed seed. An instruction whose check raises an error counts as not followed. The library replaces an
argument that it takes for invalid by a random one (one prompt asks for the letter #); here it draws the same each time.

Data: `source=hf` (google/IFEval, 541 prompts, Apache-2.0), or a file. Table 5 used the first 100 prompts
(`evaluation.limit=100`); with all of them the error is less than half as large. There is one set of prompts, which
serves both splits: a model that was trained on it cannot be tested on it.
"""

import importlib
import importlib.util
import logging
import random
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from resd.envs import rows
from resd.task import Split
from resd.thinking import strip_thinking
from resd.types import Messages, Problem, UserError, Verdict

HUB = "google/IFEval"
SENTENCE_MODEL = Path(__file__).parent / "nltk_data"
_SHOWN = 8
_NEEDED = ("lm_eval", "nltk", "langdetect", "immutabledict")


class IFEval:
    """Implements `resd.task.Task`.

    source: `hf`, or a JSONL or parquet file (or a folder with one a split) in the columns of google/IFEval or in those
        of the released RESD data
    """

    noun = "response"

    def __init__(self, source: str = "hf") -> None:
        if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
            raise UserError(f"task ifeval needs {', '.join(missing)}: run pip install 'lm-eval[ifeval]<0.5' pyarrow")
        self.source = rows.check_source(source, "hf")

    def problems(self, split: Split) -> list[Problem]:
        """The prompts in the order of the data. Raises UserError for data that cannot be used."""
        if self.source == "hf":
            placed = [(f"{HUB}, row {n}", row) for n, row in enumerate(rows.read_hub(HUB, "train"), 1)]
        else:
            placed = list(rows.read_file(self.source, split))
        problems: dict[str, Problem] = {}
        for place, row in placed:
            problem = parse(row, place)
            if problem.id in problems:
                raise UserError(f"{place}: the key of {problem.id} occurs twice; every prompt needs its own")
            problems[problem.id] = problem
        if not problems:
            raise UserError(f"source={self.source!r} has no prompts: give a file in the columns of {HUB}")
        return list(problems.values())

    def prompt(self, problem: Problem) -> Messages:
        """The prompt as it is."""
        return [{"role": "user", "content": problem.statement}]

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """One case an instruction; `reward` is the share that is followed strictly."""
        text = strip_thinking(response)
        strict = [follows(problem, case, text) for case in problem.cases]
        loose = [follows(problem, case, text, loose=True) for case in problem.cases]
        failed = [_describe(case) for case, good in zip(problem.cases, strict, strict=True) if not good]
        n, share = len(strict), sum(strict) / len(strict)
        feedback = f"{len(failed)} of {n} instructions not followed: {'; '.join(failed[:_SHOWN])}." if failed else ""
        if failed and truncated:
            feedback = f"The response was cut off at its maximum length. {feedback}"
        scores = {"per_task_loose": float(all(loose)), "per_case_loose": sum(loose) / n}
        return Verdict(share, not failed, sum(strict), n, feedback, text or None, scores=scores)

    def self_test(self) -> None:
        """Raises UserError unless every check tells a good answer from a bad one; missing data would fail silently."""
        for name, arguments, good, bad in KNOWN:
            problem = Problem("self-test", "Say hi.", cases=[{"id": name, "arguments": arguments}])
            found = [self.verify(problem, f"<think>{bad}</think>{text}").passed for text in (good, bad)]
            if found != [True, False]:
                raise UserError(f"the check of {name} does not tell right from wrong: reinstall lm-eval and nltk")


def follows(problem: Problem, case: Mapping[str, Any], response: str, *, loose: bool = False) -> bool:
    """Whether `response` follows one instruction of `problem` (`id` and `arguments`)."""
    library = verifier()
    example = library.InputExample(0, [case["id"]], problem.statement, [case["arguments"]])
    check = library.test_instruction_following_loose if loose else library.test_instruction_following_strict
    before = random.getstate()
    random.seed(0)
    try:
        return bool(check(example, response).follow_all_instructions)
    except Exception:  # the published verdict for a response that a check chokes on
        return False
    finally:
        random.setstate(before)


def parse(row: Mapping[str, Any], place: str) -> Problem:
    """A row in either set of columns. Raises UserError that names `place`.

    The library draws an argument that is missing at random, so all of them must be there.
    """
    released, extra = row.get("reward_model"), row.get("extra_info")
    truth = released.get("ground_truth") if isinstance(released, dict) else row
    key = extra.get("index") if isinstance(extra, dict) else row.get("key")
    if not isinstance(truth, dict) or key is None:
        raise UserError(f"{place}: expected the columns key, prompt, instruction_id_list and kwargs")
    prompt, names, kwargs = (truth.get(name) for name in ("prompt", "instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{place}: prompt must be a text")
    if not isinstance(names, list) or not names or not isinstance(kwargs, list) or len(names) != len(kwargs):
        raise UserError(f"{place}: instruction_id_list and kwargs must be lists of the same length, at least one")
    registry = verifier().instructions_registry.INSTRUCTION_DICT
    cases = []
    for name, given in zip(names, kwargs, strict=True):
        if name not in registry or not isinstance(given, dict):
            raise UserError(f"{place}: lm-eval knows no instruction {name!r} with the kwargs {given!r:.80}")
        arguments = {key: value for key, value in given.items() if value is not None}
        if lacking := set(registry[name](name).get_instruction_args_keys()) - set(arguments):
            raise UserError(f"{place}: {name} needs {', '.join(sorted(lacking))} in its kwargs")
        cases.append({"id": name, "arguments": arguments})
    return Problem(f"ifeval-{key}", prompt, "ifeval", cases)


def _describe(case: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name} {value}" for name, value in case["arguments"].items())
    return f"{case['id']} ({arguments})" if arguments else str(case["id"])


@cache
def verifier() -> Any:
    """lm-eval's module of strict and loose checks, imported without the harness, which takes ten seconds to load."""
    nltk, langdetect = (importlib.import_module(name) for name in ("nltk", "langdetect"))
    nltk.data.path.append(str(SENTENCE_MODEL))  # last, so that an installed model goes first
    langdetect.DetectorFactory.seed = 0
    logging.getLogger("lm_eval.tasks.ifeval").setLevel(logging.CRITICAL)  # it logs whole responses
    tasks = ModuleType("lm_eval.tasks")
    tasks.__path__ = [str(Path(importlib.import_module("lm_eval").__path__[0], "tasks"))]
    whole = sys.modules.get("lm_eval.tasks")
    sys.modules["lm_eval.tasks"] = whole or tasks
    try:
        return importlib.import_module("lm_eval.tasks.ifeval.utils")
    finally:
        if whole is None:
            del sys.modules["lm_eval.tasks"]


_ENGLISH = "The quick brown fox jumps over the lazy dog while it rains in the old town"
_GERMAN = "Der schnelle braune Fuchs springt in der alten Stadt über den faulen Hund"
# Instruction, arguments, a response that follows it, and one that does not.
KNOWN: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("keywords:existence", {"keywords": ["river", "stone"]}, "A stone in a River.", "A stone."),
    ("keywords:frequency", {"keyword": "hi", "frequency": 2, "relation": "at least"}, "hi, Hi", "hi"),
    ("keywords:forbidden_words", {"forbidden_words": ["rain"]}, "It rained.", "No rain."),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "at least"}, "Zzz", "a z"),
    ("language:response_language", {"language": "de"}, _GERMAN, _ENGLISH),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        "Dr. Lee left. Who knows why? I do.",
        "Mr. Lee met Dr. May at 3.15 in Main St. near the river.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "Three short words", "one 2 3 four"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "two"},
        "One.\n\nTwo, then.",
        "Two.\n\nOne.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [date]", "[name], (date)"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. More.", "Bye.\nPS more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and b"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "PART", "num_sections": 2},
        "PART 1\na\nPART 2\nb",
        "PART 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<A title>>\nText", "# A title"),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n***\nTwo."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "Say hi. Hi.", "Hi. Say hi."),
    ("startend:end_checker", {"end_phrase": "Is that all?"}, "Yes. Is that all?", "Is that all? Yes."),
    ("startend:quotation", {}, '"Hi."', '"Hi."!'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "The BIG RED fox.",
        "The BIG red fox.",
    ),
    ("change_case:english_capital", {}, _ENGLISH.upper(), _ENGLISH),
    ("change_case:english_lowercase", {}, _ENGLISH.lower(), _ENGLISH),
    ("punctuation:no_comma", {}, "None here.", "One, here."),
)

load = IFEval
