"""Lower bounds, bill of materials, wheels for Windows, and the page about them."""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from typing import Any

import pytest

from tests.tools import windows_wheels
from tests.tools.lower_bounds import constraints
from tests.tools.project import ROOT, dependencies
from tests.tools.sbom import bill, licence
from tests.tools.windows_wheels import fits, main, missing, registry

PAGE = (ROOT / "docs" / "supply-chain.md").read_text(encoding="utf-8")


def test_every_dependency_has_a_lower_bound_and_a_line_on_the_page() -> None:
    found = dependencies()
    assert len(found) > 10
    for one in found:
        extra = rf" `{one.extra}` \|" if one.extra else ""
        assert re.search(
            rf"^\| {one.name} \| {re.escape(one.least)} \|{extra} [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE
        ), one
    listed = re.findall(r"^\| ([a-z0-9]+) \| [\d.]+ \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(one.name for one in found)


@pytest.mark.parametrize("one", dependencies(), ids=lambda one: one.name)
def test_the_licence_on_the_page_is_that_of_the_package(one) -> None:
    try:
        said = licence(one.name)
    except metadata.PackageNotFoundError:
        pytest.skip("an extra that is not installed")
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {one.name} |"))
    word = re.match(r"(the )?(MIT|BSD|Apache)", said, re.IGNORECASE)
    assert word is not None, said
    assert word[2].lower() in line.lower(), (said, line)


def test_constraints_pin_the_lowest_versions() -> None:
    lines = constraints().splitlines()
    assert len(lines) == len(dependencies())
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9.]+", line) for line in lines)


def test_the_bill_names_everything_that_is_needed() -> None:
    document = json.loads(json.dumps(bill("pytest")))
    assert document["bomFormat"] == "CycloneDX" and document["specVersion"] == "1.5"
    assert document["metadata"]["component"]["name"] == "pytest"
    names = {one["name"] for one in document["components"]}
    assert {"pluggy", "iniconfig", "packaging"} <= names
    references = {one["bom-ref"] for one in (*document["components"], document["metadata"]["component"])}
    assert {one["ref"] for one in document["dependencies"]} == references
    assert all(set(one["dependsOn"]) <= references for one in document["dependencies"])


@pytest.mark.parametrize(
    ("name", "minors"),
    [
        ("click-8.2.0-py3-none-any.whl", [11, 12, 13, 14]),
        ("numpy-1.26.0-cp311-cp311-win_amd64.whl", [11]),
        ("numpy-1.26.0-cp311-cp311-win32.whl", []),
        ("numpy-1.26.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", []),
        ("x-1.0-cp39-abi3-win_amd64.whl", [11, 12, 13, 14]),
        ("x-1.0-cp313-abi3-win_amd64.whl", [13, 14]),
        ("x-1.0-py3-none-win_amd64.whl", [11, 12, 13, 14]),
        ("x-1.0-1-py2.py3-none-any.whl", [11, 12, 13, 14]),
        ("x-1.0-cp314-cp314t-win_amd64.whl", []),
        ("x-1.0.tar.gz", []),
    ],
)
def test_names_of_wheels(name: str, minors: list[int]) -> None:
    assert [minor for minor in windows_wheels.PYTHONS if fits(name, minor)] == minors


def test_old_and_withdrawn_releases_do_not_count() -> None:
    wheel = {"filename": "x-1.10-py3-none-any.whl"}
    assert missing([wheel], "1.9") == []
    assert missing([wheel], "1.11") == missing([wheel | {"yanked": "bad"}], "1") == [11, 12, 13, 14]


def test_the_registry_comes_from_pip_and_no_host_stands_in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.invalid/simple")
    assert registry() == "https://mirror.invalid/simple"
    monkeypatch.delenv("PIP_INDEX_URL")
    assert registry().startswith("http")
    named = re.compile(r"https?://(?!mirror\.invalid)")
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "tools").glob("*.py")}
    assert [path.name for path, text in texts.items() if named.search(text) and path.name != "test_tools.py"] == []


@pytest.mark.parametrize("lacking", [False, True])
def test_the_exit_code_says_whether_a_wheel_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lacking: bool
) -> None:
    def files(index: str, name: str) -> list[dict[str, Any]]:
        assert index == "https://mirror.invalid/simple"
        names = ["py3-none-any"] if name != "numpy" or not lacking else ["cp311-cp311-win_amd64"]
        return [{"filename": f"{name}-9999-{one}.whl"} for one in names]

    monkeypatch.setattr(windows_wheels, "files_of", files)
    assert main(["--index", "https://mirror.invalid/simple"]) == int(lacking)
    assert ("numpy>=1.26: no wheel for Python 3.12, 3.13, 3.14" in capsys.readouterr().out) is lacking


def test_the_targets_exist() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("test-oldest", "audit", "wheels", "dist", "fuzz"):
        assert re.search(rf"^{target}:", text, re.MULTILINE)
    assert sys.version_info >= (3, 11)
