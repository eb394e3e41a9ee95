"""The live report: what it serves and to whom, that it says when a run has gone on, and that a page draws it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Thread
from urllib.parse import quote, urlsplit

import pytest
from reported import choose, needs_browser, parse, walked, write_run

from resd.report.__main__ import main
from resd.report.groups import group_runs
from resd.report.html import render
from resd.report.live import Live, Server
from resd.report.read import read_runs


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(Live([write_run(tmp_path / "run", [0.0, 0.1])], "a run", [])) as found:
        thread = Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def get(server: Server, path: str) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=600)
    connection.request("GET", path)
    return connection.getresponse()


def goes_on(run: Path, step: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "kind": "train", "loss": 0.5}) + "\n")


def test_nothing_but_the_page_is_served_and_only_with_the_token(server: Server, tmp_path: Path) -> None:
    assert server.server_address[0] == "127.0.0.1"
    path = urlsplit(server.address).path
    assert len(path) > 30
    for wrong in ("/", "/report.html", path[:-2] + "/", "/" + "x" * 32 + "/", "/events/", "/..%2f", "/%e9/", "//"):
        refused = get(server, wrong)
        assert (wrong, refused.status) == (wrong, 403)
        assert b"token" in refused.read()
    for nothing in ("metrics.jsonl", "../run/metrics.jsonl", "?x", "/"):
        assert get(server, path + nothing).status == 404
    assert get(server, path[:-1]).status == 404
    answer = get(server, path)
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    (tmp_path / "page.html").write_bytes(answer.read())
    page = parse(tmp_path / "page.html")
    assert page["data"]["runs"][0]["timeline"]["steps"] == [0, 1]


def test_every_server_has_a_token_of_its_own(server: Server) -> None:
    with Server(server.live) as other:
        assert other.token != server.token


def test_an_event_says_that_the_run_has_gone_on(server: Server, tmp_path: Path) -> None:
    path = urlsplit(server.address).path
    before = server.live.version
    events = get(server, f"{path}events/{before}")
    assert events.headers["Content-Type"] == "text/event-stream"
    goes_on(tmp_path / "run", 2)
    told = events.readline().decode()
    assert told == f"data: {server.live.version}\n"
    assert told != f"data: {before}\n"
    assert b'data-version="' + server.live.version.encode() in get(server, path).read()
    assert get(server, f"{path}events/{before}").readline().decode() == told  # a page that missed it hears of it too


def test_a_page_that_cannot_be_made_leaves_the_one_before(server: Server, tmp_path: Path) -> None:
    before = server.live.newest()
    (tmp_path / "run" / "config.yaml").write_text("a: [1")
    assert server.live.newest() == before
    (tmp_path / "run" / "config.yaml").write_text("seed: 7")
    assert b"seed 7" in server.live.newest()


def test_what_takes_long_to_draw_is_drawn_less_often(tmp_path: Path) -> None:
    live = Live([write_run(tmp_path / "run", [0.0, 0.1])], "a run", [])
    before = live.version
    goes_on(tmp_path / "run", 2)
    live.rested = float("inf")
    assert live.changed(before) is None
    live.rested = 0.0
    assert live.changed(before) == live.version
    assert live.changed(live.version) is None


def test_ctrl_c_ends_it_with_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.0, 0.1])
    command = [sys.executable, "-m", "resd.report", str(run), "--live"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        connection = HTTPConnection(urlsplit(address).netloc, timeout=600)
        connection.request("GET", f"{urlsplit(address).path}events/none")
        connection.getresponse().readline()  # a browser that listens does not keep it
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=600)
    assert (process.returncode, said, complained) == (0, "ended\n", "")


def test_what_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--live"]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_a_file_has_no_way_to_a_server(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.0, 0.1])
    assert main([str(run), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "connect-src" not in text
    assert "EventSource" not in text


@needs_browser
def test_a_page_draws_what_is_new_and_keeps_what_is_looked_at(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.0, 0.1])

    def page() -> str:
        return render(group_runs(read_runs([run])), title="t", attempts_bytes=10**6, answers_bytes=1, version="v")

    first = page()
    goes_on(run, 2)
    with (run / "playbook.jsonl").open("a") as file:
        event = {"event": "add", "step": 2, "id": "heu-00009", "section": "heuristics", "text": "newer", "parents": []}
        file.write(json.dumps(event) + "\n")
    # the server is played: what it would send is at hand, and the event comes when the test says so
    stand_in = """<script>
      globalThis.EventSource = class { constructor(path) { globalThis.events = this; this.path = path; } close() {} };
      globalThis.fetch = async () => new Response(decodeURIComponent(document.getElementById("newer").textContent));
    </script>"""
    newer = f'<pre id="newer" hidden>{quote(page())}</pre>'
    file = tmp_path / "page.html"
    file.write_text(first.replace("<title>", f"{stand_in}<title>").replace("</main>", f"</main>{newer}"))
    look = choose("playbook", "search", "newer") + "; document.querySelector('#playbook input').focus()"
    updates = "[...document.querySelectorAll('#overview details td.number')].map((each) => each.textContent).join(' ')"
    facts = f"`${{document.activeElement.type}} has the focus, ${{events.path}}, updates ${{{updates}}}`"
    event = f"await events.onmessage(); document.querySelector('#playbook').append(el('p', {{}}, {facts}))"
    over = "events.onerror(); document.querySelector('#playbook').append(document.querySelector('footer').innerText)"
    _, before, after, end = walked(file, tmp_path / "profile", "playbook", look, event, over)
    assert "0 shown" in before
    assert "1 shown" in after
    assert after.endswith("search has the focus, events/v, updates 0 2 2 3")
    assert "No longer live" in end
