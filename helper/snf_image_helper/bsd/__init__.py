"""FreeBSD, NetBSD and OpenBSD."""
