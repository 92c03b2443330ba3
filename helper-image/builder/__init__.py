"""Turns Debian packages and our code into the helper's kernel, initrd, root image and self-booting disk."""
