"""The Linux family."""
