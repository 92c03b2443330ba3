"""Who writes a disk: we ourselves, or a program of the operator (R-BACK-3 to R-BACK-6)."""

from __future__ import annotations

import dataclasses

from snf_image_host.deployment import TargetDisk
from snf_image_host.parameters.disk_uris import has_secret
from snf_image_host.parameters.problems import Problems
from snf_image_host.sources.backends import BackendPlaces, backends, is_known_to


def with_destination(
    disk: TargetDisk, image_format: str, problems: Problems, places: BackendPlaces | None = None
) -> TargetDisk:
    """``disk`` with the program that the image is to be handed to, if one is asked before us and wants it."""
    places = places or BackendPlaces()
    identifier = disk.path if disk.uri is None else disk.uri
    own = "local" if disk.uri is None else "uri"
    for backend in backends("dst", places, problems.warn):
        if backend.program is None and backend.name == own:
            return disk
        if backend.program is not None and disk.uri is not None and has_secret(disk.uri):
            problems.error(
                f"disk {disk.index} ({disk.path}): the key in its URI would be seen in the arguments of the "
                f"back-end {backend.name}; let its storage find the key in a file, or disable the back-end"
            )
            return disk
        if backend.program is not None and is_known_to(
            backend.program, identifier, image_format, places, problems.warn
        ):
            return dataclasses.replace(disk, program=backend.program)
    problems.error(f"disk {disk.index} ({disk.path}): no back-end is left that writes it")
    return disk
