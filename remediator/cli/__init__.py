"""The command line: every command, in the order in which `--help` lists them.

Exit codes: 0 done, 1 the answer is no (problems found, not there), 2 it could not be done
(configuration, unreachable). The surprise: no traceback ever reaches a person for a mistake of
theirs.
"""

from __future__ import annotations

from inspect import cleandoc

import typer

from remediator.cli import approvals, control, local, overrides, rehearse, stories
from remediator.cli.terminal import CANNOT, NO, err, plain
from remediator.errors import ConfigurationError, RemediatorError

NAMES = {"rehearse": "test"}

app = typer.Typer(
    help="Alert-driven auto-remediation: re-checks, acts, proves the effect, puts it back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)
for command in (
    local.serve,
    local.check,
    rehearse.rehearse,
    local.schema,
    stories.runs,
    stories.explain,
    stories.trust,
    control.pause,
    control.resume,
    control.cancel,
    control.stop,
    control.kill,
    control.controls,
    approvals.approvals,
    approvals.approve,
    approvals.reject,
    overrides.override,
    overrides.lift,
    overrides.pin,
    overrides.unpin,
    overrides.mode,
    overrides.reset_breaker,
    local.demo,
):
    # Its first sentence, whole: what is not given here is cut off at 45 characters.
    first = cleandoc(command.__doc__ or "").split("\n\n")[0]
    app.command(NAMES.get(command.__name__), short_help=" ".join(first.split()))(command)


def main() -> None:
    """Run the command line; a mistake of ours or theirs ends in one line."""
    try:
        app()
    except ConfigurationError as error:
        # A configuration may have several things wrong with it: one line each.
        for line in str(error).splitlines():
            err.print(plain(f"remediator: {line}", "red"))
        raise SystemExit(CANNOT) from error
    except RemediatorError as error:
        err.print(plain(f"remediator: {error}", "red"))
        raise SystemExit(NO) from error
