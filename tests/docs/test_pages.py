"""Whatever the pages show as Python really runs, and whatever they show as a policy is one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from budgetware.policyfile import check

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)(#[^)]+)?\)")


def blocks(page: Path, language: str) -> list[str]:
    """Return the page's code blocks of one language, in order."""
    return [code for kind, code in _BLOCK.findall(page.read_text("utf-8")) if kind == language]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as web front ends of git make them."""
    heads = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """The Python blocks of each page run, one after the other, with its policy beside them."""
    for policy in blocks(page, "yaml")[:1]:
        if policy.startswith("version:"):
            (tmp_path / "budgetware.yaml").write_text(policy, "utf-8")
    groups = [[block] for block in blocks(page, "python")]
    if page.name in {"concepts.md", "testing.md"}:  # these tell one story
        groups = [[block for group in groups for block in group]]
    for number, group in enumerate(groups):
        script = tmp_path / f"block_{number}.py"
        script.write_text("\n".join(group), "utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script)],
            cwd=tmp_path,
            # There is no collector, and the exporter tries as long as it may.
            env={**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{page.name}, block {number}:\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_policies_of_a_page_are_valid(page: Path) -> None:
    """Whole policies shown on a page have nothing wrong with them."""
    for policy in blocks(page, "yaml"):
        if policy.startswith("version:"):
            problems = check(policy, file=page.name).problems
            assert [problem for problem in problems if problem.severity == "error"] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists, and a heading in it where it says one."""
    for target, anchor in _LINK.findall(page.read_text("utf-8")):
        there = (page.parent / target).resolve()
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor[1:] in anchors(there), f"{page.name} links to {target}{anchor}"
