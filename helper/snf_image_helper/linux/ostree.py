"""OSTree's systems, and those of bootc upon it: told, so that they can be refused with a reason.

The file system has no ``/etc``: the root is one of the deployments below ``/ostree/deploy``, a tree that must
not be changed behind OSTree's back (libostree's manual, "Deployments").
"""

from __future__ import annotations

from typing import Final

from snf_image_helper.root import Root
from snf_image_helper.root_mount import BTRFS_ROOTS
from snf_image_helper.signatures import Kind

REASON: Final = "the root of an OSTree or bootc system, which is not supported"
REFUSAL: Final = (
    "holds an OSTree or bootc system (Fedora CoreOS, Silverblue, image mode and the like): its root is a "
    "deployment below /ostree/deploy, and no task can change such an image; deploy it with "
    "EXCLUDE_ALL_TASKS=yes and have its own Ignition or cloud-init configure it"
)


def is_ostree(root: Root, kind: Kind | None) -> bool:
    """Whether a tree without ``/etc`` is one of OSTree; in a Btrfs its usual subvolumes count, too."""
    above = ("", *(f"/{name}" for name in BTRFS_ROOTS)) if kind is Kind.BTRFS else ("",)
    return not root.is_dir("/etc") and any(root.is_dir(f"{path}/ostree/deploy") for path in above)
