"""What tests need of the machine: the table, skips that name it, failures where it must be there."""

from collections.abc import Iterator

import pytest

from snf_image_vmtests import capabilities

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.mark.requires({names})
def test_needs():
    pass

def test_skips():
    pytest.skip("no mood")

def test_passes():
    pass
"""


@pytest.fixture(autouse=True)
def _not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def _without_chromium(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lacking = capabilities.Capability(check=lambda: False, remedy="install the Debian package chromium")
    monkeypatch.setitem(capabilities.CAPABILITIES, "chromium", lacking)
    capabilities.is_there.cache_clear()
    yield
    # Nor may a test that needs it, and comes later in this process, believe that it is missing.
    capabilities.is_there.cache_clear()


def _run(pytester: pytest.Pytester, names: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(TESTS.format(names=names))
    return pytester.runpytest_inprocess("-rs", "-p", "no:cacheprovider", *options)


@pytest.mark.usefixtures("_without_chromium")
def test_a_skip_names_the_capability_and_the_remedy(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "'chromium'")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*missing capability chromium: install the Debian package chromium*"])


@pytest.mark.usefixtures("_without_chromium")
def test_what_must_be_there_fails(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "'chromium'", "--must-have", "chromium")
    # Another skip stays one. What fails in the set-up counts as an error.
    result.assert_outcomes(passed=1, skipped=1, errors=1)
    result.stdout.fnmatch_lines(["*missing capability chromium*"])


@pytest.mark.usefixtures("_without_chromium")
def test_must_have_all_turns_each_skip_into_a_failure(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "'chromium'", "--must-have", "all")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*must-have all*no mood*"])


@pytest.mark.usefixtures("_without_chromium")
def test_ci_implies_must_have_all(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert _run(pytester, "'chromium'").parseoutcomes().get("skipped", 0) == 0


def test_a_module_that_skips_itself_fails_where_everything_must_be_there(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\npytest.importorskip('no_such_module')\n")
    assert pytester.runpytest_inprocess("--must-have", "all").ret != 0
    assert pytester.runpytest_inprocess().parseoutcomes().get("skipped") == 1


def test_an_unknown_capability_is_an_error_that_lists_the_known(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "'chromum'")
    result.stdout.fnmatch_lines(["*requires('chromum'): no such capability; there are *chromium*"])
    result = _run(pytester, "'root'", "--must-have", "chromum")
    result.stderr.fnmatch_lines(["*--must-have chromum: no such capability*"])


def test_a_failed_test_names_its_evidence_last(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNF_IMAGE_BUILD", str(pytester.path / "build"))
    pytester.makepyfile(
        """
        def test_fails(evidence):
            evidence.write("vm-console.log", "the last words\\n")
            assert False

        def test_passes(evidence):
            evidence.write("vm-console.log", "nothing\\n")
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*end of vm-console.log*", "the last words"])
    last = [line for line in result.outlines if line.strip()][-1]
    assert last.startswith(f"evidence: {pytester.path}/build/evidence/")
    assert [path.name for path in (pytester.path / "build" / "evidence").iterdir()] == [
        last.rpartition("/")[2]
    ]


def test_every_capability_can_be_checked() -> None:
    for name, capability in capabilities.CAPABILITIES.items():
        assert isinstance(capabilities.is_there(name), bool), name
        assert capability.remedy, name
