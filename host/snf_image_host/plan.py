"""The plan: what was asked and the node's configuration become one frozen deployment, or one error.

Every problem that can be found without the image is found here and reported together (R-OSP-16), before
anything is written. Whoever fills the request resolves ``config_url`` and ``img_id``; here the image is a
path.
"""

from __future__ import annotations

import os
import re
import stat
import time
from typing import Final

from snf_image_contract import job as jobs
from snf_image_contract.names import ImageFormat, OsFamily, TaskName
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import Deployment
from snf_image_host.errors import UserError
from snf_image_host.helper_image import added_tasks
from snf_image_host.parameters.checks import Parameters, check_parameters, merge_parameters
from snf_image_host.parameters.disk_uris import disk_uri_identity
from snf_image_host.parameters.problems import Problems
from snf_image_host.parameters.values import parse_hostname
from snf_image_host.planning.answer_file import answer_file
from snf_image_host.planning.disk_serving import disk_serving
from snf_image_host.planning.environment import task_environment
from snf_image_host.planning.exclusions import operator_tasks, skipped_tasks
from snf_image_host.planning.helper_settings import helper_settings
from snf_image_host.planning.image import image_source
from snf_image_host.planning.network import decide_nics
from snf_image_host.planning.request import Request
from snf_image_host.planning.tasks import task_fields

_REFUSED: Final = "nothing was written"


def plan(
    asked: Request, config: NodeConfig, *, clock: float | None = None, problems: Problems | None = None
) -> Deployment:
    """Decide one deployment. Raises a UserError with one line for each thing that is wrong.

    ``clock``: seconds since the epoch, for the guest; now if None. ``problems``: what was found before.
    """
    problems = Problems() if problems is None else problems
    for warning in config.warnings:
        problems.warn(warning)
    given = merge_parameters(config.os_parameters, asked.parameters)
    added = added_tasks(helper_settings(config, asked.overrides).directory)
    names = [file[2:] for file in added]
    parameters = check_parameters(given, config, problems, required=asked.required, operator_tasks=names)
    if asked.answer_file is not None:
        parameters = parameters.replacing_answer_files()
    _refuse_dump_of_nothing(asked, parameters, problems)
    _check_hostname(asked, problems)
    _check_disks(asked, parameters, problems)
    nics = decide_nics(asked.nics or (), config, problems)
    answers = None if asked.action == "inspect" else answer_file(asked, parameters, config, problems)
    problems.raise_user_error(
        hint=_REFUSED if asked.required else f"{_REFUSED}; see `snf-image deploy --help`"
    )
    now = time.time() if clock is None else clock
    job = _job(asked, parameters, config, nics, answers, added=added, clock=now)
    return _deployment(asked, parameters, config, problems, job)


def _refuse_dump_of_nothing(asked: Request, parameters: Parameters, problems: Problems) -> None:
    header = parameters.image_format is not None and parameters.image_format.needs_partition_header
    if header and asked.action == "deploy" and asked.image.path is None:
        problems.error(f"img_format: {parameters.image_format} needs an image to copy, not null")


def _check_hostname(asked: Request, problems: Problems) -> None:
    """The name must be one of a host (R-TASK-HOST-1); ``_`` is tolerated (D-24)."""
    if asked.hostname is None:
        return
    problems.parse("hostname", parse_hostname, asked.hostname)
    if "_" in asked.hostname:
        problems.warn("the hostname holds '_', which the DNS does not allow in names of hosts")


def _check_disks(asked: Request, parameters: Parameters, problems: Problems) -> None:
    """There is a disk to write, and SWAP names one of the others (R-DST-2, R-TASK-SWAP-2)."""
    if not asked.disks:
        problems.error("there is no disk")
        return
    _check_distinct(asked, problems)
    if asked.disks[0].read_only and asked.action != "inspect":
        problems.error(f"disk 0 ({asked.disks[0].path}) is read-only")
    swap = parameters.properties.swap
    if not isinstance(swap, jobs.SwapDisk) or asked.action == "inspect":
        return
    letter = chr(ord("a") + swap.index)
    if swap.index == 0:
        problems.error("property SWAP: disk a holds the image")
    elif swap.index >= len(asked.disks):
        problems.error(f"property SWAP: there is no disk {letter}, the number of disks is {len(asked.disks)}")
    elif asked.disks[swap.index].read_only:
        problems.error(f"property SWAP: disk {letter} is read-only")


def _check_distinct(asked: Request, problems: Problems) -> None:
    """No disk is another one or the image: each would be overwritten while it is read. Nor is the receipt."""
    seen: dict[tuple[int, int] | str, str] = {}
    if asked.action == "deploy" and asked.image.path is not None and asked.image.kind == "path":
        seen[_identity(asked.image.path)] = "the image"
    for disk in asked.disks:
        identity = _identity(disk.path) if disk.uri is None else disk_uri_identity(disk.uri)
        if identity in seen:
            problems.error(f"disk {disk.index} ({disk.path}) is the same as {seen[identity]}")
        seen[identity] = f"disk {disk.index}"
    # The receipt takes the place of a file: it would be the end of the image, or of what was just deployed.
    if asked.report is not None and (taken := seen.get(_identity(asked.report))) is not None:
        problems.error(f"the receipt ({asked.report}) would replace {taken}")


def _identity(path: str) -> tuple[int, int] | str:
    """Equal for two names of one file or device."""
    try:
        state = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return (-1, state.st_rdev) if stat.S_ISBLK(state.st_mode) else (state.st_dev, state.st_ino)


def _instance(asked: Request) -> str:
    """The name of the instance: its hostname, else that of the disk."""
    if asked.hostname is not None:
        return asked.hostname
    name = os.path.splitext(os.path.basename(asked.disks[0].path))[0]
    return re.sub(r"[^A-Za-z0-9._-]", "-", name) or "disk"


def _job(
    asked: Request,
    parameters: Parameters,
    config: NodeConfig,
    nics: tuple[jobs.Nic, ...],
    answers: Secret | None,
    *,
    added: tuple[str, ...],
    clock: float,
) -> jobs.Job:
    properties = parameters.properties
    instance = _instance(asked)
    skipped = skipped_tasks(properties, not_asked=_not_asked(asked, parameters))
    custom = properties.custom_task is not None and not _skips(skipped, TaskName.RUN_CUSTOM_TASK)
    # Of a script that does one thing only they are no part.
    whole = asked.only is None and not properties.exclude_all_tasks
    of_operator = operator_tasks(added, properties) if whole else ()
    environment: tuple[jobs.Variable, ...] = ()
    if (
        custom
        or (asked.action != "inspect" and any(task.skipped is None for task in of_operator))
        or properties.allow_mounted_task_overwriting
    ):
        environment = task_environment(asked, parameters, config, hostname=instance)
    return jobs.Job(
        action="inspect" if asked.action == "inspect" else "customize",
        instance=instance,
        clock=clock,
        image_format=parameters.image_format or ImageFormat.DISKDUMP,
        disks=tuple(jobs.JobDisk(index=disk.index, read_only=disk.read_only) for disk in asked.disks),
        os_family=parameters.family,
        root_partition=parameters.root_partition,
        cloud_init=properties.cloud_init,
        cloud_init_debug=config.cloud_init_debug,
        allow_task_overwriting=properties.allow_mounted_task_overwriting,
        skipped=skipped,
        environment=environment,
        operator_tasks=of_operator,
        **task_fields(parameters, config, nics, answers, instance=instance),
    )


def _not_asked(asked: Request, parameters: Parameters) -> dict[TaskName, str]:
    """Tasks that have nothing to do, because what they need was not given (R-TASK-4, D-31)."""
    properties = parameters.properties
    reasons = {}
    if asked.only is not None:
        reasons = {task: "this script does something else" for task in TaskName if task not in asked.only}
    if asked.hostname is None:
        reasons[TaskName.ASSIGN_HOSTNAME] = "no hostname was given, the image keeps its own"
    if asked.nics is None:
        reasons[TaskName.CONFIGURE_NETWORK] = "no network interface was given"
    # What else is missing may be the business of programs in the image, if they are allowed to run.
    if not properties.allow_mounted_task_overwriting:
        if not properties.cloud_init:
            reasons[TaskName.INITIALIZE_DATASOURCE] = "property CLOUD_INIT is not set"
        if properties.swap is None:
            reasons[TaskName.ADD_SWAP] = "property SWAP is not set"
        if not (parameters.password or parameters.password_hash or parameters.auth_keys):
            reasons[TaskName.CHANGE_PASSWORD] = "no password, hash or key was given"
        if not parameters.personality:
            reasons[TaskName.ENFORCE_PERSONALITY] = "no file to inject was given"
        if properties.custom_task is None:
            reasons[TaskName.RUN_CUSTOM_TASK] = "no custom task was given"
    return {task: f"not asked: {reason}" for task, reason in reasons.items()}


def _skips(skipped: tuple[jobs.SkippedTask, ...], task: TaskName) -> bool:
    return any(entry.task is task for entry in skipped)


def _deployment(
    asked: Request, parameters: Parameters, config: NodeConfig, problems: Problems, job: jobs.Job
) -> Deployment:
    inspecting = asked.action == "inspect"
    run_helper = inspecting or not parameters.properties.exclude_all_tasks
    if not run_helper:
        problems.warn("no task is run, the image is only copied (property EXCLUDE_ALL_TASKS)")
    elif len(jobs.dump_job(job)) > jobs.MAX_JOB_BYTES:
        raise UserError(
            f"the parameters take more than {jobs.MAX_JOB_BYTES} bytes together",
            hint="inject fewer or smaller files",
        )
    return Deployment(
        instance=job.instance,
        image=image_source(asked.image, parameters, config, job.image_format),
        disks=asked.disks,
        helper=helper_settings(config, asked.overrides),
        serving=disk_serving(config),
        job=job,
        copy=asked.action == "deploy" and asked.image.path is not None,
        run_helper=run_helper,
        wipe_tail=config.wipe_tail,
        copy_idle_timeout=config.copy_idle_timeout,
        want_host_keys=_host_key_comment(asked, job) if run_helper and not inspecting else None,
        report=asked.report,
        keep=asked.keep,
        evidence=asked.evidence,
        again=asked.again,
        warnings=tuple(problems.warnings),
        notes=tuple(f"property {name} is not known" for name in parameters.properties.unknown),
    )


def _host_key_comment(asked: Request, job: jobs.Job) -> str | None:
    """The comment of SSH host keys that the image may need, None if it needs none (R-TASK-SSH-2)."""
    linux = job.os_family in (None, OsFamily.LINUX)
    if not linux or job.cloud_init or _skips(job.skipped, TaskName.DELETE_SSH_KEYS):
        return None
    short = asked.hostname.partition(".")[0] if asked.hostname else "localhost"
    return f"root@{short}"
