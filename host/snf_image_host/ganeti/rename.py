"""``rename``: nothing, or the new name as the hostname in the image (R-SCR-RENAME-1, D-11)."""

from __future__ import annotations

import dataclasses
from typing import Final

from snf_image_contract.names import TaskName
from snf_image_host.deploy import customize
from snf_image_host.ganeti.call import Call, Run
from snf_image_host.ganeti.environment import (
    check_api_version,
    read_instance,
    read_name,
    read_variant,
)
from snf_image_host.ganeti.node_files import load_node_config
from snf_image_host.parameters.problems import Problems
from snf_image_host.plan import plan
from snf_image_host.planning.request import AskedImage, Request

TASKS: Final = frozenset({TaskName.MOUNT_IMAGE, TaskName.ASSIGN_HOSTNAME, TaskName.UMOUNT_IMAGE})
"""All that runs in the image of an instance that is renamed."""


def rename(call: Call) -> None:
    """OS parameters are neither needed nor looked at: a reinstallation can have wiped them (D-11)."""
    problems = Problems()
    check_api_version(call.environment, problems)
    read_name(call.environment, "OLD_INSTANCE_NAME", problems)
    call.name = read_name(call.environment, "INSTANCE_NAME", problems)
    variant = read_variant(call.environment, problems)
    config = dataclasses.replace(load_node_config(call.files, variant), os_parameters={})
    problems.raise_user_error()
    if not config.rename_guest:
        call.log.write("snf-image: the image is not changed (RENAME_GUEST=no)\n")
        return
    instance = read_instance(call.environment, problems)
    run = Run(call, config, "rename")
    with run.told():
        request = Request(
            action="customize",
            image=AskedImage(path=None, shown="the system on the disk", digest=False),
            disks=instance.disks,
            hostname=instance.name,
            only=TASKS,
            evidence=None if run.journal is None else run.journal.evidence,
            again=f"# on the master node:\ngnt-instance rename {call.name} {call.name}",
        )
        run.deployment = plan(request, config, problems=problems)
        run.succeeded(customize(run.deployment, run.reporter).as_json())
    call.log.write(f"snf-image: the hostname in the image is {call.name} now\n")
