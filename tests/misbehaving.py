"""A task whose verifier misbehaves in the way that a response names; importable, since it runs in another process.

Each function below is one way. It may return or raise what it likes; a plain response is judged as in `verifier_tasks`.
`MARK` stands in the command line of processes that are started, so that a test can look for what is left of them.
"""

import _thread
import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from verifier_tasks import Echo

from resd.types import Problem, UserError, Verdict

# seconds that nothing else sleeps for; the judges inherit those of their test, tests beside it have others
MARK = os.environ.setdefault("MISBEHAVING_MARK", f"86399.{os.getpid()}")
OK = Verdict(1.0, True, 1, 1)


class Misbehaving(Echo):
    """`verify` does what the response names."""

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        return WAYS[response]() if response in WAYS else super().verify(problem, response, truncated)


def sleeper(**options: Any) -> None:
    subprocess.Popen(["sleep", MARK], **options)


def raises() -> Any:
    return {}["answr"]


def raises_user_error() -> Any:
    raise UserError("write a column named answer")


class Awkward(Exception):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text either")


def raises_what_cannot_be_pickled_or_said() -> Any:
    raise Awkward


def exits() -> Any:
    sys.exit(3)


def leaves() -> Any:
    os._exit(4)


def interrupts() -> Any:
    raise KeyboardInterrupt


def crashes() -> Any:
    ctypes.string_at(0)


def aborts() -> Any:
    os.abort()


def tells_its_core_limit() -> Any:
    return Verdict(0.0, False, 0, 1, str(resource.getrlimit(resource.RLIMIT_CORE)))


def kills_itself() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def stops_itself() -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)


def stops_its_guard_and_hangs() -> Any:
    os.kill(os.getppid(), signal.SIGSTOP)
    hangs()


def kills_its_guard() -> Any:
    os.kill(os.getppid(), signal.SIGKILL)
    hangs()


def kills_its_group() -> Any:
    os.killpg(0, signal.SIGKILL)


def hangs() -> Any:
    while True:
        time.sleep(1)


def ignores_signals_and_hangs() -> Any:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    hangs()


def swallows_everything_and_hangs() -> Any:
    while True:
        with suppress(BaseException):
            hangs()


def forks_and_both_return() -> Any:
    os.fork()
    return OK


def forks_and_both_raise() -> Any:
    os.fork()
    raise ValueError("both of us")


def forks_and_the_child_returns_late() -> Any:
    if os.fork() == 0:
        time.sleep(0.3)
        return Verdict(0.0, False, 0, 1, "from a child")
    return OK


def forks_and_the_child_exits() -> Any:
    if os.fork() == 0:
        sys.exit(5)
    return OK


def waits_for_a_forked_child() -> Any:
    if (child := os.fork()) == 0:
        return OK
    os.waitpid(child, 0)
    return OK


def bombs() -> Any:
    for number in range(40):
        sleeper(start_new_session=number % 2 == 0)
    hangs()


def bombs_and_returns() -> Any:
    for number in range(20):
        sleeper(start_new_session=number % 2 == 0)
    return OK


def forks_without_end() -> Any:
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    for _ in range(7):
        os.fork()
    while True:
        time.sleep(0.1)


def daemonises() -> Any:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", MARK])
        os._exit(0)
    return OK


def daemonises_and_dies() -> Any:
    daemonises()
    time.sleep(0.2)
    kills_itself()


def uses_a_pool() -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return Verdict(float(pool.apply(len, ("x",))), True, 1, 1)


def uses_a_forked_pool() -> Any:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return Verdict(float(pool.map(len, ["x", "y"])[0]), True, 1, 1)


def leaves_a_thread() -> Any:
    threading.Thread(target=hangs).start()
    return OK


def leaves_a_thread_that_exits() -> Any:
    threading.Timer(0.2, os._exit, (6,)).start()
    return OK


def leaves_a_thread_that_interrupts() -> Any:
    def interrupt() -> None:
        for _ in range(3):
            time.sleep(0.01)
            _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    thread.join()
    return OK


def leaves_an_alarm() -> Any:
    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    return OK


def closes_files() -> Any:
    os.closerange(0, 100)
    return OK


def closes_files_and_opens_others() -> Any:
    os.closerange(0, 100)
    for _ in range(20):
        os.open(os.devnull, os.O_RDWR)
    return OK


def closes_standard_files() -> Any:
    for fd in range(3):
        os.close(fd)
    return OK


def closes_standard_streams() -> Any:
    sys.stdout.close()
    sys.stderr.close()
    return OK


def replaces_standard_streams() -> Any:
    sys.stdout = sys.stderr = None
    return OK


def writes_garbage() -> Any:
    for fd in range(200):
        with suppress(OSError):
            os.write(fd, b'\x80\x05garbage\n{"verdict": 1}\n0 0 {}')
    return OK


def writes_garbage_for_ever() -> Any:
    while True:
        writes_garbage()


def reads_everything() -> Any:
    for fd in range(3, 200):
        with suppress(OSError):
            os.read(fd, 1000)
    return OK


def changes_folder() -> Any:
    os.chdir(tempfile.gettempdir())
    return OK


def leaves_its_folder_deleted() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    return OK


def changes_environment() -> Any:
    os.environ.clear()
    os.environ["PATH"] = "/nowhere"
    return OK


def prints_much() -> Any:
    for _ in range(100):
        print("garbled" * 15_000)
        print("garbled" * 15_000, file=sys.stderr)
    return OK


def prints_and_raises() -> Any:
    print("the last words")
    raise ValueError("after printing")


def returns_much() -> Any:
    return Verdict(0.0, False, 0, 1, "x" * 100_000_000)


def runs_out_of_memory() -> Any:
    resource.setrlimit(resource.RLIMIT_AS, (2**28, resource.RLIM_INFINITY))
    return bytearray(2**33)


def recurses() -> Any:
    return recurses()


def raises_the_recursion_limit_and_recurses() -> Any:
    sys.setrecursionlimit(10**9)
    return recurses()


def warps_verdicts() -> Any:
    """An object that looks like a verdict, hangs where it is compared, and would act where it is unpickled."""
    return Sly(1.0, True, 1, 1)


class Sly(Verdict):
    def __reduce__(self) -> Any:
        return os.system, ("touch " + os.environ["SLY"],)


class SlyText(str):
    def __reduce__(self) -> Any:
        return os.system, ("touch " + os.environ["SLY"],)


class Hung(float):
    def __float__(self) -> Any:
        return hangs()

    def __reduce__(self) -> Any:
        return hangs, ()


def returns_sly_text() -> Any:
    return Verdict(0.0, False, 0, 1, SlyText("no"))


def returns_a_number_that_hangs() -> Any:
    return Verdict(Hung(0.5), False, 0, 1, "no")


def channel() -> Any:
    """The reply function's own socket and its token, as a verifier that looks around would find them."""
    frame = sys._getframe()
    while frame.f_code.co_name != "serve":
        assert frame.f_back
        frame = frame.f_back
    return frame.f_locals


def writes_half_a_reply() -> Any:
    found = channel()
    found["channel"].sendall(f"\n{found['token']} {found['number']} {{".encode())
    hangs()


def replies_to_another_question() -> Any:
    found = channel()
    wrong = '{"verdict": {"reward": 0.5, "passed": false, "cases_passed": 0, "cases_total": 1}}'
    for token, number in ((found["token"], found["number"] - 1), ("0", found["number"]), ("", 0)):
        found["channel"].sendall(f"\n{token} {number} {wrong}\n".encode())
    return OK


def forks_and_the_child_replies() -> Any:
    found = channel()
    if (child := os.fork()) == 0:
        found["reply"](found["number"], {"lost": "from a child"})
        os._exit(0)
    os.waitpid(child, 0)
    return OK


def spins() -> Any:
    while True:
        pass


def tells() -> Any:
    return "programs are held"


def limits_its_processor_time() -> Any:
    resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
    spins()


def with_(*fields: Any, **more: Any) -> Callable[[], Any]:
    return lambda: Verdict(*fields, **more)


RIGHT: dict[str, Callable[[], Any]] = {
    "numpy": with_(np.float32(1), np.bool_(True), np.int64(1), np.int32(1), scores={"x": np.float16(0.5)}),
    "arrays of one": with_(np.array(1.0), np.array(True), np.array([1]), np.array(1)),
    "whole reward": with_(1, True, 1, 1),
    "surrogates": with_(1.0, True, 1, 1, "a\udcffb", "\ud800", "\udfff", {"\udcff": 1.0}),
}
WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "tuple": lambda: (1.0, "no"),
    "float": lambda: 1.0,
    "class": lambda: Verdict,
    "array": lambda: np.zeros(3),
    "reward NaN": with_(float("nan"), False, 0, 1, "no"),
    "reward inf": with_(float("inf"), False, 0, 1, "no"),
    "reward numpy NaN": with_(np.float32("nan"), False, 0, 1, "no"),
    "reward 5": with_(5.0, False, 0, 1, "no"),
    "reward -1": with_(-1, False, 0, 1, "no"),
    "reward 10**400": with_(10**400, False, 0, 1, "no"),
    "reward high": with_("high", False, 0, 1, "no"),
    "reward None": with_(None, False, 0, 1, "no"),
    "reward 1j": with_(1j, False, 0, 1, "no"),
    "reward array": with_(np.ones(2), False, 0, 1, "no"),
    "passed None": with_(0.0, None, 0, 1, "no"),
    "passed yes": with_(0.0, "yes", 0, 1, "no"),
    "cases_passed -1": with_(0.0, False, -1, 1, "no"),
    "cases_passed 2": with_(0.0, False, 2, 1, "no"),
    "cases_passed 0.5": with_(0.0, False, 0.5, 1, "no"),
    "cases_total None": with_(0.0, False, 0, None, "no"),
    "feedback None": with_(0.0, False, 0, 1, None),
    "feedback bytes": with_(0.0, False, 0, 1, b"no"),
    "answer bytes": with_(0.0, False, 0, 1, "no", b"x"),
    "error 3": with_(0.0, False, 0, 1, "no", None, 3),
    "scores NaN": with_(0.0, False, 0, 1, "no", scores={"x": float("nan")}),
    "scores text": with_(0.0, False, 0, 1, "no", scores={"x": "y"}),
    "scores list": with_(0.0, False, 0, 1, "no", scores=[1.0]),
    "scores 3": with_(0.0, False, 0, 1, "no", scores={3: 1.0}),
}
WAYS: dict[str, Callable[[], Any]] = {
    **{name: way for name, way in globals().items() if callable(way) and getattr(way, "__module__", "") == __name__},
    **RIGHT,
    **WRONG,
}
