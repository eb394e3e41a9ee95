"""How responses are worded: markers of doubt by outcome, where an answer is committed, and markers that are spared."""

from pathlib import Path
from typing import Any

import pytest
from scripted import World, model_settings
from test_config import load
from test_train import metrics, of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd.context.style import marked, spare, style
from resd.model.chat import Chat
from resd.settings import StyleSettings
from resd.types import Attempt, Problem, Sample, UserError, Verdict

MARKERS = ["wait", "hmm", "not sure", "not"]


def said(response: str, passed: bool, answer: str | None = None, parent: Attempt | None = None) -> Attempt:
    verdict = Verdict(float(passed), passed, int(passed), 1, "", answer=answer)
    return Attempt("1/a/0", Problem("a", ""), [], "", [], [], [], response, False, verdict, parent=parent)


def test_a_marker_is_a_word_of_its_own_in_either_case() -> None:
    text = "Wait, the waiter is not  sure. Hmm... not\nsure? nothing. (wait)"
    assert [text[slice(*span)] for span in marked(text, MARKERS)] == ["Wait", "not  sure", "Hmm", "not\nsure", "wait"]
    assert marked(text, []) == []


def test_rates_are_per_thousand_words_and_by_outcome() -> None:
    first = said("wait it is four hmm", True)
    attempts = [first, said("it is five and no more than that", False), said("wait wait", False, parent=first)]
    assert style(attempts, MARKERS) == pytest.approx(
        {"style/markers": 2000 / 13, "style/markers/passed": 400.0, "style/markers/failed": 0.0}
    )
    assert style([said("wait", True)], MARKERS)["style/markers"] == 1000.0
    assert style([], MARKERS) == style(attempts, []) == {}


def test_an_answer_is_committed_where_it_stands_first() -> None:
    told = [said("42 it is, 42", True, "42"), said("it is 42", True, "42"), said("none", False), said("so", False, "7")]
    assert style(told, MARKERS)["style/committed"] == 0.5


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(model_settings(str(tiny_model)))


def test_a_teacher_has_no_say_about_a_marker(chat: Chat) -> None:
    ids = chat.encode("so wait no")
    taught, weighed, alone = (
        Sample([1], ids, None, teacher_prompt_ids=[1]),
        Sample([1], ids, None, teacher_prompt_ids=[1], pull=[0.5] * len(ids)),
        Sample([1], ids, None, advantage=1.0),
    )
    spare([taught, weighed, alone], MARKERS, chat.pieces)
    kept = [0.0 if 3 <= i < 7 else 1.0 for i in range(len(ids))]
    assert taught.pull == kept
    assert weighed.pull == [each / 2 for each in kept]
    assert alone.pull == 1.0


def test_what_says_none_is_pulled_as_ever(chat: Chat) -> None:
    sample = Sample([1], chat.encode("so no"), None, teacher_prompt_ids=[1], pull=0.25)
    spare([sample], MARKERS, chat.pieces)
    assert sample.pull == 0.25


def test_an_update_counts_them(chat: Chat, tmp_path: Path) -> None:
    world = World(tmp_path, chat, "sdpo", {"one": "bad wait", "two": "right so"}, group=1)
    world.run.style = StyleSettings(markers=MARKERS, spare=False)
    world.update("one", "two")
    found = {name: world.metrics[name] for name in world.metrics if name.startswith("style/")}
    assert found == {"style/markers": 250.0, "style/markers/passed": 0.0, "style/markers/failed": 500.0}


@pytest.mark.parametrize("spared", [False, True])
def test_a_spared_token_teaches_nothing(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, spared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real program, with every token a marker's: then nothing moves."""
    everything: Any = lambda text, markers: [(0, len(text) + 1)]  # noqa: E731
    monkeypatch.setattr("resd.context.style.marked", everything)
    run(tiny_model, tmp_path, "algorithm=sdpo", f"style.spare={str(spared).lower()}")
    rows = of_kind(metrics(tmp_path), "train")
    assert [row["grad_norm"] > 0 for row in rows] == [not spared] * 2


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (["style.markers=[wait,' ']"], "style.markers has one without a word"),
        (["style.markers=[]", "style.spare=true"], "style.spare wants markers"),
    ],
)
def test_what_cannot_be_counted_is_refused(override: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(*override)
