"""The table of configuration variables."""

from __future__ import annotations

import dataclasses
import platform
import pwd
import re
import typing
from collections.abc import Callable
from typing import Any, Final

from snf_image_host.deployment import Accelerator, VerifyPolicy, WipeTail
from snf_image_host.image_container import Container
from snf_image_host.parameters.problems import ParseError
from snf_image_host.parameters.table import Row
from snf_image_host.parameters.values import (
    choice,
    integer,
    parse_addresses,
    parse_boolean,
    parse_duration,
    parse_factor,
    parse_optional_path,
    parse_path,
    parse_program,
    parse_sha256,
    parse_text,
    parse_uid_range,
    parse_words,
)

NIC_CONFIGS: Final = (
    "", "dhcp", "dhcpv6", "slaac", "slaac_dhcp", "dhcp+dhcpv6", "dhcp+slaac", "dhcp+slaac_dhcp",
)  # fmt: skip
SCHEMES: Final = ("https", "http", "ftps", "ftp")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variable(Row):
    """``empty_is_value``: an explicit empty value means "none", not "the default" (R-CONF-6)."""

    empty_is_value: bool = False


def parse_account(text: str) -> str | None:
    """An account other than root that exists, or empty for none."""
    if not text:
        return None
    try:
        uid = pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ParseError("must be an account of this node") from None
    if uid == 0:
        raise ParseError("must not be root", echo=False)
    return text


def words_of(*known: str) -> Callable[[str], tuple[str, ...]]:
    """A parser of words out of ``known``."""

    def parse(text: str) -> tuple[str, ...]:
        words = tuple(text.split())
        for word in words:
            if word not in known:
                raise ParseError(f"each word must be one of {', '.join(known)}")
        return words

    return parse


def parse_domains(text: str) -> tuple[str, ...]:
    """DNS domains separated by white space."""
    words = tuple(text.split())
    if not all(re.fullmatch(r"[A-Za-z0-9._-]{1,253}", word) for word in words):
        raise ParseError("must be domains such as example.org")
    return words


def parse_optional_sha256(text: str) -> str | None:
    return parse_sha256(text) if text else None


def parse_time_zone(text: str) -> str:
    """One line; whether Windows knows it matters only where an answer file is written (R-TASK-UNA-12)."""
    if "\n" in text:
        raise ParseError("must be one line")
    return text


def _qemu_of_this_machine() -> str:
    machine = platform.machine()
    return "qemu-system-" + {"amd64": "x86_64", "arm64": "aarch64", "i686": "i386"}.get(machine, machine)


def _boolean(name: str, default: str, text: str, *, since: str = "1.0") -> Variable:
    return _new(
        name,
        "yes or no",
        parse_boolean,
        default,
        text,
        since=since,
        example="no" if default == "yes" else "yes",
    )


def _new(
    name: str, values: str, parse: Callable[[str], Any], default: str, text: str, **more: Any
) -> Variable:
    return Variable(
        name=name, values=values, parse=parse, default=default, help=text, **({"since": "1.0"} | more)
    )


def _old(
    name: str, values: str, parse: Callable[[str], Any], default: str, text: str, **more: Any
) -> Variable:
    return _new(name, values, parse, default, text, **({"since": "0.x"} | more))


_TIME: Final = "a time: 90, 90s, 2m, 1.5h, 1d; 0 for no limit"
_TAGS: Final = "network tags separated by white space; empty for none"

VARIABLES: Final[tuple[Variable, ...]] = (
    _boolean("IMAGE_DEBUG", "no", "Verbose log. Secrets stay hidden.", since="0.x"),
    _boolean(
        "CLOUD_INIT_DEBUG",
        "no",
        "With CLOUD_INIT: the guest logs in detail; scripts that remove credentials are not executable.",
        since="0.x",
    ),
    _old("HELPER_DIR", "a directory", parse_path, "/var/lib/snf-image/helper/",
         "Where the helper's kernel, initrd, root image and manifest are.", example="/srv/snf-image/helper/"),
    _old("HELPER_SOFT_TIMEOUT", _TIME, parse_duration, "120",
         "How long the helper may take for a job before it is asked to stop.", example="5m"),
    _old("HELPER_HARD_TIMEOUT", _TIME, parse_duration, "5",
         "How long it may take to stop before it is killed.", example="10"),
    _old("HELPER_USER", "an account other than root", parse_account, "",
         "Account that the helper VM runs as. Not set: each deployment gets a user id of its own out of "
         "HELPER_UID_RANGE, which keeps parallel deployments apart.",
         example="snf-image"),
    _new("HELPER_UID_RANGE", "FIRST-LAST, user ids nobody else uses", parse_uid_range,
         "2100000000-2100065535", "Out of it each deployment of root takes the user id of its helper VM.",
         example="3000000000-3000001023"),
    _old("HELPER_MEMORY", "MB, 128 to 65536", integer(128, 65536), "512", "Memory of the helper VM.",
         example="1024"),
    _new("HELPER_CPUS", "1 to 16", integer(1, 16), "1", "Processors of the helper VM.", example="2"),
    _boolean("HELPER_DEBUG", "no", "A root shell on serial port 4 when a task fails.", since="0.x"),
    _new("HELPER_ACCEL", "one of auto, kvm, tcg", choice(*typing.get_args(Accelerator)), "auto",
         "kvm: must be usable; tcg: emulation; auto: kvm if a trial boot works.", example="tcg"),
    _boolean("HELPER_WARM", "yes",
             "Start the helper VM from a state that is saved once per node; no: boot it each time."),
    _new("HELPER_PARALLEL", "0 to 1024", integer(0, 1024), "0",
         "How many deployments may run a helper VM on this node at once; 0: as many as there is memory for.",
         example="4"),
    _new("HELPER_WAIT_TIMEOUT", _TIME, parse_duration, "600",
         "How long a deployment waits for memory, or for its turn, before it fails.", example="1h"),
    _new("HELPER_TCG_TIMEOUT_FACTOR", "a number of at least 1", parse_factor, "5",
         "Multiplies the helper's time limits under tcg.", example="8"),
    _new("HELPER_PROTOCOL", "json or text", choice("json", "text"), "json",
         "What the helper says on its third serial port; text is for foreign helpers.", example="text"),
    _new("HELPER_SHA256", "64 hexadecimal digits", parse_optional_sha256, "",
         "Digest that a helper image fetched from HELPER_URL must have.", example="e3b0c442" + "9" * 56),
    _old("HELPER_URL", "a URL", parse_text, "", "Where snf-image-update-helper fetches the helper image.",
         example="https://example.org/helper.tar"),
    _new("QEMU", "the name or path of a program", parse_program, _qemu_of_this_machine(),
         "QEMU system binary.", default_shown="qemu-system- and the node's architecture",
         example="/usr/bin/qemu-system-x86_64"),
    _old("QEMU_NBD", "the name or path of a program", parse_program, "qemu-nbd",
         "Program that serves disk URIs.", example="/usr/bin/qemu-nbd"),
    _new("DISK_URI_USER", "an account other than root", parse_account, "",
         "Account that it runs as; it must be able to read what the storage asks for, such as a keyring of "
         "Ceph. Not set: each disk gets a user id of its own out of HELPER_UID_RANGE.",
         example="snf-nbd"),
    _new("PARAM_MEDIUM", "one of auto, virtio, floppy", choice("auto", "virtio", "floppy"), "auto",
         "How the helper gets its parameters; floppy is for foreign helpers.", example="floppy"),
    _new("LOG_DIR", "a directory", parse_path, "/var/log/snf-image",
         "Receipts and console logs of each instance are below it.", example="/srv/log/snf-image"),
    _new("LOG_KEEP", "1 to 10000", integer(1, 10_000), "20",
         "How many receipts are kept of an instance, each with its console log and evidence.", example="5"),
    _new("LOG_MAX_SIZE", "MB, 1 to 65536", integer(1, 65536), "64",
         "How large they may be together; the newest is always kept.", example="16"),
    _old("PROGRESS_MONITOR", "a program and its arguments", parse_text, "",
         "Program that is fed progress messages.", example="/usr/local/bin/progress --url=http://127.0.0.1/"),
    _new("MONITOR_MAX_MESSAGES", "1 to 100000", integer(1, 100_000), "1000",
         "How many warnings of a helper are passed on; the rest are counted.", example="100"),
    _old("DHCP_TAGS", _TAGS, parse_words, "auto dhcp nfdhcpd", "Network tags that mean DHCP for IPv4.",
         empty_is_value=True, example="dhcp"),
    _old("STATEFUL_DHCPV6_TAGS", _TAGS, parse_words, "dhcpv6 stateful_dhcpv6",
         "Network tags that mean DHCPv6 with addresses.", empty_is_value=True, example="dhcpv6"),
    _old("STATELESS_DHCPV6_TAGS", _TAGS, parse_words, "nfdhcpd stateless_dhcpv6",
         "Network tags that mean SLAAC and stateless DHCPv6.", empty_is_value=True, example="nfdhcpd"),
    _old("DEFAULT_NIC_CONFIG", "empty, or one of " + ", ".join(NIC_CONFIGS[1:]), choice(*NIC_CONFIGS), "dhcp",
         "What a single NIC gets that has neither an IPv4 nor an IPv6 configuration.", empty_is_value=True,
         example="dhcp+slaac"),
    _new("DNS_SERVERS", "IP addresses separated by white space", parse_addresses, "",
         "Name servers of NICs with static addresses.", example="192.0.2.53 2001:db8::53"),
    _new("DNS_SEARCH", "domains separated by white space", parse_domains, "",
         "Search domains of NICs with static addresses.", example="example.org"),
    _old("UNATTEND", "a file", parse_optional_path, "",
         "Deprecated: default answer file for Windows; use the parameter os_answer_file.",
         example="/etc/snf-image/unattend.xml"),
    _old("WINDOWS_TIMEZONE", "name of a Windows time zone", parse_time_zone, "GMT Standard Time",
         "Time zone in the default answer file.", example="W. Europe Standard Time"),
    _old("VARIANTS_DIR", "a directory", parse_path, "/etc/ganeti/snf-image/variants",
         "Where variant files are.", example="/srv/snf-image/variants"),
    _old("IMAGE_DIR", "a directory", parse_path, "/var/lib/snf-image",
         "Images of local:// and of image identifiers without a scheme are below it.", example="/srv/images"),
    _boolean("IMAGE_DIR_ALLOW_SYMLINKS", "no", "Follow links of root that lead out of IMAGE_DIR."),
    _new("IMAGE_CONTAINERS", "words out of " + ", ".join(Container), words_of(*Container),
         "raw gzip xz zstd bzip2 lz4",
         "What images may be wrapped in, if property CONTAINER asks to look; the rest is copied as it is.",
         example="raw gzip"),
    _new("IMAGE_VERIFY", "one of " + ", ".join(typing.get_args(VerifyPolicy)),
         choice(*typing.get_args(VerifyPolicy)), "if-present",
         "require: no image without a signature by a trusted key; if-present: what is found beside an image "
         "is verified; off: only what the request gives.", example="require"),
    _new("TRUSTED_KEYS_DIR", "a directory", parse_path, "/etc/snf-image/trusted-keys",
         "Keys whose signatures are trusted: *.gpg and *.asc of OpenPGP, *.pem with public keys of Ed25519.",
         example="/srv/snf-image/keys"),
    _new("SPOOL_DIR", "a directory", parse_path, "/var/tmp",  # noqa: S108 - the files have no name
         "Where an image is kept that cannot be used as a stream.", example="/srv/spool"),
    _new("SPOOL_MAX_SIZE", "bytes", integer(1, 1 << 50), str(64 << 30),
         "The most of an image that is kept there.", example=str(8 << 30)),
    _new("IMAGE_CACHE_DIR", "a directory", parse_optional_path, "",
         "Where images from http and https servers are kept; each use asks the server whether they are still "
         "the right ones. Not set: nothing is kept.", example="/var/cache/snf-image/images"),
    _new("IMAGE_CACHE_SIZE", "bytes", integer(1, 1 << 50), str(32 << 30),
         "The most that is kept there; what was not used for longest goes first.", example=str(100 << 30)),
    _new("COPY_IDLE_TIMEOUT", _TIME, parse_duration, "300", "The copy fails if no byte moves for this long.",
         example="60"),
    _new("WIPE_TAIL", "one of no, discard, zero", choice(*typing.get_args(WipeTail)), "discard",
         "What happens to the disk behind the end of the image. Its last MiB is zeroed in any case.",
         example="zero"),
    _boolean("ALLOW_CUSTOM_TASK", "yes", "Accept the property CUSTOM_TASK."),
    _boolean("ALLOW_TASK_OVERWRITING", "no", "Accept the property ALLOW_MOUNTED_TASK_OVERWRITING."),
    _new("PERSONALITY_MAX_FILES", "1 to 65536", integer(1, 65536), "256", "How many files may be injected.",
         example="1024"),
    _new("PERSONALITY_MAX_SIZE", "bytes, 1 to 33554432", integer(1, 32 * 1024 * 1024), "16777216",
         "How many bytes they may have together.", example="1048576"),
    _boolean("RENAME_GUEST", "no", "Renaming an instance changes the hostname in its image."),
    _boolean("IMPORT_GROW", "no", "Importing onto a larger disk grows its last file system."),
    _new("ANSWER_FILE_DIR", "a directory", parse_optional_path, "",
         "os_answer_file may name file: URLs below it.", example="/srv/answer-files"),
    _new("FETCH_ALLOWED_SCHEMES", "words out of " + ", ".join(SCHEMES), words_of(*SCHEMES), " ".join(SCHEMES),
         "Schemes of URLs that are fetched.", example="https"),
    _new("FETCH_ALLOWED_HOSTS", "host names, *.suffix, addresses, CIDR", parse_words, "",
         "If set, nothing is fetched from other hosts.", example="images.example.org *.cdn.example.org"),
    _boolean("FETCH_ALLOW_PRIVATE", "yes", "Fetch from private address ranges."),
    _new("FETCH_MAX_REDIRECTS", "0 to 20", integer(0, 20), "5", "How many redirects are followed.",
         example="0"),
    _new("FETCH_TIMEOUT", _TIME, parse_duration, "30", "Limit for connecting and for the first byte.",
         example="10"),
    _new("FETCH_MIN_RATE", "bytes a second; 0 for no limit", integer(0, 1 << 40), "16384",
         "A transfer fails if the server sends less than this on average over COPY_IDLE_TIMEOUT.",
         example="1024"),
    _new("FETCH_MAX_PARAM_SIZE", "bytes, 1 to 33554432", integer(1, 32 * 1024 * 1024), "1048576",
         "Longest document of config_url and longest answer file.", example="65536"),
    _new("FETCH_USER", "an account other than root", parse_account, "",
         "Account that fetches. Not set: each fetch gets a user id of its own out of HELPER_UID_RANGE.",
         example="snf-fetch"),
    _boolean("FETCH_INSECURE", "no", "Do not verify TLS certificates; warned of at each use."),
    _new("FETCH_CA_FILE", "a file", parse_optional_path, "", "Certificates to trust.",
         default_shown="the system's", example="/etc/ssl/certs/site.pem"),
)  # fmt: skip

BY_NAME: Final = {row.name: row for row in VARIABLES}

OBSOLETE: Final = {
    "VERSION_CHECK": "versions are always checked",
    "MULTISTRAP_CONFIG": "build the helper with snf-image helper build",
    "MULTISTRAP_APTPREFDIR": "build the helper with snf-image helper build",
    "HELPER_PKG": "build the helper with snf-image helper build",
    "HELPER_SIZE": "the helper image has the size it needs",
    "XEN_SCRIPTS_DIR": "the helper runs under QEMU on every hypervisor",
    "XEN_CMD": "the helper runs under QEMU on every hypervisor",
    "TIMEOUT": "use HELPER_SOFT_TIMEOUT",
    "RBD_CEPH_CONF": "put conf=FILE into the disk's URI",
    "RBD_BLOCK_SIZE": "the block size is chosen by itself",
} | dict.fromkeys(
    (
        "MD5SUM",
        "LOSETUP",
        "KPARTX",
        "SFDISK",
        "INSTALL_MBR",
        "TAR",
        "BLOCKDEV",
        "DD",
        "PARTED",
        "AWK",
        "DATE",
    ),
    "the program is not used any more",
)
"""Variables that are accepted and ignored, and what to do instead (R-CONF-10, D-15)."""

OBSOLETE_PREFIXES: Final = ("PITHOS_", "PITHCAT_")
