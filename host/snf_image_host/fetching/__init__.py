"""Fetching what a URL names: by curl, unprivileged, only from addresses that the operator allows."""

from snf_image_host.fetching.curl import Condition
from snf_image_host.fetching.document import fetch_document
from snf_image_host.fetching.transfer import Transfer, open_transfer

__all__ = ["Condition", "Transfer", "fetch_document", "open_transfer"]
