"""The parts of :func:`snf_image_host.plan.plan`: what was asked, and each decision about it."""
