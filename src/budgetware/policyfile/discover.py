"""Which file is the policy, and what does it say here.

The argument, then ``BUDGETWARE_POLICY``, then ``./budgetware.yaml``, then the ``policy`` of
``[tool.budgetware]`` in ``./pyproject.toml``; none of them is no policy. A file that is named has
to be there. ``BUDGETWARE_ENV`` picks the environment.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.policy import Policy
from budgetware.errors import PolicyError, Problem
from budgetware.policyfile.content import read_bytes
from budgetware.policyfile.document import Document, check
from budgetware.policyfile.findings import suggestion
from budgetware.policyfile.source import MOST_BYTES
from budgetware.units import shown

if TYPE_CHECKING:
    from os import PathLike

DEFAULT_FILE: Final = "budgetware.yaml"
PYPROJECT: Final = "pyproject.toml"
POLICY_VARIABLE: Final = "BUDGETWARE_POLICY"
ENVIRONMENT_VARIABLE: Final = "BUDGETWARE_ENV"

_MOST_PYPROJECT_BYTES: Final = 1_000_000


def load(path: str | PathLike[str] | None = None, *, environment: str | None = None) -> Policy:
    """Return the policy in force here; an empty one when there is no file.

    Args:
        path: The file; found as the module says when it is not given.
        environment: The layer to apply; ``BUDGETWARE_ENV`` when it is not given.

    Raises:
        PolicyError: The file is not there or has errors; all of them are listed.

    """
    return read(path, environment=environment).require()


def read(
    path: str | PathLike[str] | None = None,
    *,
    environment: str | None = None,
    every_environment: bool = False,
) -> Document:
    """Return the policy in force here with all problems; ``file`` is ``None`` without one.

    Arguments are those of :func:`load` and :func:`~budgetware.policyfile.check`.

    Raises:
        PolicyError: ``pyproject.toml`` cannot be asked for the file.

    """
    file = find(path)
    if file is None:
        return Document(policy=Policy())
    return judge(
        content_of(file),
        file=file,
        environment=environment,
        every_environment=every_environment,
    )


def content_of(file: str) -> bytes | Problem:
    """Return what is in *file*, or why that cannot be read."""
    try:
        return read_bytes(file, MOST_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        return Problem(
            message=f"the policy file cannot be read: {reason}",
            hint="name a file that is there and may be read",
            code="no-file",
        )


def judge(
    content: bytes | Problem,
    *,
    file: str,
    environment: str | None = None,
    every_environment: bool = False,
) -> Document:
    """Return what becomes of *content*, as :func:`content_of` gives it for *file*."""
    if isinstance(content, Problem):
        return Document(file=file, problems=(content,))
    if environment is None:
        environment = os.environ.get(ENVIRONMENT_VARIABLE) or None
    return check(content, file=file, environment=environment, every_environment=every_environment)


def find(path: str | PathLike[str] | None = None) -> str | None:
    """Return the name of the policy file, ``None`` when nothing names one.

    Raises:
        PolicyError: ``pyproject.toml`` cannot be asked.

    """
    if path is not None:
        return os.fspath(path)
    if named := os.environ.get(POLICY_VARIABLE):
        return named
    if _is_there(DEFAULT_FILE):
        return DEFAULT_FILE
    return _named_in_pyproject()


def _is_there(name: str) -> bool:
    """Tell whether anything has this name, be it a link to nowhere: that is no missing policy."""
    try:
        os.lstat(name)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # and reading it says what is wrong
    return True


def _named_in_pyproject() -> str | None:
    tools = _pyproject().get("tool")
    table = tools.get("budgetware") if isinstance(tools, dict) else None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise _unusable(
            "pyproject", "`tool.budgetware` is not a table", 'write `policy = "budgetware.yaml"`'
        )
    for key in table:
        if key != "policy":
            raise _unusable(
                "unknown-key",
                f"unknown key {shown(key)} in `tool.budgetware`",
                suggestion(key, ["policy"], "keys"),
            )
    named = table.get("policy")
    if named is None:
        return None
    if not isinstance(named, str) or not named:
        raise _unusable(
            "pyproject",
            "`tool.budgetware.policy` is not a file name",
            'write `policy = "budgetware.yaml"`',
        )
    return named


def _pyproject() -> dict[str, Any]:
    """Return what ``pyproject.toml`` says, nothing without one."""
    try:
        content = read_bytes(PYPROJECT, _MOST_PYPROJECT_BYTES + 1)
        if len(content) > _MOST_PYPROJECT_BYTES:
            raise _unusable(
                "pyproject",
                f"this has more than {_MOST_PYPROJECT_BYTES} bytes",
                f"name the policy file in {POLICY_VARIABLE}",
            )
        return tomllib.loads(content.decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        why = error.strerror or type(error).__name__
    except RecursionError:
        why = "it is nested too deep"
    except ValueError as error:
        why = str(error)
    raise _unusable("pyproject", f"this cannot be read: {why}", "")


def _unusable(code: str, message: str, hint: str) -> PolicyError:
    return PolicyError((Problem(message=message, hint=hint, code=code),), PYPROJECT)
