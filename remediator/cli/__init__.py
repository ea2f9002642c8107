"""The command line: every command, in the order in which `--help` lists them.

Exit codes: 0 done, 1 the answer is no (problems found, not there), 2 it could not be done
(configuration, unreachable). The surprise: no traceback ever reaches a person for a mistake of
theirs.
"""

from __future__ import annotations

import typer

from remediator.cli import approvals, control, local, overrides, rehearse, stories
from remediator.cli.terminal import CANNOT, NO, err, plain
from remediator.errors import ConfigurationError, RemediatorError

app = typer.Typer(
    help="Alert-driven auto-remediation: re-checks, acts, proves the effect, puts it back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    local.serve,
    local.check,
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
    app.command()(command)
app.command("test")(rehearse.rehearse)


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
