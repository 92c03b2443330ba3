"""What Windows makes of the scripts that a deployment leaves, worked out without any code of the helper."""

from __future__ import annotations

import base64
import dataclasses
import re
from xml.etree import ElementTree as ET

NAMESPACE = "{urn:schemas-microsoft-com:unattend}"
_ACCOUNT = re.compile(rb"@\{ Name = '([A-Za-z0-9+/=]*)'; Password = '([A-Za-z0-9+/=]*)' \}")
_REDIRECTED = " >nul 2>&1"


def powershell_accounts(script: bytes) -> list[tuple[str, str]]:
    """Names and passwords of the PowerShell script: base64 of little-endian UTF-16 (D-35)."""
    return [(_utf16(name), _utf16(secret)) for name, secret in _ACCOUNT.findall(script)]


def _utf16(encoded: bytes) -> str:
    raw = base64.b64decode(encoded, validate=True)
    units = "".join(chr(raw[at] | raw[at + 1] << 8) for at in range(0, len(raw), 2))
    return units.encode("utf-16", "surrogatepass").decode("utf-16")


def batch_accounts(script: bytes) -> list[tuple[str, str]]:
    """Names and passwords of the lines ``net user`` of a batch file (D-35)."""
    lines = script.decode("ascii").split("\r\n")
    assert lines[:2] == ["@echo off", "setlocal DisableDelayedExpansion"]
    found = []
    for line in lines[2:]:
        if line.startswith("net user"):
            assert line.endswith(_REDIRECTED)
            words = cmd_words(line.removesuffix(_REDIRECTED))
            assert words[4:] == ["/ACTIVE:YES", "/EXPIRES:NEVER", "/PASSWORDREQ:YES", "/Y"]
            found.append((words[2], words[3]))
    return found


def cmd_words(line: str) -> list[str]:
    """The words a program gets of a line of a batch file: percent signs, cmd's carets, the C run time.

    Fails for what cmd would act on; its quoted state is never entered by an escaped quote.
    """
    assert "%" not in line.replace("%%", ""), "a variable would be expanded"
    return _c_words(_without_carets(line.replace("%%", "%")))


def _without_carets(line: str) -> str:
    text, at = "", 0
    while at < len(line):
        if line[at] == "^":
            at += 1
        else:
            assert line[at] not in '&|<>"()', f"cmd would act on {line[at]!r}"
        text += line[at]
        at += 1
    return text


def _c_words(text: str) -> list[str]:
    words: list[str] = []
    word, quoted, at = "", False, 0
    while at < len(text):
        slashes = len(text[at:]) - len(text[at:].lstrip("\\"))
        at += slashes
        if at < len(text) and text[at] == '"':
            word += "\\" * (slashes // 2)
            if slashes % 2:
                word += '"'
            else:
                quoted = not quoted
            at += 1
        elif slashes:
            word += "\\" * slashes
        elif text[at] in " \t" and not quoted:
            words, word, at = [*words, word], "", at + 1
        else:
            word, at = word + text[at], at + 1
    assert not quoted, "a quote is left open"
    return [*words, word]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Specialize:
    """What pass specialize of an answer file says for one processor architecture."""

    computer_name: str | None
    product_key: str | None
    time_zone: str | None
    commands: tuple[str, ...]


def specialize(data: bytes, architecture: str) -> Specialize:
    """Read by the rules for components: one pass, one component of each name, orders that differ."""
    top = ET.fromstring(data)  # noqa: S314 - the helper has refused what could harm
    assert top.tag == f"{NAMESPACE}unattend"
    passes = [settings for settings in top if settings.get("pass") == "specialize"]
    assert len(passes) == 1
    assert passes[0].get("wasPassProcessed") is None
    shell = _component(passes[0], "Microsoft-Windows-Shell-Setup", architecture)
    deployment = _component(passes[0], "Microsoft-Windows-Deployment", architecture)
    runs = [] if deployment is None else list(deployment.iter(f"{NAMESPACE}RunSynchronousCommand"))
    ordered = sorted((int(_text(run, "Order") or 0), _text(run, "Path") or "") for run in runs)
    assert len({order for order, _ in ordered}) == len(ordered), "two commands have one order"
    assert all(len(path) <= 255 for _, path in ordered)
    return Specialize(
        computer_name=_text(shell, "ComputerName"),
        product_key=_text(shell, "ProductKey"),
        time_zone=_text(shell, "TimeZone"),
        commands=tuple(path for _, path in ordered),
    )


def _component(settings: ET.Element, name: str, architecture: str) -> ET.Element | None:
    found = [
        component
        for component in settings
        if component.get("name") == name and component.get("processorArchitecture") == architecture
    ]
    assert len(found) <= 1, f"component {name} stands there twice"
    for component in found:
        attributes = [component.get(key) for key in ("publicKeyToken", "language", "versionScope")]
        assert attributes == ["31bf3856ad364e35", "neutral", "nonSxS"]
    return found[0] if found else None


def _text(element: ET.Element | None, name: str) -> str | None:
    return None if element is None else element.findtext(f"{NAMESPACE}{name}")
