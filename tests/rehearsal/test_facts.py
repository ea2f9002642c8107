"""Facts of a rehearsal: what the engine is told of scripted series."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from remediator.model.verdict import ReadingStatus
from remediator.rehearsal.facts import RehearsedFacts
from remediator.rehearsal.promtool import Promtool, Question
from remediator.rehearsal.series import Series
from remediator.rehearsal.stage import StageClock

pytestmark = pytest.mark.real
MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def facts_of(promtool: Promtool, *series: Series) -> tuple[StageClock, RehearsedFacts]:
    clock = StageClock(NOON)
    facts = RehearsedFacts(promtool, clock=clock, series=series, interval=timedelta(seconds=15))
    return clock, facts


async def test_a_query_gives_a_number_or_says_why_it_does_not(promtool: Promtool) -> None:
    clock, facts = facts_of(promtool, Series('a{i="1"}', "1x9"), Series('a{i="2"}', "3x9"))
    clock.advance(MINUTE)
    told = {q: await facts.query(q) for q in ("sum(a)", "a", "nothing", "0/0", "sum(")}
    assert told["sum(a)"].value == 4
    assert told["sum(a)"].at == NOON + MINUTE
    assert [r.status for r in told.values()] == [
        ReadingStatus.OK,
        ReadingStatus.MANY,
        ReadingStatus.EMPTY,
        ReadingStatus.NAN,
        ReadingStatus.ERROR,
    ]


async def test_a_vector_has_nothing_to_say_about_what_is_no_finite_number(
    promtool: Promtool,
) -> None:
    _, facts = facts_of(promtool, Series('a{i="1"}', "1"), Series('a{i="2"}', "NaN"))
    assert (await facts.series("a")).by("i") == {"1": 1.0, "2": None}
    assert "parse error" in (await facts.series("a{")).error


async def test_history_is_oldest_first_and_ends_where_the_series_began(promtool: Promtool) -> None:
    clock, facts = facts_of(promtool, Series("a", "0+1x99"))
    clock.advance(MINUTE)
    told = await facts.history("a", end=clock(), length=2 * MINUTE, step=timedelta(seconds=15))
    assert [reading.value for reading in told] == [0, 1, 2, 3, 4]
    assert told[-1].at == clock()


async def test_what_changes_is_seen_from_the_next_scrape_on_and_the_past_stays(
    promtool: Promtool,
) -> None:
    clock, facts = facts_of(promtool, Series("a", "1x99"))
    clock.advance(MINUTE)
    assert (await facts.query("a")).value == 1
    facts.change([Series("a", "5x9")], after=clock())
    assert (await facts.query("a")).value == 1
    clock.advance(timedelta(seconds=14))
    assert (await facts.query("a")).value == 1
    clock.advance(timedelta(seconds=1))
    assert (await facts.query("a")).value == 5
    assert (await facts.query("a offset 15s")).value == 1


async def test_a_minute_of_questions_starts_promtool_once(
    promtool: Promtool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, facts = facts_of(promtool, Series("a", "0+1x99"))
    asked: list[int] = []
    evaluate = Promtool.evaluate

    def counted(self: Promtool, questions: list[Question], **rest: object) -> object:
        asked.append(len(questions))
        return evaluate(self, questions, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Promtool, "evaluate", counted)
    for second in range(61):
        assert (await facts.query("a")).value == second // 15
        clock.advance(timedelta(seconds=1))
    assert len(asked) == 1
