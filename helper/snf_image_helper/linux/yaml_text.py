"""YAML as cloud-init, netplan and the shell programs around them read it.

Made by a serialiser, so that no value can break the quoting; every value that is more than a plain word is
double-quoted, so that readers of YAML 1.1 and 1.2 agree about it (``aa:00:00:12:34:56``, ``1e3``, ``off``).
A list of plain values stands on one line: cloud-init's ds-identify reads ``datasource_list: [ NoCloud ]``
with a shell parser that knows no other form.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from typing import Final

from snf_image_helper.errors import ImageError

MAX_DOCUMENT: Final = 128 * 1024
"""Bytes of a YAML document of the image that are parsed at most: an emulated helper does 4 KiB a second."""
_MAX_BRACKETS: Final = 200
"""Brackets open at once; each costs the parser time at every later byte."""
_BRACKETS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def dump(document: Mapping[str, object]) -> str:
    """The YAML text of plain values, in the order given."""
    import yaml  # noqa: PLC0415 - a fifth of a second, of jobs that write no YAML too

    from snf_image_helper.linux.yaml_dumper import Dumper  # noqa: PLC0415 - as above

    text: str = yaml.dump(
        dict(document),
        Dumper=Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=sys.maxsize,
    )
    return text


def load_mapping(data: bytes, path: str) -> dict[str, object]:
    """The mapping that the image's file ``path`` holds, empty for an empty file.

    :class:`ImageError` if it is not YAML, not a mapping, or too large or too deep to be configuration.
    """
    import yaml  # noqa: PLC0415 - as in dump

    from snf_image_helper.linux.yaml_loader import Loader  # noqa: PLC0415 - as in dump

    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"{path}: larger than {MAX_DOCUMENT} bytes")
    if max(itertools.accumulate(map(_BRACKETS.get, data, itertools.repeat(0))), default=0) > _MAX_BRACKETS:
        raise ImageError(f"{path}: nested too deeply")
    try:
        document = yaml.load(data, Loader=Loader)  # noqa: S506 - plain values only, as safe_load
    # The last two: what PyYAML makes of an empty !!int, of !!bool and !!timestamp that are none.
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError):
        raise ImageError(f"{path}: not valid YAML") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ImageError(f"{path}: not a YAML mapping")
    return document
