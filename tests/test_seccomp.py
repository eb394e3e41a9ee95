"""The seccomp filter of the sandbox, decided by an interpreter of its instructions, for both kinds of processor."""

import re
import struct
from pathlib import Path

import pytest

from resd.envs.sandbox import kernel


def decide(machine: str, audit: int, number: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    """What the filter says about a system call: an interpreter of the five instructions it uses."""
    code = [*struct.iter_unpack("=HBBI", kernel.seccomp_filter(4, machine))]
    data = struct.pack("=iIQ6Q", number, audit, 0, *arguments)
    at = accumulator = 0
    while True:
        operation, if_true, if_false, constant = code[at]
        at += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, constant)[0]
        else:
            met = {0x15: accumulator == constant, 0x25: accumulator > constant, 0x45: bool(accumulator & constant)}
            at += if_true if met[operation] else if_false


MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, DENY, END = 0x7FFF0000, 0x00050001, 0x80000000


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_allows_a_dozen_calls_and_no_other(machine: str) -> None:
    column, audit = list(MACHINES).index(machine), MACHINES[machine]
    free = {numbers[column] for name, numbers in kernel.CALLS.items() if name != "pivot_root"}
    allowed = {number for number in range(-1, 700) if decide(machine, audit, number) == ALLOW}
    assert allowed == free
    assert {decide(machine, audit, number) for number in range(700) if number not in free} == {DENY}
    assert decide(machine, audit, 0x40000000) == decide(machine, audit, 0x40000000 | min(free)) == DENY
    assert {decide(machine, other, min(free)) for other in (0, 0x40000003, *MACHINES.values()) if other != audit} == {
        END
    }


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_looks_at_arguments(machine: str) -> None:
    column, audit = list(MACHINES).index(machine), MACHINES[machine]
    for name in ("mmap", "mprotect"):
        for protection in range(16):
            says = decide(machine, audit, kernel.CALLS[name][column], (0, 4096, protection, 0, 0, 0))
            assert says == (DENY if protection & 4 else ALLOW)
    for descriptor in (0, 1, 2, 3, 4, 5, 255, 2**31, 2**32 - 1):
        says = decide(machine, audit, kernel.CALLS["write"][column], (descriptor, 0, 0, 0, 0, 0))
        assert says == (ALLOW if descriptor < 4 else DENY)


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_call_numbers_are_those_of_the_kernel(machine: str) -> None:
    if not HEADERS[machine].is_file():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[machine].read_text()
    for name, numbers in kernel.CALLS.items():
        [number] = re.findall(rf"(?m)^#define __NR(?:3264)?_{name}\s+(\d+)$", text)
        assert int(number) == numbers[list(MACHINES).index(machine)], name
