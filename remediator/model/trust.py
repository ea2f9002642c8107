"""The trust ladder: what a playbook's record says about how far it may go by itself.

Pure; called by the API and `remediator trust`. Advice is only that: a person promotes by editing
`mode`. The way down is automatic, and belongs to the breaker (`engine.guards`). The surprise: there
is no minimum number of runs. The lower end of the confidence interval is what has to be high
enough, and it is not before there have been enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from remediator.model.playbook import Mode

CONFIDENCE = 0.95
# Promoted to act alone: at least this share helps, with confidence (nine of nine, 17 of 19, ...).
ALONE = 0.7
# Below this share, with confidence, it is no use to let it act.
USELESS = 0.5
# An alert that is over by itself this often, with confidence, needs a longer `for` and no action.
HEALS = 0.5


@dataclass(frozen=True)
class Share:
    """A share of runs, and the interval in which it lies with 95% confidence.

    Attributes:
        count: how many did.
        of: out of how many.
    """

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The share, 0 to 1; None without a run."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval, which keeps its word for few runs and for shares near 0 and 1.

        Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference
        (JASA 22, 1927).
        """
        if not self.of:
            return 0.0, 1.0
        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        share, square = self.count / self.of, z * z / self.of
        middle = share + square / 2
        reach = z * ((share * (1 - share) + square / 4) / self.of) ** 0.5
        low, high = (middle - reach) / (1 + square), (middle + reach) / (1 + square)
        # At the ends arithmetic falls a hair short of what it should be.
        return (0.0 if self.count == 0 else low), (1.0 if self.count == self.of else high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.of} ({low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class Record:
    """What the runs of one playbook's present text came to.

    Attributes:
        mode: the mode its file gives it.
        verdicts: closed runs that acted, by verdict.
        observed: closed runs that only watched, and measured what became of the trouble.
        healed: those of them whose trouble ended without anybody acting.
        approved, rejected, expired: what people said to its proposals.
    """

    playbook: str
    mode: Mode
    verdicts: dict[str, int]
    observed: int = 0
    healed: int = 0
    approved: int = 0
    rejected: int = 0
    expired: int = 0

    @property
    def improved(self) -> Share:
        """How many of the runs that acted helped."""
        return Share(self.verdicts.get("improved", 0), sum(self.verdicts.values()))

    @property
    def natural(self) -> Share:
        """How many of the runs that only watched saw the trouble end by itself."""
        return Share(self.healed, self.observed)


@dataclass(frozen=True)
class Advice:
    """What to do with a playbook's mode, and why."""

    mode: Mode
    reason: str


def advise(record: Record) -> Advice:
    """Return the mode that the record supports: the present one, or the next up or down."""
    if record.mode is Mode.OBSERVE:
        return _observing(record)
    if record.mode is Mode.PROPOSE:
        return _proposing(record)
    if record.improved.interval[1] < USELESS:
        return Advice(Mode.PROPOSE, f"it rarely helps: {record.improved}")
    return Advice(Mode.AUTO, _told("it helped", record.improved))


def _observing(record: Record) -> Advice:
    low, high = record.natural.interval
    if low > HEALS:
        return Advice(
            Mode.OBSERVE,
            f"the trouble ends by itself: {record.natural}; a longer `for` in the alert rule would "
            f"say less often that there is any",
        )
    if high < HEALS:
        return Advice(Mode.PROPOSE, f"the trouble seldom ends by itself: {record.natural}")
    return Advice(Mode.OBSERVE, f"too early to say: {_told('it ended by itself', record.natural)}")


def _proposing(record: Record) -> Advice:
    low, high = record.improved.interval
    if record.rejected:
        times = "once" if record.rejected == 1 else f"{record.rejected} times"
        helped = _told("what was approved helped", record.improved)
        return Advice(Mode.PROPOSE, f"people said no {times}; {helped}")
    if low >= ALONE:
        return Advice(Mode.AUTO, f"what was approved helped: {record.improved}")
    if high < USELESS:
        return Advice(Mode.OBSERVE, f"what was approved rarely helped: {record.improved}")
    return Advice(Mode.PROPOSE, f"too early to say: {_told('it helped', record.improved)}")


def _told(what: str, share: Share) -> str:
    return f"{what} {share}" if share.of else "no run of it has ended yet"
