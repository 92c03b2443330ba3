"""From the arguments of a command line to a request."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import re
from collections.abc import Mapping
from typing import Final

from snf_image_contract.names import ImageFormat
from snf_image_contract.secret import Secret
from snf_image_host.cli.secret_files import InputFiles
from snf_image_host.configuration.files import ConfigFile, main_files
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import TargetDisk
from snf_image_host.image_container import AUTO
from snf_image_host.parameters.disk_uris import (
    has_secret,
    looks_like_uri,
    parse_disk_uri,
    shown_disk_uri,
)
from snf_image_host.parameters.nearest import did_you_mean
from snf_image_host.parameters.problems import Problems, shown
from snf_image_host.parameters.property_table import PROPERTIES
from snf_image_host.parameters.urls import redact_url
from snf_image_host.parameters.values import encode_base64
from snf_image_host.planning.request import AskedImage, AskedNic, Overrides, Request
from snf_image_host.sources.backends import Located, locate
from snf_image_host.sources.destinations import with_destination

NIC_KEYS: Final = ("mac", "ip", "subnet", "gateway", "subnet6", "gateway6", "tags", "model")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET_PROPERTIES: Final = {
    "PASSWD": "--password-file",
    "PASSWORD": "--password-file",
    "PASSWD_HASH": "--password-hash-file",
    "PERSONALITY": "--personality",
    "CLOUD_USERDATA": "--cloud-userdata",
    "OS_PRODUCT_KEY": "--product-key-file",
} | {row.name: "--custom-task" for row in PROPERTIES if row.secret}
"""What must not be seen in a process list, and the option that takes it from a file (D-17, R-SEC-1)."""


def config_files(arguments: argparse.Namespace) -> tuple[ConfigFile, ...]:
    """The files of ``--config``, which the caller may own, or the node's."""
    if not arguments.config:
        return main_files()
    owners = (0, os.geteuid())
    return tuple(ConfigFile(path=os.path.abspath(path), owners=owners) for path in arguments.config)


def build_request(arguments: argparse.Namespace, config: NodeConfig) -> Request:
    """What was asked. Raises a UserError with one line for each file or word that cannot be read."""
    problems = Problems()
    files = InputFiles(problems)
    parameters = _parameters(arguments, config, files, problems)
    answer_file = _answer_file(arguments.answer_file, files)
    nics = _nics(arguments.nic, problems)
    image = _image(arguments, problems)
    disks = _disks(arguments, problems)
    if arguments.command == "deploy" and not problems.errors:
        disks = (with_destination(disks[0], _asked_format(arguments), problems), *disks[1:])
    problems.raise_user_error(hint=f"see `snf-image {arguments.command} --help`")
    report = getattr(arguments, "report", None)
    return Request(
        action=arguments.command,
        image=image,
        disks=disks,
        hostname=arguments.hostname,
        parameters=parameters,
        nics=nics,
        answer_file=answer_file,
        overrides=overrides(arguments),
        report=os.path.abspath(report) if report else None,
        keep=arguments.keep,
    )


def overrides(arguments: argparse.Namespace) -> Overrides:
    """What the options replace of the node's configuration; options that a command lacks replace nothing."""
    return Overrides(
        helper_dir=os.path.abspath(arguments.helper_dir) if arguments.helper_dir else None,
        accelerator=getattr(arguments, "accel", None),
        memory=getattr(arguments, "memory", None),
        cpus=getattr(arguments, "cpus", None),
        soft_timeout=getattr(arguments, "timeout", None),
        warm=False if getattr(arguments, "cold", False) else None,
        debug=arguments.debug,
    )


def _image(arguments: argparse.Namespace, problems: Problems) -> AskedImage:
    """An ordinary path, opened with the caller's rights, unless it has a scheme (D-9)."""
    if arguments.command == "customize":
        return AskedImage(path=None, shown="the system on the disk", digest=False)
    if arguments.command == "inspect":
        if _SCHEME.match(arguments.image):
            problems.error(f"IMAGE: {redact_url(arguments.image)}: only a file or block device is inspected")
        return AskedImage(path=os.path.abspath(arguments.image), shown=_base(arguments.image), digest=False)
    scheme = _SCHEME.match(arguments.image)
    asked = AskedImage(
        path=os.path.abspath(arguments.image),
        shown=_base(arguments.image),
        sha256=arguments.sha256,
        sha512=arguments.sha512,
        checksums=arguments.checksums,
        signature=arguments.signature,
        digest=arguments.digest != "none" or arguments.sha256 is not None,
        any_container=arguments.format == AUTO,
    )
    if scheme is None:
        return asked
    located = problems.parse("IMAGE", functools.partial(_locate, arguments, problems), arguments.image)
    return asked if located is None else dataclasses.replace(asked, **dataclasses.asdict(located))


def _locate(arguments: argparse.Namespace, problems: Problems, identifier: str) -> Located:
    return locate(
        identifier,
        image_format=_asked_format(arguments),
        warn=lambda text: problems.warn(f"IMAGE: {text}"),
    )


def _asked_format(arguments: argparse.Namespace) -> str:
    return ImageFormat.DISKDUMP if arguments.format in (None, AUTO) else str(arguments.format)


def _base(path: str) -> str:
    return os.path.basename(path) or path


def _disks(arguments: argparse.Namespace, problems: Problems) -> tuple[TargetDisk, ...]:
    inspecting = arguments.command == "inspect"
    size = getattr(arguments, "disk_size", None)
    first = arguments.image if inspecting else arguments.disk
    words = (first, *arguments.add_disk)
    return tuple(
        _disk(index, word, problems, read_only=inspecting, size=None if index else size)
        for index, word in enumerate(words)
    )


def _disk(index: int, word: str, problems: Problems, *, read_only: bool, size: int | None) -> TargetDisk:
    """A path, or the URI of a disk that qemu reaches (R-DST-URI-1)."""
    # An image that is inspected is a path; one with a scheme was refused already.
    if (read_only and index == 0) or not looks_like_uri(word):
        return TargetDisk(index=index, path=os.path.abspath(word), read_only=read_only, create_size=size)
    problems.parse(f"disk {index}", parse_disk_uri, word, secret=True)
    if has_secret(word):
        problems.error(
            f"disk {index}: a key or password in the URI would be seen in the list of processes, "
            "use conf=FILE or another way of its storage to find it"
        )
    if size is not None:
        problems.error("--disk-size makes a file, and the disk is a URI")
    return TargetDisk(index=index, path=shown_disk_uri(word), uri=word, read_only=read_only)


def _parameters(
    arguments: argparse.Namespace, config: NodeConfig, files: InputFiles, problems: Problems
) -> Mapping[str, Secret]:
    texts: dict[str, str | None] = {}
    image_format = getattr(arguments, "format", None)
    if image_format == AUTO:
        image_format = (
            config.os_parameters["img_format"].reveal() if "img_format" in config.os_parameters else None
        )
    if image_format or "img_format" not in config.os_parameters:
        texts["img_format"] = image_format or ImageFormat.DISKDUMP
    if arguments.password_file is not None:
        texts["img_passwd"] = files.read_line("--password-file", arguments.password_file)
    if arguments.password_hash_file is not None:
        texts["img_passwd_hash"] = files.read_line("--password-hash-file", arguments.password_hash_file)
    if arguments.auth_keys is not None:
        texts["auth_keys"] = files.read_text("--auth-keys", arguments.auth_keys)
    if arguments.personality is not None:
        texts["img_personality"] = files.read_text("--personality", arguments.personality)
    if arguments.product_key_file is not None:
        texts["os_product_key"] = files.read_line("--product-key-file", arguments.product_key_file)
    if arguments.answer_file is not None and _SCHEME.match(arguments.answer_file):
        texts["os_answer_file"] = arguments.answer_file
    if arguments.cloud_userdata is not None:
        data = files.read("--cloud-userdata", arguments.cloud_userdata)
        texts["cloud_userdata"] = None if data is None else encode_base64(data)
    properties = _properties(arguments, problems)
    if arguments.custom_task is not None:
        program = files.read("--custom-task", arguments.custom_task)
        properties["CUSTOM_TASK"] = encode_base64(program or b"")
    if properties:
        texts["inst_properties"] = json.dumps(properties)
    return {name: Secret(text) for name, text in texts.items() if text is not None}


def _answer_file(word: str | None, files: InputFiles) -> Secret | None:
    """Base64 of the file that ``--answer-file`` names, read with the caller's rights; None for a URL."""
    if word is None or _SCHEME.match(word):
        return None
    data = files.read("--answer-file", word)
    return None if data is None else Secret(encode_base64(data))


def _properties(arguments: argparse.Namespace, problems: Problems) -> dict[str, str]:
    properties: dict[str, str] = {}
    for word in arguments.property:
        name, equals, value = word.partition("=")
        folded = name.upper()
        if not equals:
            problems.error(f"--property: {shown(word)} must be NAME=VALUE")
        elif folded in _SECRET_PROPERTIES:
            problems.error(
                f"--property: {folded} is secret and would be seen in the list of processes, "
                f"use {_SECRET_PROPERTIES[folded]}"
            )
        elif folded in properties:
            problems.error(f"--property: {folded} is given twice")
        else:
            properties[folded] = value
    if arguments.swap is not None:
        if properties.get("SWAP", arguments.swap) != arguments.swap:
            problems.error("--swap and --property SWAP differ")
        properties["SWAP"] = arguments.swap
    return properties


def _nics(words: list[str] | None, problems: Problems) -> tuple[AskedNic, ...] | None:
    if words is None:
        return None
    return tuple(_nic(number, word, problems) for number, word in enumerate(words, 1))


def _nic(number: int, word: str, problems: Problems) -> AskedNic:
    """``key=value,…`` as D-33 has it; an address with its prefix length is its own subnet."""
    values: dict[str, str] = {}
    seen: set[str] = set()
    for part in word.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            problems.error(f"--nic {number}: {shown(part)} must be key=value")
        elif key not in NIC_KEYS:
            problems.error(f"--nic {number}: unknown key {shown(key)}{did_you_mean(key, NIC_KEYS)}")
        elif key in seen:
            problems.error(f"--nic {number}: {key} is given twice")
        else:
            values[key] = value
        seen.add(key)
    if "mac" not in seen:
        problems.error(f"--nic {number}: mac is missing")
    address, slash, _ = values.get("ip", "").partition("/")
    if slash:
        values.setdefault("subnet", values["ip"])
        values["ip"] = address
    return AskedNic(
        origin="option",
        mac=values.get("mac", ""),
        ip=values.get("ip", ""),
        subnet=values.get("subnet", ""),
        gateway=values.get("gateway", ""),
        subnet6=values.get("subnet6", ""),
        gateway6=values.get("gateway6", ""),
        tags=values.get("tags", ""),
        model=values.get("model", ""),
    )
