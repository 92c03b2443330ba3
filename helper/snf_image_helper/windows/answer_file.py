"""Answer files of Windows 6.0 and later, read and changed as XML (R-TASK-UNA-7, R-TASK-UNA-8).

Nobody's document type is read: a file that declares one is refused before it is parsed, so that there are no
entities to expand and no external ones to fetch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.dom import minidom
from xml.parsers import expat

from snf_image_helper.errors import ImageError

NAMESPACE: Final = "urn:schemas-microsoft-com:unattend"
WCM: Final = "http://schemas.microsoft.com/WMIConfig/2002/State"
PUBLIC_KEY_TOKEN: Final = "31bf3856ad364e35"  # noqa: S105 - names the publisher of all components
SHELL_SETUP: Final = "Microsoft-Windows-Shell-Setup"
DEPLOYMENT: Final = "Microsoft-Windows-Deployment"
SPECIALIZE: Final = "specialize"
OOBE_SYSTEM: Final = "oobeSystem"
MAX_ANSWER_FILE: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_ELEMENTS: Final = 50_000
_MAX_PATH: Final = 255
_XMLNS: Final = "http://www.w3.org/2000/xmlns/"
_MAX_ORDER_DIGITS: Final = 9


class AnswerFile:
    """One answer file for one processor architecture. ``path`` is what errors call it."""

    def __init__(self, data: bytes, *, path: str, architecture: str) -> None:
        """:class:`ImageError` if it is not well-formed, declares a document type, or is something else."""
        self.path = path
        self._architecture = architecture
        _demand_harmless(data, path)
        self._document = minidom.parseString(data)  # noqa: S318 - without a document type, as was just seen
        top = self._document.documentElement
        if top is None or (top.namespaceURI, top.localName) != (NAMESPACE, "unattend"):
            raise ImageError(f"{path}: not an answer file: its root is not unattend of {NAMESPACE}")
        self._top: minidom.Element = top

    def data(self) -> bytes:
        """The file as UTF-8, with a declaration that says so."""
        return bytes(self._document.toxml(encoding="utf-8", standalone=None)) + b"\n"

    # -- changing ---------------------------------------------------------------------------------

    def set_text(self, pass_name: str, component: str, name: str, text: str) -> None:
        """Give a setting of a component its one value."""
        parent = self._demand_component(pass_name, component)
        found = list(_children(parent, name))
        for other in found[1:]:
            parent.removeChild(other)
            other.unlink()
        self._put_text(found[0] if found else self._add(parent, name), text)

    def ensure_command(self, command: str, file_name: str, description: str) -> bool:
        """Have ``command`` run in pass specialize, after those that are there already.

        Nothing is added if one of them names ``file_name`` already; whether something was.
        """
        if len(command) > _MAX_PATH:
            raise ValueError("the Path of a command has at most 255 characters")
        if self.has_command(file_name):
            return False
        component = self._demand_component(SPECIALIZE, DEPLOYMENT)
        order = 1 + max((self._order(entry) for entry in self._commands()), default=0)
        run = next(_children(component, "RunSynchronous"), None) or self._add(component, "RunSynchronous")
        entry = self._add(run, "RunSynchronousCommand")
        entry.setAttributeNS(WCM, f"{self._wcm_prefix(entry)}:action", "add")
        for name, text in (("Order", str(order)), ("Path", command), ("Description", description)):
            self._put_text(self._add(entry, name), text)
        return True

    def revive_pass(self, pass_name: str) -> bool:
        """Have Windows process a pass that the file says was processed when the image was made."""
        revived = False
        for settings in self._settings(pass_name):
            if settings.getAttribute("wasPassProcessed").lower() == "true":
                settings.removeAttribute("wasPassProcessed")
                revived = True
        return revived

    # -- looking ----------------------------------------------------------------------------------

    def has_command(self, file_name: str) -> bool:
        """Whether a command of pass specialize names a file, whatever the letter case."""
        return any(
            file_name.lower() in _text(path).lower()
            for entry in self._commands()
            for path in _children(entry, "Path")
        )

    def local_accounts(self) -> list[str]:
        """Names of the accounts that Windows makes by this file in pass oobeSystem."""
        return [
            _text(name).strip()
            for component in self._components(OOBE_SYSTEM, SHELL_SETUP)
            for accounts in _children(component, "UserAccounts")
            for local in _children(accounts, "LocalAccounts")
            for account in _children(local, "LocalAccount")
            for name in _children(account, "Name")
        ]

    # -- inside -----------------------------------------------------------------------------------

    def _settings(self, pass_name: str) -> Iterator[minidom.Element]:
        for settings in _children(self._top, "settings"):
            if settings.getAttribute("pass") == pass_name:
                yield settings

    def _components(self, pass_name: str, name: str) -> Iterator[minidom.Element]:
        for settings in self._settings(pass_name):
            for component in _children(settings, "component"):
                if (
                    component.getAttribute("name") == name
                    and component.getAttribute("processorArchitecture").lower() == self._architecture
                ):
                    yield component

    def _demand_component(self, pass_name: str, name: str) -> minidom.Element:
        """A component of this architecture; the pass and it are made if they are missing (T-128)."""
        found = next(self._components(pass_name, name), None)
        if found is not None:
            return found
        settings = next(self._settings(pass_name), None)
        if settings is None:
            settings = self._add(self._top, "settings")
            settings.setAttribute("pass", pass_name)
        component = self._add(settings, "component")
        self._wcm_prefix(component)
        for attribute, value in (
            ("name", name),
            ("processorArchitecture", self._architecture),
            ("publicKeyToken", PUBLIC_KEY_TOKEN),
            ("language", "neutral"),
            ("versionScope", "nonSxS"),
        ):
            component.setAttribute(attribute, value)
        return component

    def _commands(self) -> Iterator[minidom.Element]:
        for component in self._components(SPECIALIZE, DEPLOYMENT):
            for run in _children(component, "RunSynchronous"):
                yield from _children(run, "RunSynchronousCommand")

    def _order(self, command: minidom.Element) -> int:
        for order in _children(command, "Order"):
            text = _text(order).strip()
            if text.isascii() and text.isdigit() and len(text) <= _MAX_ORDER_DIGITS:
                return int(text)
        return 0

    def _add(self, parent: minidom.Element, name: str) -> minidom.Element:
        """A new last child in the namespace of answer files, with the prefix that its parent has."""
        prefix = f"{parent.prefix}:" if parent.prefix else ""
        child = self._document.createElementNS(NAMESPACE, prefix + name)
        parent.appendChild(child)
        return child

    def _put_text(self, element: minidom.Element, text: str) -> None:
        while element.firstChild is not None:
            element.removeChild(element.firstChild).unlink()
        element.appendChild(self._document.createTextNode(text))

    def _wcm_prefix(self, element: minidom.Element) -> str:
        """The prefix that stands for the namespace of list actions where ``element`` is; declared if none."""
        node: minidom.Node | None = element
        while isinstance(node, minidom.Element):
            for name, value in node.attributes.items():
                if name.startswith("xmlns:") and value == WCM:
                    return str(name.removeprefix("xmlns:"))
            node = node.parentNode
        element.setAttributeNS(_XMLNS, "xmlns:wcm", WCM)
        return "wcm"


def _demand_harmless(data: bytes, path: str) -> None:
    """:class:`ImageError` for what must not reach the parser that builds a tree."""
    if len(data) > MAX_ANSWER_FILE:
        raise ImageError(f"{path}: larger than {MAX_ANSWER_FILE} bytes")
    counter = _Counter(path)
    # With namespaces, as the parser that builds a tree: an undeclared prefix is not well-formed either.
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = counter.doctype
    parser.StartElementHandler = counter.start
    parser.EndElementHandler = counter.end
    try:
        parser.Parse(data, True)  # noqa: FBT003 - that is its signature
    except expat.ExpatError as error:
        raise ImageError(f"{path}: not well-formed XML: {error}") from None
    except (LookupError, ValueError) as error:  # an encoding that nobody knows
        raise ImageError(f"{path}: not readable as XML: {error}") from None


class _Counter:
    """Watches a first pass over a file, which builds nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._depth = 0
        self._elements = 0

    def doctype(self, *_: object) -> None:
        raise ImageError(f"{self._path}: declares a document type (DTD), which answer files do not have")

    def start(self, _name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1 + len(attributes)
        if self._depth > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise ImageError(f"{self._path}: more elements, or more deeply nested, than an answer file has")

    def end(self, _name: str) -> None:
        self._depth -= 1


def _children(parent: minidom.Element, name: str) -> Iterator[minidom.Element]:
    for node in list(parent.childNodes):
        if isinstance(node, minidom.Element) and node.localName == name and node.namespaceURI == NAMESPACE:
            yield node


def _text(element: minidom.Element) -> str:
    texts = (minidom.Text, minidom.CDATASection)
    return "".join(node.data for node in element.childNodes if isinstance(node, texts))
