"""The helper image on this node: kernel, initrd, root, and the manifest that describes them."""

from snf_image_host.helper_image.build import build
from snf_image_host.helper_image.image import BaseImage, HelperImage, added_tasks, load
from snf_image_host.helper_image.verify import verify

__all__ = ["BaseImage", "HelperImage", "added_tasks", "build", "load", "verify"]
