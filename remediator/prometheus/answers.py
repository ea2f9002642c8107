"""The answers of Prometheus' HTTP API as values, and what each is worth as one number.

Used by `client`. The surprise: every number arrives as a string (`"NaN"`, `"+Inf"`), an empty
vector says nothing about why it is empty, and a success may be partial: a number that comes with a
warning was computed from a part of the data, so it is no number to act on.
Formats: https://prometheus.io/docs/prometheus/latest/querying/api/#expression-query-result-formats
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from remediator.errors import TemporaryError
from remediator.model.verdict import Reading, ReadingStatus, Vector
from remediator.prometheus.fetch import one_line


def _number(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError("numbers arrive as strings")  # noqa: TRY004 - pydantic wants ValueError
    return float(value)


def _moment(value: Any) -> datetime:
    try:
        return datetime.fromtimestamp(value, tz=UTC)
    except (TypeError, OverflowError, OSError) as error:
        raise ValueError(f"{value!r} is not a Unix time") from error


Point = tuple[
    Annotated[datetime, BeforeValidator(_moment)], Annotated[float, BeforeValidator(_number)]
]


class VectorSeries(BaseModel):
    """One series of an instant vector; `value` is None for a native histogram."""

    metric: dict[str, str]
    value: Point | None = None


class MatrixSeries(BaseModel):
    """One series of a range vector, oldest point first."""

    metric: dict[str, str]
    values: list[Point] = []


class InstantVector(BaseModel):
    """Any number of series at one time."""

    kind: Literal["vector"] = Field(alias="resultType")
    result: list[VectorSeries]


class Matrix(BaseModel):
    """Any number of series over a length of time."""

    kind: Literal["matrix"] = Field(alias="resultType")
    result: list[MatrixSeries]


class Scalar(BaseModel):
    """One number, not a list of them."""

    kind: Literal["scalar"] = Field(alias="resultType")
    result: Point


class String(BaseModel):
    """A text."""

    kind: Literal["string"] = Field(alias="resultType")
    result: tuple[float, str]


# Prometheus 2.46 to 2.52 sent remarks on the query among the warnings; these are harmless.
_REMARK = "PromQL info:"


class Success(BaseModel):
    """What comes with a 200; `warnings` say that it is partial, or that something was left out."""

    status: Literal["success"]
    data: Annotated[InstantVector | Matrix | Scalar | String, Field(discriminator="kind")]
    warnings: list[str] = []

    @property
    def doubt(self) -> str:
        """Why the numbers may come from a part of the data; empty when they do not."""
        return "; ".join(text for text in self.warnings if not text.startswith(_REMARK))


class Failure(BaseModel):
    """Prometheus' own words for what is wrong."""

    status: Literal["error"]
    kind: str = Field(alias="errorType", default="")
    error: str = ""


def parse(status: int, body: bytes) -> Success:
    """Return the answer.

    Raises:
        TemporaryError: there is none; the message says why, in Prometheus' words if it had any.
    """
    if failure := _failure(body):
        raise TemporaryError(f"HTTP {status} {failure.kind}: {one_line(failure.error)}")
    if status != HTTPStatus.OK:
        raise TemporaryError(f"HTTP {status}: {one_line(body.decode('utf-8', 'replace'))}")
    try:
        return Success.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise TemporaryError(f"not an answer of Prometheus: {where}: {first['msg']}") from error


def _failure(body: bytes) -> Failure | None:
    try:
        return Failure.model_validate_json(body)
    except ValidationError:
        return None


def reading_of(query: str, answer: Success, asked_at: datetime) -> Reading:
    """Return what an instant query is worth as one number.

    Args:
        query: the PromQL, for the record.
        answer: what came back.
        asked_at: the time of a reading that carries none of its own.
    """
    if answer.doubt:
        return no_answer(query, asked_at, f"a partial answer: {one_line(answer.doubt)}")
    match answer.data:
        case Scalar(result=(at, value)) | InstantVector(result=[VectorSeries(value=(at, value))]):
            return Reading.of(query, at, value)
        case InstantVector(result=[]):
            return Reading(query, asked_at, ReadingStatus.EMPTY)
        case InstantVector(result=[_]):
            return no_answer(query, asked_at, "the series is a native histogram, not a number")
        case InstantVector(result=series):
            return Reading(query, asked_at, ReadingStatus.MANY, detail=f"{len(series)} series")
        case Matrix():
            words = "the query gives a range of samples; wrap it, as in avg_over_time(...)"
            return no_answer(query, asked_at, words)
        case String():
            return no_answer(query, asked_at, "the query gives a text, not a number")


def no_answer(query: str, asked_at: datetime, why: str) -> Reading:
    """Return the reading of a query that gave no number for a reason other than missing data."""
    return Reading(query, asked_at, ReadingStatus.ERROR, detail=why)


def readings_of(query: str, answer: Success) -> list[Reading]:
    """Return the points of the only series of a range query; nothing if it is not all there is."""
    if answer.doubt:
        return []
    match answer.data:
        case Matrix(result=[series]):
            return [Reading.of(query, at, value) for at, value in series.values]
        case _:
            return []


def vector_of(query: str, answer: Success, asked_at: datetime) -> Vector:
    """Return every number that an instant query gives, with its labels; not a finite one is NaN.

    A number without labels (a scalar) counts as one series without labels.
    """
    if answer.doubt:
        return Vector(query, asked_at, error=f"a partial answer: {one_line(answer.doubt)}")
    match answer.data:
        case Scalar(result=(at, value)):
            found: list[tuple[dict[str, str], float]] = [({}, value)]
            when = at
        case InstantVector(result=series):
            told = [(s.metric, s.value) for s in series if s.value is not None]
            found = [(labels, value) for labels, (_, value) in told]
            when = max((at for _, (at, _) in told), default=asked_at)
        case _:
            return Vector(query, asked_at, error="the query gives no numbers at one time")
    values = tuple((labels, v if math.isfinite(v) else math.nan) for labels, v in found)
    return Vector(query, when, values=values)
