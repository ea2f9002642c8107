"""The command `test`: unit tests for playbooks, as promtool has them for rules.

The surprise: it exits with 2, and not with 1, when nothing can be said: a file of tests is wrong,
no test is called so, promtool is missing.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from remediator.cli.terminal import CANNOT, NO, AsFormat, Format, err, fail, out, plain, print_json
from remediator.demo.layout import shipped
from remediator.rehearsal.expectations import differences
from remediator.rehearsal.promtool import Promtool
from remediator.rehearsal.reading import Prepared, files_of_tests, prepare
from remediator.rehearsal.report import Report, Result, only
from remediator.rehearsal.stage import play


def rehearse(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files of tests, or folders of *.test.yaml; default: the shipped."),
    ] = None,
    wanted: Annotated[
        list[str] | None, typer.Option("--filter", help="Only tests whose name holds this.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    output: AsFormat = Format.TEXT,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every test's timeline.")
    ] = False,
) -> None:
    """Play unit tests of playbooks: the real engine on scripted series, targets and people."""
    given = paths or [shipped("playbooks") / "tests"]
    missing = [str(path) for path in given if not path.exists()]
    if missing:
        fail(f"no such file or folder: {', '.join(missing)}")
    files = files_of_tests(given)
    if not files:
        fail(f"no *.test.yaml in {', '.join(map(str, given))}")
    report = _play(
        [prepare(path) for path in files],
        wanted or [],
        shows=output is Format.TEXT,
        verbose=verbose,
    )
    if junit is not None:
        _write_junit(report, junit)
    if output is Format.JSON:
        print_json(report.document())
    else:
        for problem in report.problems:
            err.print(plain(str(problem), "red"))
        out.print(report.summary())
    if not report.results and not report.problems:
        fail(f"no test is called like {', '.join(wanted or [])}")
    raise typer.Exit(CANNOT if report.problems else NO if report.failed else 0)


def _play(files: list[Prepared], wanted: list[str], *, shows: bool, verbose: bool) -> Report:
    promtool = Promtool.found()
    results: list[Result] = []
    for prepared in files:
        for index, scene in enumerate(prepared.script.tests if prepared.script else ()):
            if only(wanted, scene.name):
                results.append(_one(prepared, index, promtool))
                if shows:
                    _tell(results[-1], verbose=verbose)
    problems = tuple(problem for prepared in files for problem in prepared.problems)
    return Report(results=tuple(results), problems=problems)


def _one(prepared: Prepared, index: int, promtool: Promtool) -> Result:
    script = prepared.script
    if script is None:
        raise IndexError(index)
    scene, began = script.tests[index], time.monotonic()
    story = asyncio.run(
        play(
            script,
            scene,
            library=prepared.library,
            promtool=promtool,
            rule_files=prepared.rule_files,
        )
    )
    return Result(
        path=prepared.path,
        line=prepared.lines[index],
        name=scene.name,
        seconds=time.monotonic() - began,
        differences=tuple(differences(scene.expect, story, interval=script.interval)),
        timeline=tuple(story.timeline()),
    )


def _tell(result: Result, *, verbose: bool) -> None:
    """Print one test: a line when it passed; what differs, and what happened, when not."""
    mark, style = ("✓", "green") if result.passed else ("✗", "red")
    out.print(plain(f"{mark} {result.name}", style), plain(f"({result.seconds:.1f} s)", "dim"))
    if not result.passed:
        out.print(plain(f"  {result.path}:{result.line}"))
        for line in result.differences:
            out.print(plain(f"  {line}", "red"))
    if verbose or not result.passed:
        for line in result.timeline:
            out.print(plain(f"    {line}"))


def _write_junit(report: Report, path: Path) -> None:
    try:
        report.write_junit(path)
    except OSError as error:
        fail(f"--junit {path}: {error.strerror or error}")
