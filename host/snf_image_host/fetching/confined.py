"""Start a program that can open no files but those that programs and TLS need (R-FETCH-4).

Run by its path, in front of the words that take privileges away: with the caller's rights, so that the
account which curl gets need not be able to read this file. What the kernel's Landlock denies stays denied
after every exec and change of user. This runs before each request: it imports only what starts quickly.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

FAILED = 125
"""Status if the confinement, or what comes next, cannot be; none of curl's, and not "not found"."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_ASK_VERSION, _BENEATH_PATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_EXECUTE, _WRITE, _READ, _LIST = 1, 2, 4, 8
_NUMBER_OF_RIGHTS = (0, 13, 14, 15, 15, 16, 16, 16, 16, 17)
"""How many rights to files there are, by version of Landlock; each is a bit, and later versions add some."""
_FIRST_WITH_SCOPES = 6
_SCOPES = 3
"""No abstract sockets, no signals to processes outside."""
_IGNORED_BY_PYTHON = (13, 25)  # SIGPIPE, SIGXFSZ; the module signal would take a quarter of the start

_PROGRAMS = (
    *("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin"),
    *("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/lib", "/lib32", "/lib64"),
)
_SETTINGS = (
    *("/etc/ld.so.cache", "/usr/share/locale/locale.alias", "/dev/urandom", "/etc/ssl/openssl.cnf"),
    *("/etc/pki/tls/openssl.cnf", "/etc/pki/tls/openssl.d"),  # Red Hat
    *("/etc/crypto-policies", "/usr/share/crypto-policies"),
)
_CERTIFICATES = (
    *("/etc/ssl/certs", "/etc/ssl/cert.pem"),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates"),
    *("/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/ca-trust", "/usr/share/pki"),  # Red Hat
    *("/etc/ca-certificates", "/var/lib/ca-certificates"),  # Arch, SUSE
)
"""Not all of /etc/ssl and /etc/pki: private keys are there as well."""
_ALLOWED = (
    (_PROGRAMS, _EXECUTE | _READ),
    (_SETTINGS, _READ),
    (_CERTIFICATES, _READ),
    (("/usr/lib/locale",), _READ | _LIST),  # glibc opens a directory there, or does without UTF-8
    (("/dev/null",), _READ | _WRITE),
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)


def confined(words: list[str]) -> list[str]:
    """The words that start a program confined. Where the kernel has no Landlock, it runs all the same."""
    return [sys.executable, "-I", "-S", __file__, *words]


def landlock_version() -> int:
    """0 if the kernel has no Landlock, or it is switched off, or may not be used."""
    return max(0, _system_call(_CREATE_RULESET, None, 0, _ASK_VERSION))


def _restrict(version: int) -> None:
    """From now on everything is denied to this process and its children that is not allowed here."""
    rights = (1 << _NUMBER_OF_RIGHTS[min(version, len(_NUMBER_OF_RIGHTS) - 1)]) - 1
    asked = struct.pack("=QQQ", rights, 0, _SCOPES if version >= _FIRST_WITH_SCOPES else 0)
    ruleset = _done(_system_call(_CREATE_RULESET, asked, len(asked), 0))
    for places, allowed in _ALLOWED:
        for place in places:
            try:
                there = os.open(place, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # each distribution has some of them
            rule = struct.pack("=Qi", allowed, there)
            _done(_system_call(_ADD_RULE, ruleset, _BENEATH_PATH, rule, 0))
            os.close(there)
    _done(_libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))))
    _done(_system_call(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    """Its answer, -1 if it fails. Numbers take a whole register, or a part of it would be anything."""
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    answer: int = _libc.syscall(ctypes.c_long(number), *words)
    return answer


def _done(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def main(words: list[str]) -> int:
    """Become the program; the status if that cannot be."""
    try:
        version = landlock_version()
        if version:
            _restrict(version)
    except OSError as error:
        sys.stderr.write(f"files of the node cannot be denied to {words[0]}: {error.strerror}\n")
        return FAILED
    for number in _IGNORED_BY_PYTHON:
        _libc.signal(number, None)
    try:
        os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{words[0]} cannot be started: {error.strerror}\n")
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
