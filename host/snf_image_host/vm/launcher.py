"""The words before a program that limit it and take its privileges away, before its first instruction.

``prlimit`` and ``setpriv`` of util-linux do it between fork and exec (R-HLP-2); qemu's own ``-runas`` would
do it after qemu has parsed its arguments as root (T-47).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from snf_image_host.vm.account import Account


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resource limits. Sizes in bytes; None means no limit. Core dumps are always off.

    ``file_size``: of any file that it writes; pipes are none.
    """

    address_space: int | None = None
    files: int | None = None
    processes: int | None = None
    file_size: int | None = None


def launcher(
    account: Account, *, groups: Sequence[int] = (), limits: Limits | None = None
) -> tuple[str, ...]:
    """The words to put before a program's own.

    ``groups``: the only supplementary groups it keeps, if its user changes. The program gets SIGTERM when
    the *thread* that started it ends: start it from the main thread.
    """
    return (*_prlimit(account, limits or Limits()), *_setpriv(account, groups))


def _prlimit(account: Account, limits: Limits) -> list[str]:
    words = ["prlimit", "--core=0"]  # a core dump would hold secrets (R-SEC-1)
    if limits.address_space is not None:
        words.append(f"--as={limits.address_space}")
    if limits.files is not None:
        words.append(f"--nofile={limits.files}")
    if limits.file_size is not None:
        words.append(f"--fsize={limits.file_size}")
    # Processes are counted by user: the caller's others would count too.
    if limits.processes is not None and account.switch:
        words.append(f"--nproc={limits.processes}")
    return [*words, "--"]


def _setpriv(account: Account, groups: Sequence[int]) -> list[str]:
    words = ["setpriv", "--no-new-privs", "--pdeathsig", "TERM"]
    if account.switch:
        kept = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
        words += ["--reuid", str(account.uid), "--regid", str(account.gid), *kept]
        words += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]
    return [*words, "--"]
