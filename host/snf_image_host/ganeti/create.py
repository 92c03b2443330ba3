"""``create``: a new instance's disks get an image, and what was asked for (R-SCR-CREATE-1)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deploy import deploy
from snf_image_host.ganeti.call import Call, Run
from snf_image_host.ganeti.environment import (
    Instance,
    check_api_version,
    public_disk_names,
    read_instance,
    read_parameters,
    read_variant,
)
from snf_image_host.ganeti.images import find_image
from snf_image_host.ganeti.node_files import load_node_config
from snf_image_host.ganeti.summary import plain
from snf_image_host.parameters.checks import merge_parameters
from snf_image_host.parameters.problems import Problems
from snf_image_host.plan import plan
from snf_image_host.planning.documents import fetch_parameters
from snf_image_host.planning.request import AskedImage, Request
from snf_image_host.receipt import Receipt
from snf_image_host.sources.destinations import with_destination


def create(call: Call) -> None:
    """Deploy; every mistake that can be found before the first byte is told with all others (R-OSP-16)."""
    problems = Problems()
    check_api_version(call.environment, problems)
    instance = read_instance(call.environment, problems)
    variant = read_variant(call.environment, problems)
    given = read_parameters(call.environment)
    call.name, call.stays, call.secrets = instance.name or None, True, tuple(given.values())
    config = load_node_config(call.files, variant)
    parameters = merge_parameters(config.os_parameters, given)
    call.secrets = tuple(parameters.values())
    run = Run(call, config, "create")
    with run.told():
        run.add_monitor(_public_names(call, config))
        parameters = fetch_parameters(parameters, config, problems)
        call.secrets = (*call.secrets, *parameters.values())
        config = dataclasses.replace(config, os_parameters={})
        with find_image(parameters, config, problems) as image:
            instance = _with_destination(instance, parameters, problems)
            run.deployment = plan(_request(run, instance, image, parameters), config, problems=problems)
            if instance.reinstall:
                run.reporter.info("the instance is reinstalled: what its first disk holds is replaced")
            receipt = deploy(run.deployment, run.reporter)
        run.succeeded(receipt.as_json())
    _say_done(call, receipt)


def _request(run: Run, instance: Instance, image: AskedImage, parameters: Mapping[str, Secret]) -> Request:
    return Request(
        action="deploy",
        image=image,
        disks=instance.disks,
        hostname=instance.name or None,
        parameters=parameters,
        nics=instance.nics,
        required=True,
        evidence=None if run.journal is None else run.journal.evidence,
        again=f"# on the master node, with the same parameters:\ngnt-instance reinstall {instance.name}",
    )


def _with_destination(instance: Instance, parameters: Mapping[str, Secret], problems: Problems) -> Instance:
    """The first disk with who writes it: asked only if nothing is wrong yet."""
    if problems.errors or not instance.disks:
        return instance
    image_format = parameters["img_format"].reveal() if "img_format" in parameters else ""
    first = with_destination(instance.disks[0], image_format, problems)
    return dataclasses.replace(instance, disks=(first, *instance.disks[1:]))


def _public_names(call: Call, config: NodeConfig) -> dict[str, str]:
    """What users are told in the place of this node's paths (R-MON-7)."""
    names = {
        config.helper_dir: "the helper image",
        config.image_dir: "the directory of images",
        config.log_dir: "the node's log",
        os.path.dirname(call.files.backends): "the configuration",
    }
    names |= {file.path: "the configuration" for file in call.files.main}
    names = {path: name for path, name in names.items() if path.startswith("/") and len(path) > 1}
    return names | public_disk_names(call.environment)


def _say_done(call: Call, receipt: Receipt) -> None:
    lines = receipt.summary().split("\n")
    if call.written is not None:
        lines.append(f"receipt on the node: {call.written}")
    for line in lines:
        call.log.write(f"snf-image: {plain(line)}\n")
    call.log.flush()
