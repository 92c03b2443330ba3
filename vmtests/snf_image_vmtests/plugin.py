"""The pytest plugin: capabilities, evidence, and the fixtures of VM tests.

It is loaded for every test of the project, so what is slow to import is imported where it is used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from snf_image_vmtests import capabilities

if TYPE_CHECKING:
    from snf_image_vmtests.evidence import Evidence
    from snf_image_vmtests.fixture_images import FixtureImage
    from snf_image_vmtests.inspection import InspectionVm
    from snf_image_vmtests.matrix import Cell
    from snf_image_vmtests.own_image import Matrix

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
        help="cells to deploy (ci/matrix.yaml of the checkout), or the description of an image of your own; "
        "without other tests to run, it is run",
    )
    group.addoption(
        "--image-sample",
        metavar="N",
        type=int,
        default=1,
        help="of the cells on composed images run every Nth only, the others all the same; "
        "more than 1: of the hostile images a fixed few",
    )
    group.addoption(
        "--image-report",
        metavar="DIRECTORY",
        default=None,
        help="write report.html and report.json about the cells there, and keep their evidence",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires(*capabilities): what the test needs of the machine")
    wanted = set(config.getoption("--must-have"))
    unknown = wanted - {"all"} - capabilities.CAPABILITIES.keys()
    if unknown:
        raise pytest.UsageError(f"--must-have {min(unknown)}: no such capability")
    if config.getoption("--image-matrix") and config.args_source is not pytest.Config.ArgsSource.ARGS:
        # Whoever describes an image has no tests of the cells; they come with this plugin.
        config.args = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "test_cells.py")]
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(KeptEvidence(), "snf-image-kept-evidence")
        if config.getoption("--image-report"):
            config.pluginmanager.register(ImageReport(config), "snf-image-report")


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
    if evidence is not None and report.when == "call":
        _record_cell(item, report, evidence)
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


class ImageReport:
    """Writes the report about the cells of this run when it ends."""

    def __init__(self, config: pytest.Config) -> None:
        # The file system's clock may be behind by a tick.
        self._since = time.time() - 1
        self._directory: str = config.getoption("--image-report")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        yield
        from snf_image_vmtests import report_page  # noqa: PLC0415

        path = report_page.write(self._directory, _matrix(session.config), since=self._since)
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_line(f"report: {path}")


def _record_cell(item: pytest.Item, report: pytest.TestReport, evidence: Evidence) -> None:
    """Leave in a cell's evidence what became of it, for the report."""
    from snf_image_vmtests import matrix_report  # noqa: PLC0415

    arguments = getattr(item, "funcargs", {})
    if "cell" not in arguments or "cell_image" not in arguments:
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    record = matrix_report.record_of(
        arguments["cell"],
        arguments["cell_image"].facts,
        report.outcome,
        report.duration,
        "" if report.passed else str(crash.message if crash else report.longrepr),
    )
    matrix_report.write_record(evidence.directory, record)


def _matrix(config: pytest.Config) -> Matrix:
    from snf_image_vmtests import matrix, own_image  # noqa: PLC0415

    return own_image.load(config.getoption("--image-matrix") or matrix.default_path())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``cell`` is run once for each cell of the matrix, in the file's order."""
    if "cell" in metafunc.fixturenames:
        from snf_image_vmtests import matrix  # noqa: PLC0415

        try:
            cells = matrix.sample(_matrix(metafunc.config).cells, metafunc.config.getoption("--image-sample"))
        except matrix.MatrixError as error:
            raise pytest.UsageError(str(error)) from None
        metafunc.parametrize("cell", cells, ids=[cell.id for cell in cells])


@pytest.fixture
def cell_image(cell: Cell, pytestconfig: pytest.Config) -> FixtureImage:
    """The image that a cell deploys: one of the project's, or that which the matrix describes."""
    from snf_image_vmtests.fixture_images import load_fixture  # noqa: PLC0415

    return _matrix(pytestconfig).image or load_fixture(cell.fixture)


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    """A directory for what a test leaves; kept if the test fails, and named as the last thing printed."""
    from snf_image_vmtests.evidence import Evidence  # noqa: PLC0415

    made = Evidence.of_test(request.node.nodeid)
    request.node.stash[EVIDENCE_KEY] = made
    yield made
    keep = request.config.getoption("--keep-evidence") or (
        "cell" in request.fixturenames and request.config.getoption("--image-report")
    )
    if not request.node.stash.get(FAILED_KEY, False) and not keep:
        made.remove()


@pytest.fixture(scope="session")
def inspection_vm() -> Iterator[InspectionVm]:
    """One VM per worker for looking at disks; it has no code of the helper."""
    from snf_image_vmtests.inspection import InspectionVm  # noqa: PLC0415

    with InspectionVm() as vm:
        yield vm
