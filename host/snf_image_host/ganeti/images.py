"""What ``img_id`` names: a file below IMAGE_DIR, or nothing to copy (R-SRC-LOCAL-*, R-SRC-NULL-1)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final

from snf_image_contract.names import ImageFormat
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.errors import UserError
from snf_image_host.image_directory import open_image_file
from snf_image_host.parameters.os_parameters import parse_image_id
from snf_image_host.parameters.problems import ParseError, Problems, shown
from snf_image_host.planning.request import AskedImage
from snf_image_host.sources.backends import BackendPlaces, Located, locate

_NOTHING: Final = AskedImage(path=None, shown="no image", digest=False)


@contextlib.contextmanager
def find_image(
    parameters: Mapping[str, Secret],
    config: NodeConfig,
    problems: Problems,
    places: BackendPlaces | None = None,
) -> Iterator[AskedImage]:
    """The image that ``parameters`` ask for, open while the context lasts; ``problems`` get what is wrong.

    A parameter that is not right by itself is somebody else's to report.
    """
    try:
        image_id = parse_image_id(parameters["img_id"].reveal())
    except (KeyError, ParseError):
        image_id = ""
    given = parameters.get("img_format")
    image_format = given.reveal() if given else ""
    asked = _NOTHING
    with contextlib.ExitStack() as alive:
        try:
            if image_id:
                found = locate(
                    image_id,
                    image_format=image_format,
                    warn=lambda text: problems.warn(f"img_id: {text}"),
                    places=places,
                )
                asked = _asked(alive, found, image_format, config, problems)
        except ParseError as error:
            problems.error(f"img_id: {error}")
        except UserError as error:
            for message in error.messages:
                problems.error(f"img_id: {message}")
        yield asked


def _asked(
    alive: contextlib.ExitStack, found: Located, image_format: str, config: NodeConfig, problems: Problems
) -> AskedImage:
    if found.kind == "image-dir" and found.path is not None:
        return _open(alive, found.path, image_format, config, problems)
    return AskedImage(**dataclasses.asdict(found), digest=found.path is not None)


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
