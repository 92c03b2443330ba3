"""``verify``: everything that is wrong with the OS parameters by themselves (R-SCR-VERIFY-1, R-SCR-VERIFY-2).

It has neither an instance nor an image, and does not use the network.
"""

from __future__ import annotations

from snf_image_host.ganeti.call import Call
from snf_image_host.ganeti.environment import check_api_version, read_parameters, read_variant
from snf_image_host.ganeti.node_files import load_node_config
from snf_image_host.ganeti.summary import plain
from snf_image_host.helper_image import added_tasks
from snf_image_host.parameters.checks import check_parameters, merge_parameters
from snf_image_host.parameters.problems import Problems


def verify(call: Call) -> None:
    """A UserError has one line for each mistake; warnings are printed."""
    problems = Problems()
    check_api_version(call.environment, problems)
    variant = read_variant(call.environment, problems)
    given = read_parameters(call.environment)
    call.secrets = tuple(given.values())
    config = load_node_config(call.files, variant)
    merged = merge_parameters(config.os_parameters, given)
    call.secrets = tuple(merged.values())
    added = [file[2:] for file in added_tasks(config.helper_dir)]
    check_parameters(merged, config, problems, operator_tasks=added)
    for warning in (*config.warnings, *problems.warnings):
        call.log.write(f"snf-image: warning: {plain(warning)}\n")
    problems.raise_user_error()
