"""What every part of the playbook language is built from: its base model, texts and conditions.

The surprise: a text field says itself how templates in it are filled in (`Filled`); a text that
does not say so holds none, so that a label can never reach it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from remediator.model.duration import Duration
from remediator.model.labels import Matcher

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"


class Escape(StrEnum):
    """How a value is made harmless where it lands."""

    PROMQL = "promql"  # between double quotes in a query
    URL = "url"  # percent-encoded, as one piece of a path or query
    PLAIN = "plain"  # words for people, and data that nobody interprets


@dataclass(frozen=True)
class Filled:
    """Marks a text in which `${{ }}` is filled in, and how the values are escaped."""

    escape: Escape


def _check_matcher(text: str) -> str:
    Matcher.parse(text)
    return text


def _check_not_blank(text: str) -> str:
    if not text.strip():
        msg = "must not be empty"
        raise ValueError(msg)
    return text


def _check_positive(length: timedelta) -> timedelta:
    if length <= timedelta():
        msg = "must be longer than 0s"
        raise ValueError(msg)
    return length


Positive = Annotated[Duration, AfterValidator(_check_positive)]
PromQL = Annotated[
    str, Filled(Escape.PROMQL), Field(min_length=1), AfterValidator(_check_not_blank)
]
# As YAML says them: no text, and no true, passes for a number.
Number = Annotated[float, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
YesNo = Annotated[bool, Field(strict=True)]
Words = Annotated[str, Filled(Escape.PLAIN)]
MatcherText = Annotated[str, AfterValidator(_check_matcher)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Scalar = float | int | bool | str


class Spec(BaseModel):
    """Base of every part of a playbook: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Condition(Spec):
    """A PromQL query and the comparison that we make ourselves.

    The comparison is ours so that an empty result and NaN are *unknown* and never just false.
    """

    query: PromQL = Field(description="PromQL giving one number.")
    above: Number | None = Field(default=None, description="Holds when the value is greater.")
    below: Number | None = Field(default=None, description="Holds when the value is smaller.")

    @model_validator(mode="after")
    def _one_bound(self) -> Condition:
        if (self.above is None) == (self.below is None):
            msg = "give exactly one of above, below"
            raise ValueError(msg)
        return self

    def holds(self, value: float) -> bool:
        """Say whether `value` meets the comparison. NaN never does."""
        if self.above is not None:
            return value > self.above
        return self.below is not None and value < self.below

    @property
    def comparison(self) -> str:
        """The comparison as a person would say it, such as `> 0.25`."""
        return f"> {self.above:g}" if self.above is not None else f"< {self.below:g}"


class Verify(Condition):
    """How a step proves that it helped: the condition must hold for `for` within `within`."""

    within: Positive = Field(
        description="Give up after this long, counted from when a whole window of measurements "
        "lies after the action."
    )
    hold: Duration = Field(
        default=timedelta(seconds=30), alias="for", description="How long it must stay good."
    )
    every: Positive = Field(
        default=timedelta(seconds=15), description="How often to measure (about one scrape)."
    )
    window: Duration | None = Field(
        default=None,
        description="How far the query looks back. Read from the query when left out.",
    )
    settle: Duration = Field(
        default=timedelta(),
        description="Measurements in this time after the action say nothing yet: it warms up.",
    )

    @model_validator(mode="after")
    def _hold_fits(self) -> Verify:
        if self.hold >= self.within:
            msg = "for must be shorter than within, or it can never be met"
            raise ValueError(msg)
        return self
