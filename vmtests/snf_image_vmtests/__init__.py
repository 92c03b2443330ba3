"""Deploys images in real VMs and looks at the result; uses the installed commands as a user would."""
