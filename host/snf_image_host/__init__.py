"""Runs on the node: copies the image onto the disk and has the helper VM customise it."""
