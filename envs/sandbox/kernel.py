"""What the Linux kernel offers to hold a process that runs untrusted code, called through ctypes.

    layer         what it takes away                                          needs
    nobody        the rights of root                                          to be root
    namespaces    files (an empty root), network, sight of other processes    user namespaces
    no_new_privs  set-user-id programs; the two below ask for it              -
    rlimits       memory, processor time, files, processes, core dumps        -
    landlock      opening files, TCP, signals to the outside                  Linux 5.13, complete since 6.12
    seccomp       every system call but a dozen                               x86-64 or aarch64

Each function either does what it says or raises OSError and changes nothing that matters; none can be undone. The
numbers are those of the kernel's headers (`man 7 landlock`, `man 2 seccomp`, `man 7 user_namespaces`).
"""

import ctypes
import os
import platform
import resource
import struct

_libc = ctypes.CDLL(None, use_errno=True)

_NO_NEW_PRIVS, _SECCOMP, _SUBREAPER, _DUMPABLE = 38, 22, 36, 4  # of prctl
_NEW_USER, _NEW_PID, _NEW_NET, _NEW_IPC, _NEW_UTS, _NEW_NS = (1 << bit for bit in (28, 29, 30, 27, 26, 17))
_PRIVATE_RECURSIVE, _HARDENED, _DETACH = 1 << 18 | 1 << 14, 1 << 3 | 1 << 2 | 1 << 1, 2  # of mount and umount2
_NOBODY = 65534
_EXECUTABLE = 4

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {  # numbers on x86_64 and aarch64; Landlock's are the same everywhere
    "pivot_root": (155, 41),
    "write": (1, 64),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "read": (0, 63),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "getrandom": (318, 278),
    "restart_syscall": (219, 128),
    "futex": (202, 98),
}


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _prctl(option: int, value: int, argument: object = 0) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), argument, ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _number(call: str, machine: str = platform.machine()) -> int:
    if machine not in _AUDIT:
        raise OSError(f"no system call numbers for {machine}")
    return CALLS[call][list(_AUDIT).index(machine)]


def become_nobody() -> None:
    """Give up root for good. Raises OSError for anyone else."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _prctl(_DUMPABLE, 1)  # or /proc/self would belong to root, and user namespaces could not be set up


def enter_namespaces() -> None:
    """New user, mount, process, network, IPC and host-name spaces, with an empty read-only root and no rights in them.

    Children of the caller live in the process space, the first as its init.
    """
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEW_USER | _NEW_NS | _NEW_PID | _NEW_NET | _NEW_IPC | _NEW_UTS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_PRIVATE_RECURSIVE), None))
    _check(_libc.mount(b"none", b"/tmp", b"tmpfs", ctypes.c_ulong(_HARDENED), b"size=4k,mode=0555"))
    os.chdir("/tmp")
    _check(_libc.syscall(_number("pivot_root"), b".", b"."))
    _check(_libc.umount2(b".", _DETACH))
    os.chdir("/")
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_HARDENED | 1 << 5 | 1), None))  # remount read-only
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    _check(_libc.capset(header, none))


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent ends, so that none can slip away."""
    _prctl(_SUBREAPER, 1)


def hide_memory() -> None:
    """Keep processes of the same user from tracing this one."""
    _prctl(_DUMPABLE, 0)


def leave_no_core() -> None:
    """A process that crashes writes no file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forbid_new_privileges() -> None:
    _prctl(_NO_NEW_PRIVS, 1)


def limit_resources(memory: int, seconds: int, files: int) -> None:
    """`memory` bytes of address space, `seconds` of processor time, descriptors below `files`; nothing is written."""
    limits = {"AS": memory, "CPU": seconds, "NOFILE": files, "FSIZE": 0, "NPROC": 0, "CORE": 0, "MEMLOCK": 0}
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (least, least))


def restrict_with_landlock() -> None:
    """No file can be opened, no TCP port bound or reached, no process outside signalled, as far as the kernel can."""
    version = _check(_libc.syscall(444, None, ctypes.c_size_t(0), 1))
    files = (1 << (13, 14, 15, 15, 16)[min(version, 5) - 1]) - 1
    rights = struct.pack("=QQQ", files, 0b11, 0b11)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _check(_libc.syscall(444, rights, ctypes.c_size_t(len(rights)), 0))
    try:
        _check(_libc.syscall(446, ruleset, 0))
    finally:
        os.close(ruleset)


def seccomp_filter(descriptors: int, machine: str = platform.machine()) -> bytes:
    """The filter program: what a sealed process needs in order to compute and to answer is allowed, nothing else.

    Writing is allowed to descriptors below `descriptors`, memory may be had but never be executable. Any other call
    fails with EPERM; a call in the manner of another processor ends the process.
    """
    load, equal, above, any_bit, give = 0x20, 0x15, 0x25, 0x45, 0x06  # instructions of classic BPF
    allow, deny, end = 0x7FFF0000, 0x00050001, 0x80000000
    number, audit, first, third = 0, 4, 16, 32  # offsets in struct seccomp_data: the call, the machine, arguments

    calls = {name: _number(name, machine) for name in CALLS}
    del calls["pivot_root"]
    code = [(load, 0, 0, audit), (equal, 1, 0, _AUDIT[machine]), (give, 0, 0, end), (load, 0, 0, number)]
    for name, argument, test, limit in (
        ("write", first, above, descriptors - 1),
        ("mmap", third, any_bit, _EXECUTABLE),
        ("mprotect", third, any_bit, _EXECUTABLE),
    ):
        code += [(equal, 0, 4, calls.pop(name)), (load, 0, 0, argument)]
        code += [(test, 1, 0, limit), (give, 0, 0, allow), (give, 0, 0, deny)]
    for call in calls.values():
        code += [(equal, 0, 1, call), (give, 0, 0, allow)]
    code.append((give, 0, 0, deny))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def restrict_with_seccomp(descriptors: int) -> None:
    """Install `seccomp_filter`."""
    code = seccomp_filter(descriptors)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    _prctl(_SECCOMP, 2, ctypes.cast(program, ctypes.c_void_p))
