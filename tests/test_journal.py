"""What is counted, and what of it is said."""

import io

import pytest
from rich.console import Console

from resd.report.journal import LOSSES, Journal
from resd.report.log import Log


@pytest.fixture
def journal() -> Journal:
    log = Log(None, talks=False)
    log.console = Console(file=io.StringIO(), width=1000, emoji=False, highlight=False)
    return Journal(log)


def said(journal: Journal) -> list[str]:
    assert isinstance(journal.log.console.file, io.StringIO)
    return journal.log.console.file.getvalue().splitlines()


@pytest.mark.parametrize("name", LOSSES)
def test_the_first_loss_of_a_kind_is_said_with_its_reason(journal: Journal, name: str) -> None:
    journal.step = 3
    journal.count(name, 0, why="nothing happened")
    assert said(journal) == []
    journal.count(name, 2, why="it was [b]this[/b]")
    journal.count(name, 1, why="it was that")
    journal.drain()
    journal.step = 4
    journal.count(name, 5, why="it was that")
    assert said(journal) == [f"lost in update 3 2 x {name} ({LOSSES[name]}): it was [b]this[/b]"]
    journal.conclude()
    assert said(journal)[1:] == [f"lost on the way 8 x {name} ({LOSSES[name]})"]


def test_each_kind_is_said_once_and_summed_by_name(journal: Journal) -> None:
    for step in (1, 2):
        journal.step = step
        journal.count("verify/lost", step, why="first")
        journal.count("rollout/lost", step - 1)
        journal.count("opinion/too_long", 1)
        journal.drain()
    assert said(journal) == [
        f"lost in update 1 1 x verify/lost ({LOSSES['verify/lost']}): first",
        "lost in update 1 1 x opinion/too_long (prompts beyond the limit, not asked)",
        f"lost in update 2 1 x rollout/lost ({LOSSES['rollout/lost']})",
    ]
    journal.conclude()
    assert said(journal)[3:] == [
        "lost on the way 2 x opinion/too_long (prompts beyond the limit, not asked); "
        f"1 x rollout/lost ({LOSSES['rollout/lost']}); 3 x verify/lost ({LOSSES['verify/lost']})"
    ]


def test_what_is_no_loss_is_counted_in_silence(journal: Journal) -> None:
    for name in ("playbook/added", "reflect/repaired", "curate/duplicates"):
        journal.count(name, 4)
    assert journal.losses == {}
    journal.conclude()
    assert said(journal) == []
    assert journal.drain() == {"playbook/added": 4, "reflect/repaired": 4, "curate/duplicates": 4}


def test_the_counts_of_an_update_are_its_own(journal: Journal) -> None:
    journal.count("verify/lost", 2)
    journal.count("verify/lost", 3)
    journal.count("tag/invalid", 0)
    assert journal.losses == {"verify/lost": 5}
    assert journal.drain() == {"verify/lost": 5, "tag/invalid": 0}  # a metric although it is zero
    assert journal.drain() == journal.losses == {}
    assert journal.lost == {"verify/lost": 5}
