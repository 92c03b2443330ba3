"""Copying an image onto a disk: overlapped, sparse, digested, and bootable only when it is whole."""

from snf_image_host.copying.copy import CopyResult, copy_image
from snf_image_host.copying.disarming import disarm

__all__ = ["CopyResult", "copy_image", "disarm"]
