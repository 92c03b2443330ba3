"""Runs inside the helper VM: does every change to the untrusted disk, reports what it did, powers off."""
