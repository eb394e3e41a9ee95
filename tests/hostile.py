"""Programs that a sandbox has to hold. Each defines `predict_position(t)` and returns 666 if it gets what it wants.

What they want from the machine outside is to open `{file}`, to create files in `{folder}`, to reach the sockets at
`{port}`, `{path}` and `{abstract}`, or to disturb the process `{parent}`; the tests look at those from outside as well.
`SECONDS` of them run until the deadline.
"""

_PREAMBLE = """
import sys
def imported(name):
    return sys.modules.get(name) or __import__(name)
def tried(action):
    for descriptor in range(3):  # make room for descriptors, which are limited
        try:
            imported('os').close(descriptor)
        except OSError:
            pass
    try:
        return 666 if action() else 0
    except BaseException as error:
        return 0
"""


def _attempt(*lines: str) -> str:
    """A program whose call succeeds if the lines run through without an exception."""
    body = "\n".join(f"        {line}" for line in lines)
    call = f"def predict_position(t):\n    def action():\n{body}\n        return True\n    return tried(action)\n"
    return f"{_PREAMBLE}\n{call}"


FILES = {
    "read a file": _attempt("open('{file}').read()"),
    "read a file through os": _attempt("os = imported('os')", "os.read(os.open('{file}', os.O_RDONLY), 9)"),
    "read a file through io": _attempt("imported('io').FileIO('{file}').read()"),
    "read a file through a memory of its descriptor": _attempt(
        "os = imported('os')", "found = [fd for fd in range(4, 4096) if tried(lambda: os.fstat(fd))]", "assert found"
    ),
    "list the root": _attempt("assert imported('os').listdir('/')"),
    "list by scandir": _attempt("assert list(imported('os').scandir('{folder}'))"),
    "read /proc/self": _attempt("open('/proc/self/maps').read()"),
    "read the parent's memory": _attempt("open('/proc/{parent}/mem', 'rb').read(1)"),
    "read the parent's environment": _attempt("open('/proc/{parent}/environ').read()"),
    "write a file": _attempt("open('{folder}/written', 'w').write('x')"),
    "append to a file": _attempt("open('{file}', 'a').write('x')"),
    "fill the disk": _attempt("f = open('{folder}/filled', 'wb')", "while True: f.write(b'0' * 1000000)"),
    "fill shared memory": _attempt("open('/dev/shm/filled', 'wb').write(b'0' * 100)"),
    "make a file without a name": _attempt("imported('os').memfd_create('x')"),
    "make a folder": _attempt("imported('os').mkdir('{folder}/made')"),
    "make a link": _attempt("imported('os').symlink('{file}', '{folder}/linked')"),
    "delete a file": _attempt("imported('os').unlink('{file}')"),
    "rename a file": _attempt("imported('os').rename('{file}', '{file}.gone')"),
    "change permissions": _attempt("imported('os').chmod('{file}', 0o777)"),
    "change the owner": _attempt("imported('os').chown('{file}', 0, 0)"),
    "truncate a file": _attempt("imported('os').truncate('{file}', 0)"),
    "set a time stamp": _attempt("imported('os').utime('{file}', (1, 1))"),
    "mount": _attempt("import ctypes", "assert not ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
    "escape a root": _attempt("os = imported('os')", "os.chroot('/')", "os.listdir('..')"),
}
NETWORK = {
    "connect by TCP": _attempt("import socket", "s = socket.socket()", "s.connect(('127.0.0.1', {port}))"),
    "send by UDP": _attempt(
        "import socket", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))"
    ),
    "listen": _attempt("import socket", "socket.socket().bind(('127.0.0.1', 0))"),
    "reach a socket in a file": _attempt("import socket", "s = socket.socket(socket.AF_UNIX)", "s.connect('{path}')"),
    "reach an abstract socket": _attempt(
        "import socket", "s = socket.socket(socket.AF_UNIX)", "s.connect(chr(0) + '{abstract}')"
    ),
    "open a raw socket": _attempt("import socket", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    "ask the resolver": _attempt("import socket", "assert socket.gethostbyname('localhost')"),
    "talk to the kernel": _attempt("import socket", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
}
PROCESSES = {
    "fork": _attempt("imported('os').fork()"),
    "fork bomb": _attempt("os = imported('os')", "while True: os.fork()"),
    "fork by a raw call": _attempt("import ctypes", "assert ctypes.CDLL(None).syscall(57) >= 0"),
    "spawn": _attempt("os = imported('os')", "os.posix_spawn('/bin/true', ['true'], {})"),
    "run a command": _attempt("assert imported('os').system('true') == 0"),
    "replace the program": _attempt("imported('os').execv('/bin/sh', ['sh', '-c', 'touch {folder}/executed'])"),
    "subprocess": _attempt("import subprocess", "subprocess.run(['true'])"),
    "multiprocessing": _attempt("import multiprocessing as m", "m.get_context('fork').Process(target=int).start()"),
    "start a thread": _attempt("import threading", "threading.Thread(target=int).start()"),
    "a thread for every call": _attempt("import _thread", "_thread.start_new_thread(int, ())"),
    "become a daemon": _attempt("imported('os').setsid()"),
    "kill the parent": _attempt("os = imported('os')", "os.kill(os.getppid(), 9)"),
    "kill the process that asked": _attempt("imported('os').kill({parent}, 10)"),
    "kill everything": _attempt("imported('os').kill(-1, 9)"),
    "kill the group": _attempt("imported('os').killpg(0, 9)"),
    "trace the process that asked": _attempt(
        "import ctypes", "assert ctypes.CDLL(None).ptrace(16, {parent}, 0, 0) == 0"
    ),
    "trace the parent": _attempt(
        "import ctypes", "assert ctypes.CDLL(None).ptrace(16, imported('os').getppid(), 0, 0) == 0"
    ),
    "write into another process": _attempt(
        "import ctypes", "assert ctypes.CDLL(None).process_vm_writev({parent}, None, 0, None, 0, 0) == 0"
    ),
    "limit the process that asked": _attempt("imported('resource').prlimit({parent}, 4, (0, 0))"),
    "slow the process that asked": _attempt("imported('os').setpriority(0, {parent}, 19)"),
    "move the process that asked": _attempt("imported('os').sched_setaffinity({parent}, [0])"),
    "leave shared memory": _attempt("import ctypes", "assert ctypes.CDLL(None).shmget({key}, 4096, 0o1600) >= 0"),
    "raise its limits": _attempt("r = imported('resource')", "r.setrlimit(r.RLIMIT_AS, (-1, -1))"),
    "become root": _attempt("imported('os').setuid(0)"),
    "new namespaces": _attempt("import ctypes", "assert ctypes.CDLL(None).unshare(0x10000000) == 0"),
    "executable memory": _attempt(
        "import ctypes",
        "f = ctypes.CDLL(None).mmap",
        "f.restype = ctypes.c_long",
        "assert f(None, 4096, 7, 34, -1, 0) != -1",
    ),
    "executable stack": _attempt(
        "import ctypes",
        "b = ctypes.create_string_buffer(8192)",
        "page = (ctypes.addressof(b) + 4095) // 4096 * 4096",
        "assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), 4096, 7) == 0",
    ),
    "a program for the kernel": _attempt("import ctypes", "assert ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0"),
    "asynchronous calls": _attempt("import ctypes", "assert ctypes.CDLL(None).syscall(425, 8, None) >= 0"),
    "undo the seal": _attempt("import ctypes", "assert ctypes.CDLL(None).prctl(22, 0, None) == 0"),
}
SECONDS = {
    "endless loop": "def predict_position(t):\n    while True: pass",
    "endless loop when defined": "while True: pass\ndef predict_position(t): return 1",
    "endless loop that catches everything": (
        "def predict_position(t):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass"
    ),
    "sleep": "import time\ndef predict_position(t):\n    time.sleep(1000)",
    "endless output": "def predict_position(t):\n    while True: print('x' * 100000, flush=True)",
    "endless errors": "import sys\ndef predict_position(t):\n    while True: sys.stderr.write('x' * 100000)",
    "waits for input": "import os\ndef predict_position(t):\n    while True: os.read(0, 9)",
    "waits for a question that it was asked": "import os\ndef predict_position(t):\n    return os.read(3, 9) and 666",
    "a number that takes for ever": "def predict_position(t):\n    return 3 ** 10 ** 9",
    "a pattern that takes for ever": "import re\ndef predict_position(t):\n    return re.match('(a+)+b', 'a' * 99)",
    "a deadlock": "import _thread\ndef predict_position(t):\n    lock = _thread.allocate_lock()\n"
    "    lock.acquire()\n    lock.acquire()",
    "a string for ever": "class S(Exception):\n    def __str__(self):\n        while True: pass\n"
    "def predict_position(t):\n    raise S()",
    "a list for ever": "def predict_position(t):\n    return list(iter(int, 1))",
    "slow destructor": "class D:\n    def __del__(self):\n        while True: pass\n"
    "def predict_position(t):\n    D()\n    return 1",
}
MEMORY = {
    "ten gigabytes": "def predict_position(t):\n    return len(bytearray(10 * 2 ** 30)) and 666",
    "more and more memory": "def predict_position(t):\n    x = []\n    while True: x.append(bytearray(2 ** 24))",
    "memory kept": "kept = []\ndef predict_position(t):\n    while True: kept.append(bytearray(2 ** 24))",
    "a huge string": "def predict_position(t):\n    return 'x' * 2 ** 40",
    "a huge list": "def predict_position(t):\n    return [0] * 2 ** 40",
    "mapped memory": _attempt(
        "import ctypes",
        "f = ctypes.CDLL(None).mmap",
        "f.restype = ctypes.c_long",
        "assert f(None, 2 ** 34, 3, 34, -1, 0) != -1",
    ),
    "endless recursion": "def predict_position(t):\n    return predict_position(t)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(2 ** 31 - 1)\n"
    "class R:\n    def __repr__(self): return repr(self)\ndef predict_position(t):\n    return repr(R())",
    "brackets": "def predict_position(t): return " + "(" * 5000 + "1" + ")" * 5000,
    "a source of megabytes": "def predict_position(t): return 666\n" + "#" * 2_000_000,
}


def _returns(expression: str, *before: str) -> str:
    return "\n".join([*before, f"def predict_position(t):\n    return {expression}"])


_CHEAT = """
class Cheat(float):
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __radd__ = __mul__ = __abs__ = __pow__ = lambda self, other=0: 0.0
    def __le__(self, other): return True
    __eq__ = __lt__ = __ge__ = __gt__ = __le__
    __hash__ = float.__hash__
class List(list):
    def __len__(self): return 3
    def __iter__(self): return iter([0.0])
"""
VALUES = {
    "a number that equals all others": _returns("[[Cheat(1), Cheat(2)]]", _CHEAT),
    "a list that changes": _returns("List([1.0])", _CHEAT),
    "a list that changes, inside": _returns("[List([1.0])]", _CHEAT),
    "not a number": _returns("[float('nan')] * 2"),
    "infinity": _returns("float('inf')"),
    "minus infinity": _returns("[[-1e999, 0.0]]"),
    "true": _returns("True"),
    "true inside": _returns("[[True, 1.0]]"),
    "none": _returns("None"),
    "text": _returns("'[1, 2]'"),
    "bytes": _returns("b'12'"),
    "a dictionary": _returns("{'value': 1}"),
    "a complex number": _returns("[1j]"),
    "a huge integer": _returns("10 ** 400"),
    "an integer with a million digits": _returns("1 << 4_000_000"),
    "a fraction": _returns("Fraction(1, 3)", "from fractions import Fraction"),
    "a decimal": _returns("Decimal('NaN')", "from decimal import Decimal"),
    "a generator": _returns("(x for x in (1, 2))"),
    "a list in itself": _returns("a", "a = []", "a.append(a)"),
    "a deep list": _returns("a", "a = [1]", "for _ in range(100000): a = [a]"),
    "a list that doubles": _returns("a", "a = [1]", "for _ in range(14): a = [a] * 9"),
    "a long list": _returns("[0.123456789] * 100_000"),
    "the function": _returns("predict_position"),
    "a class with a hook": _returns("C()", "class C:\n    def __getattr__(self, name): return 666"),
    "two packets": _returns("predict_position", "import os", "os.write(3, b'{')"),
    "an endless reply": _returns("predict_position", "import os", "while True: os.write(3, b'x' * 100_000)"),
    "a reply of brackets": _returns("os.write(3, b'[' * 90_000) and None", "import os"),
    "a reply that is not a number": _returns("os.write(3, b'{\"value\": [NaN, Infinity]}') and None", "import os"),
    "a reply that is a text": _returns('os.write(3, b\'{"value": "1"}\') and None', "import os"),
    "a reply without an end": _returns("os.write(3, b'{\"value\": [1, 2') and None", "import os"),
    "a reply of a million digits": _returns(
        "os.write(3, b'{\"value\": ' + b'1' * 99_000 + b'}') and None", "import os"
    ),
    "an empty reply": _returns("os.write(3, b'') or None", "import os"),
    "an error that does not exist": _returns('os.write(3, b\'{"error": null, "detail": 1}\') and None', "import os"),
}
ENDINGS = {
    "exit": "import sys\nsys.exit(0)\ndef predict_position(t): return 1",
    "exit at once": "import os\nos._exit(0)",
    "exit in a call": "import os\ndef predict_position(t): os._exit(0)",
    "abort": "import os\ndef predict_position(t): os.abort()",
    "a null pointer": "import ctypes\ndef predict_position(t): return ctypes.string_at(0)",
    "an interrupt": "def predict_position(t): raise KeyboardInterrupt",
    "a closed channel": "import os\nos.close(3)\nos.dup2(0, 3)\ndef predict_position(t): return q",
    "an error with an error": (
        "class E(BaseException):\n    def __str__(self): raise E()\n    __repr__ = __str__\n"
        "def predict_position(t): raise E()"
    ),
    "an error whose text is no text": (
        "class E(Exception):\n    def __str__(self): return 3\ndef predict_position(t): raise E()"
    ),
    "an error with half a character": "def predict_position(t): raise ValueError('\\ud800' * 5000 + chr(27) + '[2J')",
    "no builtins": "import builtins\nvars(builtins).clear()\ndef predict_position(t): return 1",
    "no modules": "import sys\nsys.modules.clear()\ndef predict_position(t): return q",
    "a broken json": "import json\njson.dumps = lambda _: 'x'\ndef predict_position(t): return 1",
    "a broken writer": "import os\nos.write = lambda *_: q\ndef predict_position(t): return 1",
    "a tracer": (
        "import sys\ndef trace(*_):\n    raise SystemExit\nsys.settrace(trace)\ndef predict_position(t): return q"
    ),
    "work at the end": (
        "import atexit, os\natexit.register(lambda: os.write(3, b'{\"value\": 666}'))\ndef predict_position(t): exit()"
    ),
    "a null byte": "def predict_position(t): return 1\0",
    "no function": "x = 1",
    "the wrong arguments": "def predict_position(): return 1",
    "half a character": "def predict_position(t): return '\ud800'",
    "no program": "Sure! Here is the program:",
    "another coding": "# coding: rot13\nqrs cerqvpg_cbfvgvba(g): erghea 666",
}
