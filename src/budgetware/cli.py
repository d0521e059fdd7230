"""The command line: arguments and exit codes only.

Exit codes: 0 fine, 1 a budget is exceeded, 2 usage or policy error, 3 no data.
"""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

import click

from budgetware._version import __version__
from budgetware.errors import PolicyError

POLICY_ERROR: Final = 2

_ENV = click.option("--env", "environment", metavar="NAME", help="The environment layer to apply.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="budgetware")
def main() -> None:
    """Latency budgets from one policy file."""


@main.command()
@click.argument("file", required=False)
@_ENV
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "sarif"]),
    default="text",
    help="How to report: for people, programs, GitHub annotations or code scanning.",
)
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
def validate(file: str | None, environment: str | None, form: str, *, strict: bool) -> None:
    """Say everything that is wrong with a policy FILE.

    Without --env the file is judged as it is and in each of its environments.
    """
    from budgetware.policyfile import annotate, read, render  # noqa: PLC0415 - only when asked

    with _reported():
        document = read(file, environment=environment, every_environment=environment is None)
    if document.file is None:
        _fail_without_file()
    renderers = {
        "text": lambda: render.as_text(document, colour=_colour()),
        "json": lambda: render.as_json(document),
        "github": lambda: annotate.as_github(document),
        "sarif": lambda: annotate.as_sarif(document),
    }
    click.echo(renderers[form]())
    warned = any(problem.severity == "warning" for problem in document.problems)
    sys.exit(POLICY_ERROR if document.policy is None or (strict and warned) else 0)


@main.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "markdown"]),
    default="json",
    help="The JSON Schema for editors, or the reference page made from it.",
)
def schema(form: str) -> None:
    """Print which keys a policy file has and what they take."""
    from budgetware.policyfile import json_schema, reference  # noqa: PLC0415 - only when asked

    text = json_schema.shipped_schema_text() if form == "json" else reference.reference_page()
    click.echo(text, nl=False)


@main.command()
@click.argument("method", required=False)
@click.argument("path", required=False)
@click.option("--route", metavar="NAME", help="A route or a job by name, instead of a request.")
@click.option("--tier", metavar="NAME", help="Only for this tier.")
@click.option("--policy", "file", metavar="FILE", help="The policy file.")
@_ENV
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def explain(  # noqa: PLR0913, PLR0917 - click hands over one argument per option
    method: str | None,
    path: str | None,
    route: str | None,
    tier: str | None,
    file: str | None,
    environment: str | None,
    form: str,
) -> None:
    """Say what METHOD PATH is promised and which line says so.

    Without a request or --route, every route and job is explained.
    """
    from budgetware.policyfile import explain as explaining  # noqa: PLC0415 - only when asked
    from budgetware.policyfile import read, render  # noqa: PLC0415 - only when asked
    from budgetware.policyfile.findings import suggestion  # noqa: PLC0415 - only when asked

    if (method is None) != (path is None) or (method is not None and route is not None):
        raise click.UsageError("give METHOD and PATH, or --route NAME, or neither")
    if path is not None and not path.startswith("/") and path != "*":
        meant = "/" + path.partition("://")[2].partition("/")[2] if "://" in path else f"/{path}"
        raise click.UsageError(f"a path starts with a slash: did you mean `{meant}`?")
    with _reported():
        document = read(file, environment=environment)
    if document.file is None:
        _fail_without_file()
    if document.policy is None:
        click.echo(render.as_text(document, colour=_colour()), err=True)
        sys.exit(POLICY_ERROR)
    policy = document.policy
    if tier is not None and tier not in policy.tiers:
        hint = suggestion(tier, policy.tiers, "tiers")
        raise click.UsageError(f"unknown tier '{tier}': {hint}")
    if route is not None and route not in policy.routes:
        hint = suggestion(route, policy.routes, "routes")
        raise click.UsageError(f"unknown route '{route}': {hint}")
    if method is not None and path is not None:
        answers = [explaining.explain_request(document, method.upper(), path, tier)]
    else:
        names = [route] if route is not None else list(policy.routes)
        answers = [explaining.explain_route(document, name, tier) for name in names]
    if form == "json":
        click.echo(explaining.as_json(answers, document))
    else:
        blocks = [explaining.as_text(answer, document.file) for answer in answers]
        if remarks := explaining.remarks(document):
            blocks.append("\n".join(remarks))
        click.echo("\n\n".join(blocks))


class _reported:  # noqa: N801 - reads as a word in `with`
    """Turns a policy error from looking for the file into a message and the exit code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PolicyError):
            click.echo(f"error: {error}", err=True)
            sys.exit(POLICY_ERROR)


def _fail_without_file() -> NoReturn:
    click.echo(
        "error: there is no policy file: name one, set BUDGETWARE_POLICY, "
        "or write ./budgetware.yaml",
        err=True,
    )
    sys.exit(POLICY_ERROR)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


if __name__ == "__main__":
    main()
