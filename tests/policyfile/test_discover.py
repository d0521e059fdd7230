"""Where the policy file is found, and which environment is in force."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from budgetware._core.policy import Policy
from budgetware.errors import PolicyError
from budgetware.policyfile import find, load, read


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BUDGETWARE_POLICY", raising=False)
    monkeypatch.delenv("BUDGETWARE_ENV", raising=False)


def write(path: Path, service: str) -> Path:
    """Write a small valid policy."""
    path.write_text(f"version: 1\nservice: {service}\nenvironments: {{dev: {{service: dev}}}}\n")
    return path


def test_without_a_file_there_is_an_empty_policy() -> None:
    """Nothing to be found is a policy that promises nothing."""
    assert find() is None
    assert load() == Policy()
    assert read().file is None


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument goes before the variable, the default name and pyproject.toml."""
    write(tmp_path / "named.yaml", "named")
    (tmp_path / "pyproject.toml").write_text('[tool.budgetware]\npolicy = "named.yaml"\n')
    assert load().service == "named"
    write(tmp_path / "budgetware.yaml", "default")
    assert load().service == "default"
    variable = write(tmp_path / "variable.yaml", "variable")
    monkeypatch.setenv("BUDGETWARE_POLICY", str(variable))
    assert load().service == "variable"
    assert load(write(tmp_path / "argument.yaml", "argument")).service == "argument"
    monkeypatch.setenv("BUDGETWARE_POLICY", "")
    assert load().service == "default"


def test_the_source_is_the_name_that_was_given(tmp_path: Path) -> None:
    """A policy says which file it came from, as that was named."""
    write(tmp_path / "budgetware.yaml", "default")
    assert load().source == "budgetware.yaml"


@pytest.mark.parametrize("name", ["argument", "variable", "pyproject"])
def test_a_file_that_is_named_has_to_be_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file is never the empty policy."""
    if name == "variable":
        monkeypatch.setenv("BUDGETWARE_POLICY", "gone.yaml")
    if name == "pyproject":
        (tmp_path / "pyproject.toml").write_text('[tool.budgetware]\npolicy = "gone.yaml"\n')
    with pytest.raises(PolicyError, match=r"gone\.yaml: the policy file cannot be read: no such"):
        load("gone.yaml" if name == "argument" else None)


def test_a_directory_is_no_policy_file(tmp_path: Path) -> None:
    """Naming a directory is an error about that directory."""
    with pytest.raises(PolicyError, match="cannot be read"):
        load(tmp_path)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Only as much is read as a policy may have, and the error says how much that is."""
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(10**12)  # a hole, which takes no room
    with pytest.raises(PolicyError, match=r"large\.yaml:1:1: the file has more than 262144 bytes"):
        load(path)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_no_file_can_have_is_an_error(name: str) -> None:
    """What the system refuses to look for is not there."""
    with pytest.raises(PolicyError, match="cannot be read"):
        load(name)


def test_a_default_file_that_leads_nowhere_is_no_missing_one(tmp_path: Path) -> None:
    """A link to a file that is gone is an error, not a service without a policy."""
    (tmp_path / "budgetware.yaml").symlink_to("gone.yaml")
    with pytest.raises(PolicyError, match=r"budgetware\.yaml: .* no such file"):
        load()


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("[tool", "cannot be read"),
        ("[tool]\nbudgetware = 1\n", "not a table"),
        ('[tool.budgetware]\npolciy = "a.yaml"\n', "did you mean `policy`"),
        ("[tool.budgetware]\npolicy = 1\n", "not a file name"),
        ('[tool.budgetware]\npolicy = ""\n', "not a file name"),
        ('[tool.budgetware]\npolicy = "a\\u0000b"\n', "cannot be read"),
        ("a = " + "[" * 100_000, "cannot be read: it is nested too deep"),
        ("#" * 1_000_001, "more than 1000000 bytes"),
    ],
)
def test_a_broken_pyproject_is_an_error(text: str, fragment: str, tmp_path: Path) -> None:
    """What cannot be understood is not taken for nothing."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(PolicyError, match=fragment):
        load()


@pytest.mark.parametrize("text", ["", "[tool.other]\na = 1\n", "[tool.budgetware]\n"])
def test_a_pyproject_of_others_names_nothing(text: str, tmp_path: Path) -> None:
    """A pyproject.toml without our key is no policy."""
    (tmp_path / "pyproject.toml").write_text(text)
    assert load() == Policy()


def test_the_environment_comes_from_the_argument_or_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument wins, an empty variable is none, an unknown name is an error."""
    write(tmp_path / "budgetware.yaml", "default")
    assert load(environment="dev").service == "dev"
    monkeypatch.setenv("BUDGETWARE_ENV", "dev")
    assert load().service == "dev"
    monkeypatch.setenv("BUDGETWARE_ENV", "")
    assert load().service == "default"
    monkeypatch.setenv("BUDGETWARE_ENV", "prod")
    with pytest.raises(PolicyError, match="unknown environment `prod`") as caught:
        load()
    assert (caught.value.file, caught.value.line) == ("budgetware.yaml", 3)


def test_all_errors_are_in_the_exception(tmp_path: Path) -> None:
    """A policy error lists every error with file, line and column, and no warning."""
    path = tmp_path / "bad.yaml"
    path.write_text("version: 2\ntiers: {a: {budget: 5, share: 10%}}\n")
    with pytest.raises(PolicyError) as caught:
        load(path)
    assert [problem.severity for problem in caught.value.problems] == ["error", "error"]
    first, second = str(caught.value).split("\n")
    assert first == f"{path}:1:10: `2` is not a version this release reads (write 1)"
    assert second.startswith(f"{path}:2:21: `5` has no unit")


def test_importing_the_package_loads_no_parser() -> None:
    """Only `budgetware.policyfile` imports YAML and pydantic."""
    code = (
        "import sys, budgetware; assert not {'yaml', 'pydantic'} & set(sys.modules); "
        "import budgetware.policyfile; assert {'yaml', 'pydantic'} <= set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
