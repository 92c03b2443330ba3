"""The fields of a job, one for each task that can be told something."""

from __future__ import annotations

import secrets
from typing import TypedDict

from snf_image_contract import job as jobs
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.parameters.checks import Parameters


class TaskFields(TypedDict):
    """Keyword arguments of :class:`~snf_image_contract.job.Job`."""

    fix_partition_table: jobs.FixPartitionTable
    filesystem_resize_unmounted: jobs.FilesystemResizeUnmounted
    mount_image: jobs.MountImage
    initialize_datasource: jobs.InitializeDatasource
    install_unattend: jobs.InstallUnattend
    filesystem_resize_mounted: jobs.FilesystemResizeMounted
    add_swap: jobs.AddSwap
    assign_hostname: jobs.AssignHostname
    change_machine_id: jobs.ChangeMachineId
    change_password: jobs.ChangePassword
    configure_network: jobs.ConfigureNetwork
    enforce_personality: jobs.EnforcePersonality
    run_custom_task: jobs.RunCustomTask
    filesystem_resize_after_umount: jobs.FilesystemResizeAfterUmount


def task_fields(
    parameters: Parameters,
    config: NodeConfig,
    nics: tuple[jobs.Nic, ...],
    answer_file: Secret | None,
    *,
    instance: str,
) -> TaskFields:
    """What each task is told; an excluded one the same, because it changes nothing else (R-TASK-3)."""
    properties = parameters.properties
    swap = properties.swap
    custom_task = properties.custom_task
    return TaskFields(
        fix_partition_table=jobs.FixPartitionTable(
            swap=swap if isinstance(swap, jobs.SwapPartition) else None
        ),
        filesystem_resize_unmounted=jobs.FilesystemResizeUnmounted(sync=properties.do_sync),
        mount_image=jobs.MountImage(allow_unclean_ntfs=properties.allow_unclean_ntfs),
        initialize_datasource=_initialize_datasource(parameters, instance),
        install_unattend=jobs.InstallUnattend(
            answer_file=answer_file,
            ignore_existing=properties.ignore_unattend,
            product_key=parameters.product_key,
            time_zone=config.windows_timezone,
        ),
        filesystem_resize_mounted=jobs.FilesystemResizeMounted(offline_ntfs=properties.offline_ntfsresize),
        add_swap=jobs.AddSwap(swap=swap),
        assign_hostname=jobs.AssignHostname(name=instance),
        change_machine_id=jobs.ChangeMachineId(mode=properties.machine_id),
        change_password=jobs.ChangePassword(
            users=properties.users,
            password=parameters.password,
            password_hash=parameters.password_hash,
            keys=parameters.auth_keys,
            method=properties.passwd_hashing_method,
        ),
        configure_network=jobs.ConfigureNetwork(
            nics=nics,
            backend=_backend(parameters),
            dns_servers=config.dns_servers,
            dns_search=config.dns_search,
        ),
        enforce_personality=jobs.EnforcePersonality(files=parameters.personality),
        run_custom_task=jobs.RunCustomTask(program=Secret(custom_task) if custom_task else None),
        filesystem_resize_after_umount=jobs.FilesystemResizeAfterUmount(
            offline_ntfs=properties.offline_ntfsresize, skip_check=properties.offline_ntfsresize_nocheck
        ),
    )


def _initialize_datasource(parameters: Parameters, instance: str) -> jobs.InitializeDatasource:
    """A new instance id for each deployment, so that cloud-init runs again (R-TASK-CI-4)."""
    if not parameters.properties.cloud_init:
        return jobs.InitializeDatasource()
    return jobs.InitializeDatasource(
        user_data=parameters.user_data, instance_id=f"{instance}-{secrets.token_hex(8)}"
    )


def _backend(parameters: Parameters) -> jobs.NetworkBackend | None:
    """NM_NETWORKING before NET_BACKEND; None is for the helper to choose (R-NET-11)."""
    if parameters.properties.nm_networking:
        return "nm"
    asked = parameters.properties.net_backend
    return None if asked == "auto" else asked
