"""What ``img_id`` names: a file below IMAGE_DIR, or nothing to copy (R-SRC-LOCAL-*, R-SRC-NULL-1)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from snf_image_contract.names import ImageFormat
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.errors import UserError
from snf_image_host.image_directory import open_image_file
from snf_image_host.parameters.os_parameters import parse_image_id
from snf_image_host.parameters.problems import ParseError, Problems, shown
from snf_image_host.parameters.urls import redact_url
from snf_image_host.planning.request import AskedImage
from snf_image_host.sources.backends import locate

NULL: Final = "null"
_LOCAL: Final = re.compile(r"(local|file)://(.*)", re.IGNORECASE | re.DOTALL)
_PITHOS: Final = re.compile(r"pithos(map)?://", re.IGNORECASE)
_NOTHING: Final = AskedImage(path=None, shown="no image", digest=False)


@contextlib.contextmanager
def find_image(
    parameters: Mapping[str, Secret], config: NodeConfig, problems: Problems
) -> Iterator[AskedImage]:
    """The image that ``parameters`` ask for, open while the context lasts; ``problems`` get what is wrong.

    A parameter that is not right by itself is somebody else's to report.
    """
    try:
        image_id = parse_image_id(parameters["img_id"].reveal())
    except (KeyError, ParseError):
        image_id = ""
    if image_id in ("", NULL):
        yield AskedImage(path=None, shown=image_id or _NOTHING.shown, digest=False)
        return
    elsewhere = _elsewhere(image_id, parameters, problems)
    if elsewhere is not None:
        yield elsewhere
        return
    name = _local_name(image_id, problems)
    if name is None:
        yield _NOTHING
        return
    with contextlib.ExitStack() as alive:
        given = parameters.get("img_format")
        asked = _NOTHING
        try:
            asked = _open(alive, name, given.reveal() if given else "", config, problems)
        except UserError as error:
            for message in error.messages:
                problems.error(f"img_id: {message}")
        yield asked


def _elsewhere(image_id: str, parameters: Mapping[str, Secret], problems: Problems) -> AskedImage | None:
    """An image of a server, or of a program of the operator; None for all others."""
    if _LOCAL.fullmatch(image_id):
        return None
    image_format = parameters["img_format"].reveal() if "img_format" in parameters else ""
    with contextlib.suppress(ParseError):
        found = locate(image_id, image_format=image_format, warn=problems.warn)
        if found.kind in ("url", "program"):
            return AskedImage(path=found.path, shown=found.shown, kind=found.kind, program=found.program)
    return None


def _local_name(image_id: str, problems: Problems) -> str | None:
    match = _LOCAL.fullmatch(image_id)
    if match is None and ":" not in image_id:
        return image_id
    if match is None:
        hint = "; Pithos needs a back-end of its own" if _PITHOS.match(image_id) else ""
        problems.error(f"img_id: no back-end knows {shown(redact_url(image_id))}{hint}")
        return None
    if match[1].lower() == "file":
        problems.warn("img_id: file:// is deprecated, use local://")
    if not match[2].strip("/"):
        problems.error("img_id: the name of the image is empty")
        return None
    return match[2]


def _open(
    alive: contextlib.ExitStack, name: str, image_format: str, config: NodeConfig, problems: Problems
) -> AskedImage:
    """The file itself, else the one with the format's extension (R-SRC-LOCAL-3)."""
    links = config.image_dir_allow_symlinks
    names = [name]
    if image_format in tuple(ImageFormat):
        names.append(f"{name}.{image_format}")
    for candidate in names:
        with contextlib.suppress(FileNotFoundError):
            fd = alive.enter_context(open_image_file(config.image_dir, candidate, allow_links=links))
            if candidate != name:
                problems.warn(
                    f"img_id: {shown(name)} is there as {shown(candidate)} only: give the whole name"
                )
            # The descriptor, not the name again: what was looked at is what is copied.
            path = f"/proc/self/fd/{fd}"
            return AskedImage(path=path, shown=candidate.lstrip("/"), name_in_image_dir=candidate)
    raise UserError(f"there is no image {shown(name)} on this node")
