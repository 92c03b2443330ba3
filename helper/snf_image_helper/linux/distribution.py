"""Which distribution a Linux image holds (R-DISTRO-1, R-DISTRO-2)."""

from __future__ import annotations

import enum


class LinuxFamily(enum.StrEnum):
    """Families of distributions that are configured alike."""

    COREOS = "coreos"
    DEBIAN = "debian"
    REDHAT = "redhat"
    SUSE = "suse"
    SLACKWARE = "slackware"
    GENTOO = "gentoo"
    ARCH = "arch"
    ALPINE = "alpine"
    UNKNOWN = "unknown"
