"""The files that the scripts read: main files, the variant's, back-ends'; parsed, never run (R-CONF-1)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Final

from snf_image_host.configuration.files import ConfigFile, main_files
from snf_image_host.configuration.node_config import NodeConfig, load_config
from snf_image_host.errors import NodeError, UserError
from snf_image_host.inert import inert
from snf_image_host.sources.backends import BackendPlaces

DEFAULT_VARIANT: Final = "default"
BACKENDS_DIR: Final = "/etc/snf-image/backends"
_FETCH: Final = (
    "ALLOWED_SCHEMES",
    "ALLOWED_HOSTS",
    "ALLOW_PRIVATE",
    "MAX_REDIRECTS",
    "TIMEOUT",
    "USER",
    "INSECURE",
    "CA_FILE",
)
BACKEND_VARIABLES: Final[dict[str, frozenset[str]]] = {
    "src/local": frozenset({"IMAGE_DIR", "IMAGE_DIR_ALLOW_SYMLINKS"}),
    "src/network": frozenset(f"FETCH_{word}" for word in _FETCH),
    "src/null": frozenset(),
    "dst/local": frozenset({"WIPE_TAIL"}),
    "dst/uri": frozenset({"QEMU_NBD", "DISK_URI_USER"}),
}
"""The built-in back-ends and what their own files decide, for them alone."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """Where the operator's files are, and whose they may be.

    ``definition``: the directory of the OS definition, which Ganeti makes the working directory.
    ``programs``: where back-ends of the operator are.
    """

    main: tuple[ConfigFile, ...] = dataclasses.field(default_factory=main_files)
    backends: str = BACKENDS_DIR
    programs: str = BackendPlaces().programs
    definition: str = "."
    owners: tuple[int, ...] = (0,)


def load_node_config(files: NodeFiles, variant: str | None) -> NodeConfig:
    """The configuration for one variant; the variant's file wins over the main ones, a back-end's over both.

    :class:`UserError` for a variant that is not there, :class:`NodeError` for what is wrong with the files.
    """
    config = load_config(files.main)
    variants = () if variant is None else (_variant_file(files, config.variants_dir, variant),)
    config = load_config((*files.main, *variants, *_backend_files(files)))
    return dataclasses.replace(config, warnings=(*config.warnings, *_unread_files(files)))


def _backend_files(files: NodeFiles) -> tuple[ConfigFile, ...]:
    return tuple(
        ConfigFile(
            path=os.path.join(files.backends, f"{name}.conf"),
            optional=True,
            owners=files.owners,
            only=variables,
        )
        for name, variables in BACKEND_VARIABLES.items()
    )


def _unread_files(files: NodeFiles) -> Iterator[str]:
    """What is wrong with files of back-ends that are not there: nobody reads them."""
    for kind in ("src", "dst"):
        directory = os.path.join(files.backends, kind)
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for file in names:
            name, extension = os.path.splitext(file)
            known = f"{kind}/{name}" in BACKEND_VARIABLES
            if (
                extension == ".conf"
                and not known
                and not os.path.lexists(os.path.join(files.programs, kind, name))
            ):
                yield f"{directory}/{inert(file)}: there is no back-end {inert(name)}: it has no effect"


def _variant_file(files: NodeFiles, directory: str, variant: str) -> ConfigFile:
    """The file of a variant; a missing one of the default variant counts as empty (R-SCR-3, D-27)."""
    path = os.path.join(directory, f"{variant}.conf")
    if variant == DEFAULT_VARIANT or os.path.lexists(path):
        return ConfigFile(path=path, optional=variant == DEFAULT_VARIANT, owners=files.owners)
    if variant in read_published(files.definition):
        raise NodeError(
            f"OS variant {variant}: {path} does not exist",
            hint=f"make that file, or take {variant} out of variants.list",
        )
    raise UserError(
        f"there is no OS variant {variant}",
        hint="`gnt-os list` shows those that are there; is it a typing error?",
    )


def read_published(definition: str) -> tuple[str, ...]:
    """The variants that ``variants.list`` of the OS definition names."""
    try:
        with open(os.path.join(definition, "variants.list"), encoding="utf-8") as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(line for line in lines if line)
