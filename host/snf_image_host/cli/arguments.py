"""The options of every command, and the words that explain them."""

from __future__ import annotations

import argparse
import textwrap
import typing
from typing import Any, Final

from snf_image_contract.names import ImageFormat
from snf_image_host.cli.parser import Parser, VersionAction, typed
from snf_image_host.deployment import Accelerator
from snf_image_host.image_container import AUTO
from snf_image_host.parameters.property_table import PROPERTIES
from snf_image_host.parameters.values import (
    integer,
    parse_disk_size,
    parse_duration,
    parse_sha256,
    parse_sha512,
    parse_swap,
)

EXIT_CODES: Final = (
    (0, "done"),
    (2, "the request is wrong"),
    (3, "the image is bad"),
    (4, "the customisation failed"),
    (5, "the node is at fault: a program, space, a disk, the configuration"),
    (70, "a bug in snf-image; a report was written"),
    (130, "interrupted by Ctrl-C"),
    (143, "ended by SIGTERM or SIGHUP"),
)
_EXIT_CODES_TEXT: Final = "exit codes:\n" + "\n".join(f"  {code:<4} {text}" for code, text in EXIT_CODES)

_TOP: Final = """\
Deploys operating system images onto disks and customises them inside a helper VM: hostname, passwords,
SSH keys, network, swap, larger file systems, files. The image is never mounted or executed on this machine.

examples:
  snf-image doctor                                  # can this machine deploy?
  snf-image inspect debian.raw                      # what is on the image?
  snf-image deploy debian.raw disk.raw --disk-size 4G --hostname web1 --password-file pw
  snf-image deploy --help                           # everything that can be asked for
"""
_DEPLOY: Final = """\
Copies IMAGE onto DISK and customises it there. DISK is a block device or a file; a missing file is made by
--disk-size. Nothing of DISK survives.

examples:
  a disk of 4 GiB with a hostname and a root password:
    snf-image deploy debian.raw disk.raw --disk-size 4G --hostname web1.example.org --password-file pw

  a static address, 512 MB of swap, a key instead of a password, and a receipt:
    snf-image deploy debian.raw /dev/vg/web1 --hostname web1 --auth-keys ~/.ssh/id_ed25519.pub \\
        --nic mac=aa:00:00:12:34:56,ip=192.0.2.10/24,gateway=192.0.2.1 --swap 2:512 --report web1.json

  files to inject (a JSON array of path, contents in base64, owner, group, mode):
    snf-image deploy debian.raw disk.raw --personality files.json
"""
_CUSTOMIZE: Final = """\
Customises the operating system that is on DISK already; nothing is copied.

example:
  snf-image customize /dev/vg/web1 --hostname web2 --password-file pw
"""
_INSPECT: Final = """\
Shows what is on IMAGE: family and distribution, partitions, file systems, users, and what a deployment with
the same options would do. The image is attached read-only to the helper VM and not changed.

examples:
  snf-image inspect debian.raw
  snf-image inspect --json debian.raw | jq .system.distribution
"""
_DOCTOR: Final = """\
Checks this machine: configuration, KVM, qemu, the helper image, space, memory, accounts, programs. Says of
each finding what to do about it. Ends with status 5 if something prevents deployments.

examples:
  snf-image doctor
  snf-image doctor --probe          # boot a trial VM although the result of an earlier one is known
  snf-image doctor --json
"""
_HELPER: Final = """\
The helper is a small Linux that customises images inside a VM. It is built once and used by every deployment.

examples:
  snf-image helper build --output build/helper
  snf-image helper info
  snf-image helper warm             # deployments then start in a second; the first one does this by itself
  snf-image helper verify --helper-dir build/helper
"""
_GANETI: Final = """\
Sets up snf-image as an OS provider of Ganeti: makes or renews the directory of the OS definition, whose
scripts use this installation. A list of variants that is there already stays.

examples:
  snf-image ganeti install
  snf-image ganeti install --os-dir /srv/ganeti/os/snf-image
"""
_HISTORY: Final = """\
Lists what was done to the instances of this node by Ganeti: when, from which image, how long it took, with
what result.

examples:
  snf-image history
  snf-image history web1.example.org
"""
_SHOW: Final = """\
Shows one entry of the history of INSTANCE, by default the newest: what was asked, the image's digest,
everything that was changed, how long each stage took, warnings, and of a failure its cause.

examples:
  snf-image show web1.example.org
  snf-image show web1.example.org --console
  snf-image show web1.example.org --entry 20261121T101500.123456Z-create --json
"""
PROPERTY_HELP: Final = """\
an image property, such as EXCLUDE_TASK_ConfigureNetwork=yes; may be repeated; they are
listed below"""


def build_parser() -> Parser:
    """The parser of the whole command line; the result has ``command``."""
    parser = Parser(prog="snf-image", description=_TOP, epilog=_EXIT_CODES_TEXT)
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    deploy = _command(commands, "deploy", "copy an image onto a disk and customise it", _DEPLOY)
    deploy.add_argument("image", metavar="IMAGE", help="file with the image")
    deploy.add_argument(
        "disk", metavar="DISK", help="block device, file, or URI (rbd, iscsi, nbd, ssh, gluster) to write"
    )
    deploy.add_argument(
        "--disk-size",
        type=typed(parse_disk_size),
        metavar="SIZE",
        help="make or enlarge the file DISK to this size, such as 4G",
    )
    _add_image_options(deploy, AUTO)
    deploy.add_argument(
        "--sha256", type=typed(parse_sha256), metavar="HEX", help="digest that the image must have"
    )
    deploy.add_argument("--sha512", type=typed(parse_sha512), metavar="HEX", help="the same by SHA-512")
    deploy.add_argument(
        "--checksums",
        metavar="FILE|URL",
        help="checksum file, as sha256sum makes it, with a line for the image",
    )
    deploy.add_argument(
        "--signature",
        metavar="FILE|URL",
        help="signature of the checksum file, or of the image without one, by a key in TRUSTED_KEYS_DIR",
    )
    deploy.add_argument(
        "--digest",
        choices=("sha256", "none"),
        default="sha256",
        help="none: do not compute the image's digest (default: sha256)",
    )
    _add_wishes(deploy)
    _add_run_options(deploy, receipt=True)
    customize = _command(commands, "customize", "customise the system on a disk, without a copy", _CUSTOMIZE)
    customize.add_argument("disk", metavar="DISK", help="block device or file with the system")
    _add_wishes(customize)
    _add_run_options(customize, receipt=True)
    inspect = _command(commands, "inspect", "show what is on an image; changes nothing", _INSPECT)
    inspect.add_argument("image", metavar="IMAGE", help="file or block device with the image")
    _add_image_options(inspect)
    _add_wishes(inspect)
    _add_run_options(inspect, receipt=False)
    _add_helper_commands(commands)
    doctor = _command(commands, "doctor", "check this machine and say what to do", _DOCTOR)
    doctor.add_argument("--probe", action="store_true", help="boot a trial VM in any case")
    _add_common_options(doctor)
    _add_ganeti_commands(commands)
    return parser


def _add_ganeti_commands(commands: Any) -> None:
    ganeti = _command(commands, "ganeti", "set up the OS provider of Ganeti", _GANETI)
    actions = ganeti.add_subparsers(dest="action", metavar="COMMAND", required=True, parser_class=Parser)
    install = actions.add_parser(
        "install", help="make or renew the OS definition", description="Makes or renews the OS definition."
    )
    install.add_argument(
        "--os-dir",
        metavar="DIR",
        default="/usr/share/ganeti/os/snf-image",
        help="directory of the OS definition (default: %(default)s)",
    )
    _add_common_options(install)
    history = _command(commands, "history", "list what was done to instances", _HISTORY)
    history.add_argument("instance", metavar="INSTANCE", nargs="?", help="one instance (default: all)")
    _add_common_options(history)
    show = _command(commands, "show", "show one entry of an instance's history", _SHOW)
    show.add_argument("instance", metavar="INSTANCE", help="the instance")
    show.add_argument(
        "--entry", metavar="ENTRY", help="which one, as `history` lists it (default: the newest)"
    )
    show.add_argument("--console", action="store_true", help="the helper's console instead")
    _add_common_options(show)


def _command(commands: Any, name: str, text: str, description: str) -> Parser:
    epilog = _EXIT_CODES_TEXT
    if name in ("deploy", "customize", "inspect"):
        epilog = f"{_properties_text()}\n\n{epilog}"
    parser: Parser = commands.add_parser(name, help=text, description=description, epilog=epilog)
    return parser


def _properties_text() -> str:
    """The table of properties, for ``--help``."""
    lines = ["properties (--property NAME=VALUE):"]
    for row in PROPERTIES:
        how = "Given by --custom-task." if row.secret else f"Default: {row.shown_default}."
        text = f"{row.help} {how}"
        lines += textwrap.wrap(
            text, width=100, initial_indent=f"  {row.name:<31} ", subsequent_indent=" " * 34
        )
    lines.append("  EXCLUDE_TASK_<TaskName>         Skip one task.")
    return "\n".join(lines)


def _add_image_options(parser: Parser, *more: str) -> None:
    auto = "; auto: the default, in any compression, archive or disk format" if more else ""
    parser.add_argument(
        "--format",
        choices=[*(str(word) for word in ImageFormat), *more],
        help=f"what the image is a dump of: a disk, an ext file system, NTFS{auto} "
        "(default: IMG_FORMAT of the configuration, or diskdump)",
    )


def _add_wishes(parser: Parser) -> None:
    """What is to be changed in the system."""
    group = parser.add_argument_group(
        "what to change", "FILE may be - for standard input, once. Secrets are read from files only."
    )
    group.add_argument(
        "--hostname", metavar="NAME", help="name of the host; not given: the image keeps its own"
    )
    password = group.add_mutually_exclusive_group()
    password.add_argument(
        "--password-file",
        metavar="FILE",
        help="password of root, or of the users in property USERS; the newline at the end is left out",
    )
    password.add_argument("--password-hash-file", metavar="FILE", help="the same as a crypt(5) string")
    group.add_argument("--auth-keys", metavar="FILE", help="SSH public keys for the same users")
    group.add_argument("--property", action="append", default=[], metavar="NAME=VALUE", help=PROPERTY_HELP)
    group.add_argument(
        "--swap",
        type=typed(_swap_text),
        metavar="SPEC",
        help="2:512 for partition 2 of 512 MB; b for the second disk (property SWAP)",
    )
    group.add_argument(
        "--nic",
        action="append",
        metavar="mac=…,ip=…",
        help="a network interface; keys: mac, ip, subnet, gateway, subnet6, gateway6, tags, model; "
        "ip=192.0.2.10/24 or ip=dhcp; not given: the network stays as it is",
    )
    group.add_argument("--personality", metavar="FILE", help="JSON array of files to inject")
    group.add_argument(
        "--cloud-userdata", metavar="FILE", help="user data for cloud-init; needs --property CLOUD_INIT=yes"
    )
    group.add_argument("--product-key-file", metavar="FILE", help="product key of a Windows")
    group.add_argument(
        "--answer-file",
        metavar="FILE|URL",
        help="answer file for the setup of a Windows, instead of the image's and of the one that comes along",
    )
    group.add_argument("--custom-task", metavar="FILE", help="a program to run in the helper at the end")
    group.add_argument(
        "--add-disk",
        action="append",
        default=[],
        metavar="DISK",
        help="a further disk of the instance, such as the one that --swap b names",
    )


def _swap_text(text: str) -> str:
    parse_swap(text)
    return text


def _add_vm_options(group: Any) -> None:
    group.add_argument(
        "--accel",
        choices=typing.get_args(Accelerator),
        help="accelerator of the helper VM (default: HELPER_ACCEL)",
    )
    group.add_argument("--memory", type=typed(integer(128, 65536)), metavar="MB", help="its memory")
    group.add_argument("--cpus", type=typed(integer(1, 16)), metavar="N", help="its processors")


def _add_run_options(parser: Parser, *, receipt: bool) -> None:
    """How it is done and what is told about it. ``receipt``: something is done that can have one."""
    group = parser.add_argument_group("how")
    _add_vm_options(group)
    group.add_argument(
        "--cold", action="store_true", help="boot the helper, even if there is a saved state to start it from"
    )
    group.add_argument(
        "--timeout",
        type=typed(parse_duration),
        metavar="TIME",
        help="how long it may take, such as 5m (default: HELPER_SOFT_TIMEOUT)",
    )
    _add_progress_option(group)
    if receipt:
        group.add_argument("--report", metavar="FILE", help="write the receipt: all that was done, as JSON")
    group.add_argument("--keep", action="store_true", help="keep the directory with the evidence")
    _add_common_options(parser)


def _add_progress_option(group: Any) -> None:
    group.add_argument(
        "--progress",
        choices=("auto", "bar", "json", "none"),
        default="auto",
        help="on standard error: a bar, JSON lines, or nothing (default: what suits it)",
    )


def _add_common_options(parser: Parser) -> None:
    group = parser.add_argument_group("this machine")
    group.add_argument("--helper-dir", metavar="DIR", help="where the helper is (default: HELPER_DIR)")
    group.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="read this instead of the files in /etc; may be repeated",
    )
    group.add_argument("--json", action="store_true", help="print the result as JSON")
    group.add_argument("-v", "--verbose", action="store_true", help="say more, with the helper's console")
    group.add_argument("--debug", action="store_true", help="as --verbose, and a shell if the helper fails")


def _add_helper_commands(commands: Any) -> None:
    helper = _command(commands, "helper", "build, show, verify or warm up the helper image", _HELPER)
    actions = helper.add_subparsers(dest="action", metavar="COMMAND", required=True, parser_class=Parser)
    build = actions.add_parser("build", help="build the helper image", description="Builds the helper image.")
    build.add_argument("--output", metavar="DIR", help="where to (default: --helper-dir)")
    build.add_argument("--engine", choices=("buildah", "docker"), default="buildah", help="what builds it")
    build.add_argument(
        "--base", metavar="IMAGE", help="registry image to build on instead of Debian packages"
    )
    build.add_argument("--source", metavar="DIR", help="source tree (default: the one this command is from)")
    build.add_argument("--tasks", metavar="DIR", help="add the files NNName of this directory as tasks")
    build.add_argument("--refresh", action="store_true", help="install the packages anew")
    info = actions.add_parser("info", help="show what it is made of", description="Shows the helper image.")
    verify = actions.add_parser(
        "verify", help="check its digests", description="Checks the digests of its files."
    )
    warm = actions.add_parser(
        "warm",
        help="save the state of a started helper",
        description="Boots the helper once and saves its state: deployments then continue from it.",
    )
    warm.add_argument("--again", action="store_true", help="make it anew although it is there")
    how = warm.add_argument_group("how")
    _add_vm_options(how)
    _add_progress_option(how)
    for parser in (build, info, verify, warm):
        _add_common_options(parser)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments of a command line; a UserError if it is wrong."""
    return build_parser().parse_args(argv)
