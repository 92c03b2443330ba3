"""The pytest plugin: capabilities, evidence, and the fixtures of VM tests.

It is loaded for every test of the project, so what is slow to import is imported where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from snf_image_vmtests import capabilities

if TYPE_CHECKING:
    from snf_image_vmtests.evidence import Evidence
    from snf_image_vmtests.inspection import InspectionVm

pytest.register_assert_rewrite("snf_image_vmtests.proofs", "snf_image_vmtests.boot")

EVIDENCE_KEY: pytest.StashKey[Evidence] = pytest.StashKey()
FAILED_KEY: pytest.StashKey[bool] = pytest.StashKey()
EVIDENCE_PROPERTY: Final = "evidence directory"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("snf-image", "snf-image: tests in virtual machines")
    group.addoption(
        "--must-have",
        action="append",
        default=[],
        metavar="CAPABILITY",
        help="fail instead of skipping where this is missing; all: turn every skip into a failure "
        "(so it is where the environment says CI=true)",
    )
    group.addoption("--keep-evidence", action="store_true", help="keep what passing VM tests left, too")
    group.addoption(
        "--image-matrix",
        metavar="FILE",
        default=None,
        help="cells to deploy (ci/matrix.yaml of the checkout)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires(*capabilities): what the test needs of the machine")
    wanted = set(config.getoption("--must-have"))
    unknown = wanted - {"all"} - capabilities.CAPABILITIES.keys()
    if unknown:
        raise pytest.UsageError(f"--must-have {min(unknown)}: no such capability")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(KeptEvidence(), "snf-image-kept-evidence")


def must_have(config: pytest.Config) -> set[str]:
    """Capabilities whose lack is a failure; ``all`` among them: no skip of any kind is accepted."""
    implied = {"all"} if os.environ.get("CI") == "true" else set()
    return implied | set(config.getoption("--must-have"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted: list[str] = []
    for marker in item.iter_markers("requires"):
        wanted += [name for name in marker.args if name not in wanted]
    try:
        lacking = capabilities.missing(wanted)
    except capabilities.UnknownCapabilityError as error:
        pytest.fail(str(error), pytrace=False)
    if not lacking:
        return
    reason = capabilities.reason(lacking)
    if must_have(item.config) & {"all", *lacking}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail") and "all" in must_have(item.config):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped, but everything must be there (--must-have all): {why}"
    item.stash[FAILED_KEY] = item.stash.get(FAILED_KEY, False) or report.failed
    evidence = item.stash.get(EVIDENCE_KEY, None)
    if report.failed and evidence is not None:
        # Now, while the VM is alive and before the worker sends the report away.
        report.sections += evidence.sections_of_failure()
        report.user_properties.append((EVIDENCE_PROPERTY, evidence.directory))


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, None]:
    outcome = yield
    report: pytest.CollectReport = outcome.get_result()
    if report.skipped and "all" in must_have(collector.config):
        report.outcome = "failed"
        report.longrepr = f"skipped, but everything must be there (--must-have all): {report.longrepr}"


class KeptEvidence:
    """Names the directories of failed tests once more, as the last lines of the run."""

    def __init__(self) -> None:
        self.directories: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            found = [str(value) for name, value in report.user_properties if name == EVIDENCE_PROPERTY]
            self.directories += [directory for directory in found if directory not in self.directories]

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        yield
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            for directory in self.directories:
                terminal.write_line(f"evidence: {directory}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``cell`` is run once for each cell of the matrix, in the file's order."""
    if "cell" in metafunc.fixturenames:
        from snf_image_vmtests import matrix  # noqa: PLC0415

        path = metafunc.config.getoption("--image-matrix") or matrix.default_path()
        try:
            cells = matrix.load_matrix(path)
        except matrix.MatrixError as error:
            raise pytest.UsageError(str(error)) from None
        metafunc.parametrize("cell", cells, ids=[cell.id for cell in cells])


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    """A directory for what a test leaves; kept if the test fails, and named as the last thing printed."""
    from snf_image_vmtests.evidence import Evidence  # noqa: PLC0415

    made = Evidence.of_test(request.node.nodeid)
    request.node.stash[EVIDENCE_KEY] = made
    yield made
    if not request.node.stash.get(FAILED_KEY, False) and not request.config.getoption("--keep-evidence"):
        made.remove()


@pytest.fixture(scope="session")
def inspection_vm() -> Iterator[InspectionVm]:
    """One VM per worker for looking at disks; it has no code of the helper."""
    from snf_image_vmtests.inspection import InspectionVm  # noqa: PLC0415

    with InspectionVm() as vm:
        yield vm
