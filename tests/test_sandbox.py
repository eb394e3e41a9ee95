"""The sandbox: what harmless programs get, and that more than a hundred hostile ones get nothing."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.envs.sandbox import Outcome, Sandbox, call, client, layers
from resd.envs.sandbox.client import KERNEL_LAYERS
from resd.types import UserError

ROOT = Path(__file__).resolve().parents[1]
ALL = ("nobody", "namespaces", "no_new_privs", "landlock", "rlimits", "seccomp")
SECONDS = 0.2  # for programs that will use them up
PATIENT = 60.0  # more than harmless programs take on the busiest machine
WIDER = (0.5, 2.0, 8.0, 32.0)  # deadlines, of which a test takes the first that this machine can keep
SHARED = 0x5E5D  # key of shared memory that nobody has
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of what Linux offers")


def run(source: str, *arguments: Any, seconds: float = PATIENT, **options: Any) -> list[Outcome]:
    return call(source, "f", arguments or [1], seconds, **options)


def kinds(outcomes: list[Outcome]) -> list[str | None]:
    return [outcome.error for outcome in outcomes]


# -------------------------------------------------------------------------------------------- harmless programs


def test_values_come_back_in_order() -> None:
    assert run("def f(x):\n    return [x, (2 * x, [])]", 1, 0.1, -3) == [
        Outcome([1, [2, []]]),
        Outcome([0.1, [0.2, []]]),
        Outcome([-3, [-6, []]]),
    ]
    assert run("def f(x): return x", [1, [2.5]]) == [Outcome([1, [2.5]])]
    assert call("def f(x): return x", "f", [], PATIENT) == []


@given(st.recursive(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70), st.lists))
@settings(max_examples=30)
def test_numbers_cross_the_border_unchanged(value: Any) -> None:
    [outcome] = run("def f(x): return x", value)
    assert repr(outcome.value) == repr(value) or float(outcome.value) == value


def test_what_programs_may_use() -> None:
    source = """
import math, random
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import List

@dataclass
class Point:
    x: "float"

def helper(x: float) -> List[float]:
    print("hello", flush=True)
    return [math.sqrt(Point(x).x), float(Fraction(1, 2)), deque([3]).pop(), 0 * random.random()]

f = helper
"""
    assert run(source, 4) == [Outcome([2.0, 0.5, 3, 0.0])]


@pytest.mark.parametrize(
    ("source", "kind", "detail"),
    [
        ("def f(x)", "syntax", "line 1"),
        ("\tdef f(x): pass\n  return", "syntax", "IndentationError"),
        ("def g(x): return 1", "exception", "name 'f' is not defined"),
        ("def f(x):\n    return 1 / 0", "exception", "ZeroDivisionError: division by zero\nline 2, in f: return 1 / 0"),
        ("import numpy\ndef f(x): return 1", "exception", "No module named 'numpy'"),
        ("1 / 0", "exception", "line 1, in <module>: 1 / 0"),
        ("def f(x): return x < 2", "bad_value", "type bool"),
        ("def f(x): return bytearray(2 ** 33)", "memory", "512 MB"),
        ("def f(x):\n    while True: pass", "timeout", "ran out of time"),
        ("import os\ndef f(x): os._exit(3)", "killed", "exit status 3"),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", "killed", "SIGSEGV"),
        ("#" * 200_000, "too_long", "bytes"),
    ],
)
def test_errors_say_what_happened(source: str, kind: str, detail: str) -> None:
    [outcome] = run(source, seconds=SECONDS if kind == "timeout" else PATIENT)
    assert (outcome.value, outcome.error) == (None, kind)
    assert detail in outcome.detail


def test_a_call_that_hangs_or_dies_loses_itself_alone() -> None:
    source = "import os\ndef f(x):\n    while x == 2: pass\n    return os._exit(0) if x == 4 else x"
    for seconds in WIDER:
        outcomes = run(source, 1, 2, 3, 4, 5, seconds=seconds)
        if kinds(outcomes).count("timeout") == 1:
            break
    assert [outcome.value for outcome in outcomes] == [1, None, 3, None, 5]
    assert kinds(outcomes) == [None, "timeout", None, "killed", None]


def test_an_answer_has_a_deadline_besides_its_calls() -> None:
    source = "import time\ndef f(x):\n    time.sleep(1000 * x)\n    return x"
    for seconds in WIDER:
        outcomes = run(source, *range(50), seconds=1000.0, seconds_per_answer=seconds)
        if outcomes[0].error is None:
            break
    assert kinds(outcomes) == [None, *["timeout"] * 49]


def test_answers_do_not_see_each_other() -> None:
    source = (
        "import math, random\nmath.kept = getattr(math, 'kept', 0) + 1\ndef f(x): return [math.kept, random.random()]"
    )
    assert run(source) == run(source)
    assert run(source)[0].value[0] == 1


def test_threads_may_call_at_once() -> None:
    found: dict[int, list[Outcome]] = {}

    def work(number: int) -> None:
        found[number] = run("def f(x): return x", number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [Outcome(number)] for number in range(8)}


# --------------------------------------------------------------------------------------------- hostile programs


class World:
    """What programs could reach if they got out, and whether any did."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o777)
        self.folder, self.file = folder, folder / "file"
        self.file.write_text("secret")
        self.file.chmod(0o666)
        self.before = self.file.stat()
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(self.tcp.getsockname())
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.unix.bind(f"{folder}/socket")
        self.abstract.bind(f"\0{folder}")
        os.chmod(f"{folder}/socket", 0o777)
        for listener in (self.unix, self.abstract):
            listener.listen()
        self.signals: list[int] = []
        self.core = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (self.core[1],) * 2)
        self.of_process = self.mine()
        signal.signal(signal.SIGUSR1, lambda number, _: self.signals.append(number))

    def arm(self, source: str) -> str:
        names = {"file": self.file, "folder": self.folder, "path": f"{self.folder}/socket", "abstract": self.folder}
        names |= {"port": self.tcp.getsockname()[1], "parent": os.getpid(), "key": SHARED}
        for name, value in names.items():
            source = source.replace(f"{{{name}}}", str(value))
        return source

    def check(self) -> None:
        """Nothing has happened."""
        assert sorted(path.name for path in self.folder.iterdir()) == ["file", "socket"]
        assert not Path("/dev/shm/filled").exists()
        after = self.file.stat()
        assert self.file.read_text() == "secret"
        assert (after.st_mode, after.st_uid, after.st_mtime) == (
            self.before.st_mode,
            self.before.st_uid,
            self.before.st_mtime,
        )
        for listener in (self.tcp, self.unix, self.abstract):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
        self.udp.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.udp.recv(9)
        assert self.signals == []
        assert self.mine() == self.of_process
        assert not re.search(rf"(?m)^ *{SHARED} ", Path("/proc/sysvipc/shm").read_text())

    def mine(self) -> tuple[Any, ...]:
        """What another process of the same user could change of this one."""
        return resource.getrlimit(resource.RLIMIT_CORE), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)

    def close(self) -> None:
        for each in (self.tcp, self.udp, self.unix, self.abstract):
            each.close()
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, self.core)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # where an unprivileged user could get
        world = World(Path(folder))
        yield world
        world.close()


ATTACKS = hostile.FILES | hostile.NETWORK | hostile.PROCESSES | hostile.MEMORY
PROGRAMS = ATTACKS | hostile.SECONDS | hostile.VALUES | hostile.ENDINGS


def attack(world: World, source: str, sandbox: Any = call, seconds: float = SECONDS) -> list[Outcome]:
    """The outcomes of a hostile program, after which a harmless one gets what it should."""
    start = time.monotonic()
    outcomes = sandbox(world.arm(source), "predict_position", [0.1, 0.2], seconds, allow_unsafe=True)
    assert time.monotonic() - start < PATIENT + 1.25 * seconds  # many take for ever if they may
    after = sandbox(
        "def predict_position(t): return [t, 1]", "predict_position", [0.1, 0.2], PATIENT, allow_unsafe=True
    )
    assert after == [Outcome([0.1, 1]), Outcome([0.2, 1])]
    world.check()
    return outcomes


def test_there_are_enough_of_them() -> None:
    assert len(PROGRAMS) > 100


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_fail(world: World, name: str) -> None:
    for outcome in attack(world, ATTACKS[name]):
        assert outcome.value in (0, None)


@pytest.mark.parametrize("name", hostile.SECONDS)
def test_what_takes_for_ever_is_ended(world: World, name: str) -> None:
    for outcome in attack(world, hostile.SECONDS[name]):
        assert outcome.error in ("timeout", "killed", "memory"), outcome


@pytest.mark.parametrize("name", hostile.VALUES)
def test_only_plain_numbers_come_out(world: World, name: str) -> None:
    outcomes = attack(world, hostile.VALUES[name])
    assert all(outcome.value is None for outcome in outcomes), outcomes
    assert outcomes[0].error in ("bad_value", "timeout", "killed"), outcomes


@pytest.mark.parametrize("name", hostile.ENDINGS)
def test_programs_that_break_their_process_break_nothing_else(world: World, name: str) -> None:
    outcomes = attack(world, hostile.ENDINGS[name], seconds=PATIENT)
    assert all(outcome.value is None for outcome in outcomes), outcomes
    assert {*kinds(outcomes)} <= {"syntax", "exception", "killed", "bad_value"}
    for outcome in outcomes:
        assert len(outcome.detail) <= 2000
        assert outcome.detail.encode().decode().isprintable() or "\n" in outcome.detail


# ------------------------------------------------------------------------------------------------------ layers


WEAKER = {  # what a layer does not hold alone; harmless things included, such as listening where nobody can connect
    "seccomp": set(),
    "landlock": {"make a file without a name", "send by UDP", "reach a socket in a file", "talk to the kernel"}
    | {"change permissions", "change the owner", "set a time stamp"},
    "namespaces": {"make a file without a name", "listen", "talk to the kernel", "leave shared memory"},
}
OTHERS = ("limit the process that asked", "slow the process that asked", "move the process that asked")


def test_layers_are_reported() -> None:
    assert set(layers()) <= set(ALL)
    assert not KERNEL_LAYERS.isdisjoint(layers())


@pytest.mark.parametrize("layer", WEAKER)
def test_each_layer_holds_alone(world: World, layer: str) -> None:
    if layer not in layers():
        pytest.skip(f"this machine has no {layer}")
    others = ("fork bomb", *(() if layer == "landlock" else (*OTHERS, "leave shared memory")))
    attacks = hostile.FILES | hostile.NETWORK | {name: hostile.PROCESSES[name] for name in others}
    with Sandbox(without=KERNEL_LAYERS - {layer}) as sandbox:
        for name in attacks.keys() - WEAKER[layer]:
            for outcome in attack(world, attacks[name], sandbox.call, PATIENT):
                assert outcome.value == 0, name


def test_without_layers_nothing_is_run_and_attacks_would_succeed(world: World) -> None:
    source = world.arm(hostile.FILES["read a file"])
    with Sandbox(without=KERNEL_LAYERS) as sandbox:
        with pytest.raises(UserError, match="allow_unsafe"):
            sandbox.call(source, "predict_position", [0.1], PATIENT)
        assert sandbox.call(source, "predict_position", [0.1], PATIENT, allow_unsafe=True) == [Outcome(666)]


def test_landlock_alone_holds_no_program() -> None:
    with Sandbox(without=KERNEL_LAYERS - {"landlock"}) as sandbox:
        with pytest.raises(UserError, match="neither user namespaces nor seccomp"):
            sandbox.call("def f(x): return x", "f", [1], PATIENT)
        assert sandbox.call("def f(x): return x", "f", [1], PATIENT, allow_unsafe=True) == [Outcome(1)]


@pytest.mark.skipif(os.getuid() == 0, reason="nobody may not do this to root")
@pytest.mark.parametrize("name", OTHERS)
def test_why_it_does_not(world: World, name: str) -> None:
    with Sandbox(without=KERNEL_LAYERS - {"landlock"}) as sandbox:
        source = world.arm(hostile.PROCESSES[name]).replace(str(os.getpid()), "imported('os').getppid()")
        assert sandbox.call(source, "predict_position", [1], PATIENT, allow_unsafe=True) == [Outcome(666)]


def test_a_child_with_fewer_layers_than_at_the_start_gets_no_program() -> None:
    with Sandbox() as sandbox:
        sandbox.layers = (*sandbox.layers, "one more")
        with pytest.raises(RuntimeError, match="one more"):
            sandbox.call("def f(x): return x", "f", [1], PATIENT)


@pytest.mark.skipif(os.getuid() != 0, reason="the limit on processes holds for everyone but root")
def test_the_whole_tree_is_killed() -> None:
    source = """
import os, time
def f(x):
    for _ in range(3):
        if not os.fork():
            os.setsid()
            os.fork()
            time.sleep(60)
    return 1
"""
    with Sandbox(without=ALL) as sandbox:
        assert sandbox.call(source, "f", [1], PATIENT, allow_unsafe=True) == [Outcome(1)]
        assert descendants(sandbox.process.pid) == []


def test_no_program_leaves_a_core(world: World) -> None:
    with Sandbox(without=ALL) as sandbox:
        limit = "import resource\ndef f(x): return resource.getrlimit(resource.RLIMIT_CORE)"
        assert sandbox.call(limit, "f", [1], PATIENT, allow_unsafe=True) == [Outcome([0, 0])]


def test_programs_inherit_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "secret")
    source = "import os, sys\ndef f(x): return ['SECRET' in os.environ and 1 or 0, len(sys.argv), len(sys.path)]"
    with Sandbox() as sandbox, open(__file__) as held:
        os.set_inheritable(held.fileno(), True)
        assert sandbox.call(source, "f", [1], PATIENT)[0].value[0] == 0
        read = f"import os\ndef f(x): return len(os.read({held.fileno()}, 9))"
        assert kinds(sandbox.call(read, "f", [1], PATIENT)) == ["exception"]


def test_the_server_is_started_again_after_it_was_lost() -> None:
    with Sandbox() as sandbox:
        sandbox.process.kill()
        for process in descendants(sandbox.process.pid):
            os.kill(process, signal.SIGKILL)
        try:
            sandbox.call("def f(x): return x", "f", [1], PATIENT)
        except RuntimeError as error:  # the loss was noticed only when it was used
            assert "broken" in str(error)  # noqa: PT017
        assert sandbox.call("def f(x): return x", "f", [1], PATIENT) == [Outcome(1)]


@pytest.mark.parametrize("whole", [True, False])
def test_a_server_that_stands_still_is_ended(monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    monkeypatch.setattr(client, "_END_SECONDS", 0.2)
    sandbox = Sandbox()
    tree = [sandbox.process.pid, *descendants(sandbox.process.pid)]
    for process in tree if whole else tree[-1:]:
        os.kill(process, signal.SIGSTOP)
    sandbox.close()
    wait_until(lambda: not any(is_running(process) for process in tree))


@pytest.mark.parametrize(
    "before",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "os.close(0); os.close(1)",
        "[os.close(number) for number in range(3)]",
        "os.close(2)",
    ],
)
def test_it_starts_in_a_process_of_any_kind(before: str, tmp_path: Path) -> None:
    program = f"""
import os, signal
os.chdir({str(ROOT)!r})
said = os.open({str(tmp_path / "said")!r}, os.O_CREAT | os.O_WRONLY)
os.dup2(said, 10)
os.close(said)
{before}
from resd.envs.sandbox import call
outcomes = call("import os\\ndef f(x): return x if x < 3 else os._exit(4)", "f", [1, 2, 3], 60.0)
os.write(10, repr([(outcome.value, outcome.detail[-13:]) for outcome in outcomes]).encode())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=300)
    assert done.returncode == 0
    assert (tmp_path / "said").read_text() == "[(1, ''), (2, ''), (None, 'exit status 4')]"


def test_nothing_is_left_when_the_asking_process_is_killed() -> None:
    program = """
import sys
from resd.envs.sandbox import Sandbox
sandbox = Sandbox()
print(sandbox.process.pid, flush=True)
sandbox.call("def f(x):\\n    while True: pass", "f", [1], 60.0)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as asking:
        assert asking.stdout
        server = int(asking.stdout.readline())
        wait_until(lambda: descendants(server) != [])
        tree = [server, *descendants(server)]
        asking.kill()
    wait_until(lambda: not any(is_running(process) for process in tree))


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 2 * PATIENT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def descendants(process: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return children + [grandchild for child in children for grandchild in descendants(child)]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
