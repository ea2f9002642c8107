"""Diagnosis: look at all that can be seen of a target, within a time and a size.

Called by the runner for a step `diagnose`, and once before the first effect of every run. The
surprise: it cannot fail. What does not answer in time, or breaks, is a part with an `error`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Any

from pydantic_core import from_json, to_json

from remediator.engine.effects import Effects
from remediator.engine.moves import Diagnose, Progress
from remediator.model.run import PROPOSAL

# What one look may take of the journal, as JSON.
MOST_BYTES = 64 * 1024
# A part is cut no shorter than this: below it there is always room.
LEAST_CHARS = 512
# The look that every run takes for the record must not keep its remedy waiting.
IN_PASSING = timedelta(seconds=2)
LINES_IN_PASSING = 20


def first_look(progress: Progress) -> Diagnose | None:
    """Return the look before a run's first effect; None once it was taken."""
    if PROPOSAL in progress.history.diagnosed or progress.history.steps:
        return None
    return Diagnose(pc=PROPOSAL, queries={}, log_lines=LINES_IN_PASSING, within=IN_PASSING)


async def look(effects: Effects, progress: Progress, wanted: Diagnose) -> dict[str, Any]:
    """Return what is seen now, by part.

    The parts are the target's roles, `ROLE shows` for what a `Looker` adds, and `query NAME`.
    """
    parts: dict[str, Awaitable[Any]] = {}
    for role in progress.target.actuators:
        known = progress.view.get(role)
        parts[role] = _known(known) if known else effects.inspect(progress, role)
        looker = effects.lookers.get(f"{progress.target.name}/{role}")
        if looker is not None:
            parts[f"{role} shows"] = looker.look(progress.target, log_lines=wanted.log_lines)
    for name, query in wanted.queries.items():
        parts[f"query {name}"] = _measured(effects, query)
    answers = await asyncio.gather(
        *(_in_time(part, wanted.within) for part in parts.values()), return_exceptions=True
    )
    said = (_words(answer, wanted.within) for answer in answers)
    return bounded(dict(zip(parts, said, strict=True)))


async def _known(view: Mapping[str, Any]) -> Mapping[str, Any]:
    return view


async def _measured(effects: Effects, query: str) -> dict[str, Any]:
    reading = await effects.metrics.query(query)
    return {"query": query, "value": reading.value, "said": reading.describe()}


async def _in_time(part: Awaitable[Any], within: timedelta) -> Any:
    async with asyncio.timeout(within.total_seconds()):
        return await part


def _words(answer: Any, within: timedelta) -> Any:
    if isinstance(answer, TimeoutError):
        return {"error": f"no answer within {within.total_seconds():g}s"}
    if isinstance(answer, BaseException):
        return {"error": str(answer) or type(answer).__name__}
    return answer


def bounded(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return it as plain JSON of at most `MOST_BYTES`; what is too long keeps its end."""
    texts = {
        name: to_json(value, inf_nan_mode="null", fallback=str).decode()
        for name, value in seen.items()
    }
    whole = {name: from_json(text) for name, text in texts.items()}
    limit = MOST_BYTES // 2
    while len(to_json(whole)) > MOST_BYTES and limit >= LEAST_CHARS:
        for name, text in texts.items():
            if len(text) > limit:
                whole[name] = {"cut": text[-limit:]}
        limit //= 2
    size, kept = 0, {}
    for name, value in whole.items():
        size += len(to_json({name: value}))
        if size <= MOST_BYTES:
            kept[name] = value
    return kept
