"""The rules of OS parameters: each value by its table, then what they mean together (R-OSP-*)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

from snf_image_contract.job import PersonalityFile
from snf_image_contract.names import ImageFormat, OsFamily
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.parameters import os_parameters
from snf_image_host.parameters.authorized_keys import parse_keys
from snf_image_host.parameters.nearest import did_you_mean
from snf_image_host.parameters.os_parameters import BY_NAME, OS_PARAMETERS, OsParameter
from snf_image_host.parameters.personality import parse_personality
from snf_image_host.parameters.problems import ParseError, Problems, shown
from snf_image_host.parameters.properties import ImageProperties, for_family, parse_properties
from snf_image_host.parameters.urls import parse_url, scheme_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Checked parameters. ``family`` and ``root_partition``: as given or implied, None to be detected.

    ``user_data`` is canonical base64. ``given``: texts as they came, by name, for custom tasks.
    """

    image_id: str | None
    image_format: ImageFormat | None
    family: OsFamily | None
    root_partition: int | None
    properties: ImageProperties
    password: Secret | None
    password_hash: Secret | None
    auth_keys: tuple[str, ...]
    personality: tuple[PersonalityFile, ...]
    product_key: Secret | None
    answer_file: str | None
    config_url: str | None
    user_data: Secret | None
    given: Mapping[str, Secret]

    def replacing_answer_files(self) -> Parameters:
        """The same, with an answer file of the caller's that takes the place of one that the image brings."""
        return dataclasses.replace(
            self, properties=dataclasses.replace(self.properties, ignore_unattend=True)
        )


def merge_parameters(*sources: Mapping[str, Secret]) -> dict[str, Secret]:
    """Parameters of several sources, the later replacing the earlier (R-OSP-1)."""
    merged: dict[str, Secret] = {}
    for source in sources:
        merged.update(source)
    return merged


def check_parameters(
    given: Mapping[str, Secret],
    config: NodeConfig,
    problems: Problems,
    *,
    required: bool = True,
    operator_tasks: Iterable[str] = (),
) -> Parameters:
    """Parse and check ``given``, which maps names to texts; everything that is wrong goes to ``problems``.

    ``required``: img_id and img_format must be there, unless config_url is (R-OSP-4, R-OSP-13).
    ``operator_tasks``: names of tasks that the operator added to the helper.
    """
    parsed = _parse_each(given, problems)
    if required:
        _check_required(parsed, problems)
    if {"img_passwd", "img_passwd_hash"} <= given.keys():
        problems.error("img_passwd and img_passwd_hash exclude each other, give one of them")
    properties = parse_properties(
        parsed.get("img_properties") or {}, parsed.get("inst_properties") or {}, problems, operator_tasks
    )
    image_format: ImageFormat | None = parsed.get("img_format")
    family = _implied_family(image_format, properties.osfamily, problems)
    root_partition = _implied_root_partition(image_format, properties.root_partition, problems)
    if family is not None:
        properties = for_family(properties, family, problems)
    _check_permissions(properties, config, problems)
    _check_users(properties, family, problems)
    answer_file = _check_url("os_answer_file", parsed, config, problems)
    if answer_file is not None:
        properties = dataclasses.replace(properties, ignore_unattend=True)
    return Parameters(
        image_id=parsed.get("img_id"),
        image_format=image_format,
        family=family,
        root_partition=root_partition,
        properties=properties,
        password=_check_password(parsed, properties, family, problems),
        password_hash=_check_hash(parsed, family, problems),
        auth_keys=_check_keys(parsed, family, problems),
        personality=parse_personality(
            parsed.get("img_personality") or [],
            problems,
            family=family,
            max_files=config.personality_max_files,
            max_bytes=config.personality_max_size,
        ),
        product_key=_check_product_key(parsed, family, problems),
        answer_file=answer_file,
        config_url=_check_url("config_url", parsed, config, problems),
        user_data=_check_user_data(parsed, properties, problems),
        given={name: text for name, text in given.items() if text.reveal()},
    )


def _parse_each(given: Mapping[str, Secret], problems: Problems) -> dict[str, Any]:
    """Values that are set and right; an empty one is treated as its row says (R-OSP-2, R-OSP-3)."""
    parsed: dict[str, Any] = {}
    for name in given.keys() - BY_NAME.keys():
        problems.error(f"{shown(name)} is not an OS parameter{did_you_mean(name, BY_NAME)}")
    for row in OS_PARAMETERS:
        if row.name not in given:
            continue
        text = given[row.name].reveal()
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            problems.error(f"{row.name}: not valid UTF-8")
            continue
        if not text:
            _report_empty(row, problems)
            continue
        value = problems.parse(row.name, row.parse, text, secret=row.secret)
        if value is not None:
            parsed[row.name] = value
    return parsed


def _report_empty(row: OsParameter, problems: Problems) -> None:
    if row.empty == "error":
        problems.error(f"{row.name}: must not be empty")
    elif row.empty == "unset":
        problems.warn(f"{row.name} is empty and counts as not set")


def _check_required(parsed: dict[str, Any], problems: Problems) -> None:
    if "config_url" in parsed:
        return
    failed = {error.partition(":")[0] for error in problems.errors}
    for name in ("img_id", "img_format"):
        if name not in parsed and name not in failed:
            problems.error(f"{name} is missing")


def _implied_family(
    image_format: ImageFormat | None, given: OsFamily | None, problems: Problems
) -> OsFamily | None:
    """The family as given or as the format implies it (R-PROP-8)."""
    implied = image_format.implied_family if image_format else None
    if implied is None or given is None or given == implied:
        return given or implied
    if (implied, given) != (OsFamily.WINDOWS, OsFamily.WINDOWS_LEGACY):
        problems.error(f"property OSFAMILY: must be {implied} for an image of format {image_format}")
    return given


def _implied_root_partition(
    image_format: ImageFormat | None, given: int | None, problems: Problems
) -> int | None:
    implied = image_format.implied_root_partition if image_format else None
    if implied is not None and given is not None and given != implied:
        problems.error(f"property ROOT_PARTITION: must be {implied} for an image of format {image_format}")
    return given or implied


def _check_permissions(properties: ImageProperties, config: NodeConfig, problems: Problems) -> None:
    """What the operator must consent to (R-TASK-8, ALLOW_CUSTOM_TASK)."""
    if properties.custom_task is not None and not config.allow_custom_task:
        problems.error("property CUSTOM_TASK: this node does not allow it (ALLOW_CUSTOM_TASK=no)")
    if properties.allow_mounted_task_overwriting and not config.allow_task_overwriting:
        problems.error(
            "property ALLOW_MOUNTED_TASK_OVERWRITING: this node does not allow it (ALLOW_TASK_OVERWRITING=no)"
        )


def _check_users(properties: ImageProperties, family: OsFamily | None, problems: Problems) -> None:
    """Names that no account can have (R-TASK-PW-1); before detection only what no family allows."""
    unix = family is not None and not family.is_windows
    for user in properties.users:
        if not user or any(character in ":/" or not character.isprintable() for character in user):
            problems.error(f"property USERS: {shown(user)} cannot be the name of an account")
        elif unix and any(character.isspace() for character in user):
            problems.error(f"property USERS: {shown(user)} must not hold white space")


_NO_BLOWFISH_LIMIT: Final = "must be at most 72 bytes for the hash method blowfish"


def _check_password(
    parsed: dict[str, Any], properties: ImageProperties, family: OsFamily | None, problems: Problems
) -> Secret | None:
    text = parsed.get("img_passwd")
    if text is None:
        return None
    method = properties.passwd_hashing_method or ("blowfish" if family is OsFamily.OPENBSD else None)
    if method == "blowfish" and len(text.encode()) > os_parameters.MAX_BLOWFISH_BYTES:
        problems.error(f"img_passwd: {_NO_BLOWFISH_LIMIT}")
    return Secret(text)


def _check_hash(parsed: dict[str, Any], family: OsFamily | None, problems: Problems) -> Secret | None:
    text = parsed.get("img_passwd_hash")
    if text is None:
        return None
    if family is not None and family.is_windows:
        problems.error("img_passwd_hash: Windows images take a password only (img_passwd)")
    elif not os_parameters.is_known_hash(text):
        problems.warn("img_passwd_hash is in no form that crypt(5) knows; nobody may be able to log in")
    return Secret(text)


def _check_keys(parsed: dict[str, Any], family: OsFamily | None, problems: Problems) -> tuple[str, ...]:
    text = parsed.get("auth_keys")
    if text is None:
        return ()
    if family is not None and family.is_windows:
        problems.warn("auth_keys are ignored for Windows images")
        return ()
    return parse_keys(text, problems)


def _check_product_key(parsed: dict[str, Any], family: OsFamily | None, problems: Problems) -> Secret | None:
    key = parsed.get("os_product_key")
    if key is None:
        return None
    if family is not None and not family.is_windows:
        problems.warn(f"os_product_key is ignored for {family} images")
        return None
    return Secret(key)


def _check_user_data(
    parsed: dict[str, Any], properties: ImageProperties, problems: Problems
) -> Secret | None:
    text = parsed.get("cloud_userdata")
    if text is None:
        return None
    if not properties.cloud_init:
        problems.warn("cloud_userdata is ignored without the property CLOUD_INIT=yes")
        return None
    return Secret(text)


def _check_url(name: str, parsed: dict[str, Any], config: NodeConfig, problems: Problems) -> str | None:
    """A URL whose syntax is right and whose scheme is allowed (R-OSP-12, R-OSP-13, R-FETCH-1)."""
    text = parsed.get(name)
    if text is None:
        return None
    if name == "os_answer_file" and scheme_of(text) == "file":
        if config.answer_file_dir is None:
            problems.error("os_answer_file: file: URLs are not allowed on this node (ANSWER_FILE_DIR)")
        return str(text)
    try:
        return parse_url(text, schemes=config.fetch_allowed_schemes)
    except ParseError as error:
        problems.error(f"{name}: {error}")
        return None
