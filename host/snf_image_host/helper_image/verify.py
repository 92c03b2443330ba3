"""Checking a helper image against the digests of its manifest (R-HLP-18)."""

from __future__ import annotations

import hashlib
import os

from snf_image_contract.job import CONTRACT_VERSION
from snf_image_host.errors import NodeError
from snf_image_host.helper_image.image import MANIFEST, demand_trusted, read_manifest


def verify(directory: str) -> list[str]:
    """Every problem of the helper image in ``directory``, one line each; none: it is whole and usable."""
    try:
        image = read_manifest(directory)
        demand_trusted(directory)
        demand_trusted(os.path.join(directory, MANIFEST))
    except NodeError as error:
        return list(error.messages)
    problems = []
    if image.contract_version != CONTRACT_VERSION:
        problems.append(f"contract version {image.contract_version}, this host speaks {CONTRACT_VERSION}")
    for artefact in image.artefacts:
        path = image.path(artefact.name)
        try:
            demand_trusted(path)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except NodeError as error:
            problems.extend(error.messages)
            continue
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
            continue
        if digest != artefact.sha256:
            problems.append(f"{path} has sha256 {digest}, its manifest says {artefact.sha256}")
    return problems
