"""Documents from servers that a plan needs: the one of config_url, and answer files (R-OSP-12 to R-OSP-14).

They are fetched like images are, by an unprivileged curl and only from addresses that the operator allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.errors import SnfImageError
from snf_image_host.parameters.json_text import Number, load_json
from snf_image_host.parameters.nearest import did_you_mean
from snf_image_host.parameters.os_parameters import BY_NAME
from snf_image_host.parameters.problems import ParseError, Problems, shown
from snf_image_host.parameters.urls import parse_url
from snf_image_host.planning.image import source_settings
from snf_image_host.reporter import Event, Reporter, Warning

_URL: Final = "config_url"
_KEYS: Final = tuple(name for name in BY_NAME if name != _URL)
_MAY_BE_NESTED: Final = {"img_properties": dict, "inst_properties": dict, "img_personality": list}


def fetch_parameters(
    given: Mapping[str, Secret], config: NodeConfig, problems: Problems
) -> dict[str, Secret]:
    """``given`` with what the document of its config_url replaces, and without the URL (R-OSP-1).

    ``given`` unchanged if it has no such URL, or if ``problems`` has errors or gets one: then nothing is
    fetched. What cannot be fetched is a :class:`SnfImageError`.
    """
    url = given[_URL].reveal() if _URL in given else ""
    if not url or problems.errors or not _is_allowed(url, config):
        return dict(given)
    document = fetch(_URL, url, config, problems)
    found = _parse_document(document, config, problems)
    rest = {name: value for name, value in given.items() if name != _URL}
    return dict(given) if found is None else rest | found


def fetch(name: str, url: str, config: NodeConfig, problems: Problems) -> bytes:
    """At most FETCH_MAX_PARAM_SIZE bytes; errors begin with ``name``."""
    # Loaded when it is used: most requests need nothing of it.
    from snf_image_host.fetching import fetch_document  # noqa: PLC0415
    from snf_image_host.sources.account import source_account  # noqa: PLC0415

    settings = source_settings(config)
    reporter = Reporter(_Warnings(problems))
    try:
        with source_account(settings, reporter, user=settings.fetch.user) as account:
            return fetch_document(url, config.fetch_max_param_size, settings.fetch, account, reporter)
    except SnfImageError as error:
        messages = (f"{name}: {message}" for message in error.messages)
        raise type(error)(*messages, hint=error.hint, details=error.details) from None


class _Warnings:
    """A sink: what is warned of while a document is fetched belongs to the plan."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def handle(self, event: Event) -> None:
        if isinstance(event, Warning):
            self._problems.warn(event.message)

    def close(self) -> None:
        pass


def _is_allowed(url: str, config: NodeConfig) -> bool:
    """Whether its syntax and scheme are right; who checks the parameters tells if they are not."""
    try:
        parse_url(url, schemes=config.fetch_allowed_schemes)
    except ParseError:
        return False
    return True


def _parse_document(document: bytes, config: NodeConfig, problems: Problems) -> dict[str, Secret] | None:
    """Texts of parameters by name; None if there is anything wrong with it (R-OSP-14)."""
    try:
        data = load_json(document.decode("utf-8"), limit=config.fetch_max_param_size, fold_keys=True)
    except UnicodeDecodeError:
        problems.error(f"{_URL}: the document is not UTF-8")
        return None
    except ParseError as error:
        problems.error(f"{_URL}: the document: {error}")
        return None
    if not isinstance(data, dict):
        problems.error(f"{_URL}: the document must be a JSON object")
        return None
    found: dict[str, Secret] = {}
    before = len(problems.errors)
    for key, value in data.items():
        name = key.lower()
        if name not in _KEYS:
            problems.error(f"{_URL}: {shown(key)} in the document is no parameter{did_you_mean(name, _KEYS)}")
        elif isinstance(value, _MAY_BE_NESTED.get(name, ())):
            found[name] = Secret(_as_json(value))
        elif isinstance(value, str) and not isinstance(value, Number):
            found[name] = Secret(value)
        else:
            problems.error(f"{_URL}: {name} must be a string in the document")
    return found if len(problems.errors) == before else None


def _as_json(value: Any) -> str:
    """The same JSON again, numbers as they were written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_as_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_as_json, value)) + "]"
    return json.dumps(value)
