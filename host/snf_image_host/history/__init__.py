"""What happened to each instance on this node: receipts, console logs and evidence, kept for a while."""

from snf_image_host.history.entry import Entry, entries, instances, read_entry
from snf_image_host.history.journal import Journal
from snf_image_host.history.record import Record

__all__ = ["Entry", "Journal", "Record", "entries", "instances", "read_entry"]
