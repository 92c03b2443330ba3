"""manifest.json and the bill of materials beside it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
from typing import Any

from builder.base import EPOCH
from builder.convert import CMDLINE, CMDLINE_TCG

ARTEFACTS = ("kernel", "initrd", "root.img", "disk.img")
SBOM = "sbom.cdx.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The registry's image that was built from: its name as it was given, ``sha256:…`` of its manifest."""

    image: str
    digest: str


def write_manifest(
    root: str, output: str, build: str, contract_version: int, tasks: list[str], *, base: Base | None = None
) -> None:
    """Describe what was built: build id, contract version, packages, digest and size of each artefact.

    ``tasks``: files of the operator; without any the manifest does not mention them, nor a base without one.
    """
    packages = read_packages(os.path.join(root, "usr/share/snf-image/packages.tsv"))
    _write(os.path.join(output, SBOM), bill_of_materials(packages, build))
    manifest: dict[str, Any] = {
        "format": 1,
        "build": build,
        "contract_version": contract_version,
        "cmdline": CMDLINE,
        "cmdline_tcg": CMDLINE_TCG,
        "files": {name: describe(os.path.join(output, name)) for name in (*ARTEFACTS, SBOM)},
        "packages": [{"name": entry["name"], "version": entry["version"]} for entry in packages],
    }
    if tasks:
        manifest["tasks"] = tasks
    if base:
        manifest["base"] = dataclasses.asdict(base)
    _write(os.path.join(output, "manifest.json"), manifest)


def describe(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"size": os.path.getsize(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read_packages(path: str) -> list[dict[str, str]]:
    """The Debian packages the tree was made of, as dpkg listed them before the tree was trimmed."""
    names = ("name", "version", "architecture", "source", "source_version")
    with open(path, encoding="utf-8") as file:
        return [dict(zip(names, line.rstrip("\n").split("\t"), strict=True)) for line in file]


def bill_of_materials(packages: list[dict[str, str]], build: str) -> dict[str, Any]:
    """A CycloneDX 1.5 document (https://cyclonedx.org/docs/1.5/json/)."""
    moment = dt.datetime.fromtimestamp(EPOCH, tz=dt.UTC).isoformat()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": moment,
            "component": {"type": "firmware", "name": "snf-image-helper", "version": build},
        },
        "components": [
            {
                "type": "library",
                "name": entry["name"],
                "version": entry["version"],
                "purl": f"pkg:deb/debian/{entry['name']}@{entry['version']}?arch={entry['architecture']}",
            }
            for entry in packages
        ],
    }


def _write(path: str, document: dict[str, Any]) -> None:
    with open(path, "w", encoding="ascii") as file:
        json.dump(document, file, indent=1, sort_keys=True)
        file.write("\n")
