"""An address: what is asked again, what is lost, and how long it takes."""

import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from stand_in import Server, serve

from resd.address import Address, Failed, _pause
from resd.settings import RemoteSettings
from resd.types import UserError

PATIENCE = RemoteSettings(timeout=5, retries=2, at_once=4)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Server(lambda path, body: {"path": path, "number": body.get("number")})) as running:
        yield running


def address(server: Server, **changes: Any) -> Address:
    found = Address("author", server.url, None, PATIENCE.model_copy(update=changes))
    found.open()
    return found


def test_answers_come_in_order_under_the_served_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESD_AUTHOR_KEY", "secret")
    answers = address(server).ask("completions", [{"number": n} for n in range(20)])
    assert answers == [{"path": "/v1/completions", "number": n} for n in range(20)]
    assert all(body["model"] == "served" for _, body in server.asked)
    assert all(headers["Authorization"] == "Bearer secret" for headers in server.headers)


BUSY = (429, {"Retry-After": "0"}, b"")
CUT = (200, {"Content-Length": "100"}, b'{"half": ')  # and the connection ends


@pytest.mark.parametrize("fault", [BUSY, (503, {"Retry-After": "0"}, b""), (500, {"Retry-After": "0"}, b""), CUT])
def test_the_busy_and_the_dying_are_asked_again(server: Server, fault: Any) -> None:
    there = address(server, at_once=1)
    server.faults = [fault, fault]
    assert there.ask("completions", [{"number": 1}]) == [{"path": "/v1/completions", "number": 1}]
    assert (there.take_retried(), there.take_retried()) == (2, 0)
    server.faults = [fault] * 3
    [lost] = there.ask("completions", [{"number": 1}])
    assert isinstance(lost, Failed)
    assert "3 tries" in lost.reason
    assert there.take_retried() == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ((400, {}, b'{"error": {"message": "max_logprobs is 20"}}'), "status 400: max_logprobs is 20"),
        ((404, {}, b""), "status 404: no reason given"),
        ((401, {}, b'{"error": "no key\\nat all"}'), "status 401: no key"),
        ((307, {"Location": "/elsewhere"}, b"moved"), "status 307: moved"),
        ((200, {}, b'{"half": '), "half an answer"),
        ((200, {}, b"[1]"), "half an answer"),
        ((200, {}, b"\xff\xfe"), "half an answer"),
    ],
)
def test_a_refusal_is_an_answer(server: Server, fault: Any, reason: str) -> None:
    there = address(server)
    server.faults = [fault]
    assert there.ask("completions", [{}]) == [Failed(reason)]
    assert there.take_retried() == 0


def test_an_answer_that_takes_too_long_is_lost(server: Server) -> None:
    there = address(server, timeout=0.2, retries=0)
    server.faults = [lambda: time.sleep(1.0) or {}]
    [lost] = there.ask("completions", [{}])
    assert isinstance(lost, Failed)


def test_nobody_there_is_found_out_once(server: Server) -> None:
    """Of twenty requests only the first ones wait between tries."""
    there = Address("author", "http://127.0.0.1:9/v1", None, PATIENCE.model_copy(update={"retries": 1, "at_once": 2}))
    lost = there.ask("completions", [{}] * 20)
    assert all(isinstance(each, Failed) for each in lost)
    assert there.take_retried() <= 4


def test_retry_after_is_a_number_or_a_date_and_nothing_else() -> None:
    assert _pause("3") == 3.0
    assert 50 < (_pause(formatdate(time.time() + 60, usegmt=True)) or 0) <= 60
    assert _pause(formatdate(time.time() - 60)) == 0.0
    assert [_pause(text) for text in (None, "soon", "nan", "")] == [None] * 4


def test_an_address_without_a_server_is_one_sentence(server: Server) -> None:
    wrong = server.url.removesuffix("/v1")
    for url, model, said in [
        ("http://127.0.0.1:9/v1", None, r"author.url=http://127.0.0.1:9/v1 does not answer \(.*RESD_AUTHOR_KEY"),
        (wrong, None, r"does not answer \(status 404: not found\).*write http://HOST:PORT/v1"),
        (server.url, "other", "has no model other: write one of served"),
    ]:
        with pytest.raises(UserError, match=said):
            Address("author", url, model, PATIENCE).open()
    server.card = {}
    with pytest.raises(UserError, match="names no model"):
        address(server)
