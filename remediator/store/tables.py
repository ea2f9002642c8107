"""Every table of the journal, in the order in which a story fills them.

Read by the other modules of `store` and by the migrations. The surprise: the partial unique
indexes are the last word on three promises: one firing episode per fingerprint, one acting run per
target, one held change per knob.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)

# The first and the last whole second that a datetime in UTC can be.
EARLIEST_S = -62135596800.0
LATEST_S = 253402300799.0


class Moment(TypeDecorator[datetime]):
    """An aware UTC time, stored as seconds since the epoch so that both databases compare it.

    A time beyond what UTC can say (year 1 east of Greenwich, the last microsecond of 9999) is
    stored as the nearest that can be read back: one such row would stop every reader.
    """

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> Any:
        """Turn a time into seconds."""
        return None if value is None else min(max(value.timestamp(), EARLIEST_S), LATEST_S)

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        """Turn seconds into a time."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


metadata = MetaData()

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("received_at", Moment, nullable=False, index=True),
    Column("sha256", String(64), nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
    Column("problem", Text),  # why it can never be a webhook; NULL when it is one
    Column("receiver", Text),
    Column("group_key", Text),
    Column("alert_count", Integer, nullable=False, default=0),
    Column("truncated", Integer, nullable=False, default=0),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("firing", Boolean, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("annotations", JSON, nullable=False),
    Column("starts_at", Moment),
    Column("resolved_at", Moment),
    Column("generator_url", Text, nullable=False, default=""),
    Column("first_seen_at", Moment, nullable=False),
    Column("last_seen_at", Moment, nullable=False),
    Column("seen", Integer, nullable=False, default=1),
    Column("source", String(16), nullable=False),  # webhook | reconcile | schedule
    Column("delivery_id", Integer, ForeignKey("deliveries.id", ondelete="SET NULL"), index=True),
    Column("review_at", Moment),  # when dispatch looks at it (again); NULL = no need
    Index(
        "one_firing_episode",
        "fingerprint",
        unique=True,
        sqlite_where=text("firing"),
        postgresql_where=text("firing"),
    ),
    Index("alerts_to_review", "review_at"),
)

playbooks = Table(
    "playbooks",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("text", Text, nullable=False),
    Column("first_seen_at", Moment, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),  # remedy | restore
    Column("playbook", String(63), nullable=False),
    Column("playbook_sha", String(64), nullable=False),
    Column("plan", JSON, nullable=False),  # the playbook with every template filled in
    Column("mode", String(16), nullable=False),  # a proposal that is approved goes on as auto
    Column("proposed", Boolean, nullable=False, default=False, server_default=false()),
    Column("priority", Integer, nullable=False),
    Column("target", Text, nullable=False),
    Column("pool", Text, nullable=False, default="", server_default=""),
    Column("alert_id", Integer, ForeignKey("alerts.id", ondelete="SET NULL"), index=True),
    Column("parent_id", Integer, index=True),  # the run that escalated to this one
    Column("change_id", Integer),  # the change that a restore gives back
    Column("state", String(16), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("verdict", String(16)),
    Column("reason", Text, nullable=False, default=""),
    Column("pc", Integer, nullable=False, default=0),
    Column("due_at", Moment, nullable=False),
    Column("owner", Text),
    Column("epoch", Integer, nullable=False, default=0),
    Column("lease_until", Moment),
    Column("fencing_token", BigInteger, nullable=False, default=0),
    Column("holds_slot", Boolean, nullable=False),
    Column("drops", Integer, nullable=False, default=0),  # drives that ended in an error of ours
    Column("stop_reason", Text),  # cancel or pre-emption asked for; honoured at a step boundary
    Column("step_started_at", Moment),
    Column("opened_at", Moment, nullable=False, index=True),
    Column("acted_at", Moment),  # first effect
    Column("closed_at", Moment),
    Index(
        "one_acting_run",
        "target",
        "mode",
        unique=True,
        sqlite_where=text("holds_slot"),
        postgresql_where=text("holds_slot"),
    ),
    Index("runs_due", "state", "due_at"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("alert_id", Integer, ForeignKey("alerts.id", ondelete="CASCADE"), index=True),
    Column("playbook", Text, nullable=False, default=""),
    Column("target", Text, nullable=False, default=""),
    Column("admitted", Boolean, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("detail", Text, nullable=False, default=""),
    Column("evidence", JSON, nullable=False),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="SET NULL"), index=True),
    Column("first_at", Moment, nullable=False, index=True),
    Column("last_at", Moment, nullable=False),
    Column("count", Integer, nullable=False, default=1),
)

steps = Table(
    "steps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("pc", Integer, nullable=False),
    Column("iteration", Integer, nullable=False),
    Column("call", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("action", String(32), nullable=False),
    Column("actuator", String(32), nullable=False),
    Column("verb", String(32), nullable=False),
    Column("args", JSON, nullable=False),
    Column("before", JSON, nullable=False),
    Column("undo", JSON),  # {verb, args} that takes it back; NULL = nothing to take back
    Column("undone", Boolean, nullable=False, default=False),
    # Sent twice it does no more than sent once; what does more is never sent again on a guess.
    Column("idempotent", Boolean, nullable=False, default=True),
    Column("why", Text, nullable=False, default=""),
    Column("idempotency_key", Text, nullable=False),
    Column("fencing_token", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("result", JSON),
    Column("error", Text, nullable=False, default=""),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    UniqueConstraint("run_id", "phase", "pc", "iteration", "call", "attempt"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("pc", Integer, nullable=False),  # -1 = the proposal as a whole
    Column("message", Text, nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("decision", String(16)),  # approved | rejected | expired; NULL = open
    Column("decided_at", Moment),
    Column("by", Text, nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    UniqueConstraint("run_id", "pc"),
)

diagnoses = Table(
    "diagnoses",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("pc", Integer, nullable=False),  # -1 = before the first step
    Column("at", Moment, nullable=False),
    Column("seen", JSON, nullable=False),
    UniqueConstraint("run_id", "pc"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("pc", Integer, nullable=False),
    Column("role", String(16), nullable=False),
    Column("query", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("status", String(8), nullable=False),
    Column("value", Double),
    Column("detail", Text, nullable=False, default=""),
    Index("measurements_of_run", "run_id", "pc"),
)

changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("target", Text, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("knob", String(64), nullable=False),
    Column("base", Double, nullable=False),
    Column("value", Double, nullable=False),
    Column("actuator", String(32), nullable=False),
    Column("run_id", Integer, nullable=False),  # the run that set the present value
    Column("alert_id", Integer),
    Column("playbook", String(63), nullable=False),
    Column("playbook_sha", String(64), nullable=False),
    Column("priority", Integer, nullable=False, default=0, server_default="0"),
    # Whether the target takes the value back by itself when the lease lapses; a balancer does not.
    Column("reverts_itself", Boolean, nullable=False, default=True, server_default=true()),
    Column("restore", JSON),  # how it is given back; NULL = the lease is left to lapse
    Column("restore_interval_s", Double),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("fencing_token", BigInteger, nullable=False),
    Column("lease_s", Double, nullable=False),
    Column("lease_until", Moment, nullable=False),
    Column("renew_at", Moment, nullable=False),
    Column("renewals", Integer, nullable=False, default=0),
    Column("renewal_error", Text, nullable=False, default=""),
    Column("created_at", Moment, nullable=False),
    Column("stepped_back_at", Moment),  # last restore step
    Column("closed_at", Moment),
    Index(
        "one_held_change",
        "target",
        "mode",
        "knob",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
        postgresql_where=text("closed_at IS NULL"),
    ),
)

fences = Table(
    "fences",
    metadata,
    Column("target", Text, primary_key=True),
    Column("token", BigInteger, nullable=False),
)

controls = Table(
    "controls",
    metadata,
    Column("id", Integer, primary_key=True),
    # One of pause, kill, mode, override, pin and breaker_reset.
    Column("kind", String(16), nullable=False, default="pause", server_default="pause"),
    Column("scope", String(16), nullable=False),  # all | playbook | target | pool | action
    Column("name", Text, nullable=False, default=""),
    Column("value", JSON),  # what a mode, override or pin says
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("until", Moment),  # NULL = until it is lifted
    Column("lifted_at", Moment),
    Column("lifted_by", Text, nullable=False, default=""),
)

schedules = Table(
    "schedules",  # the newest slot of each schedule that some replica has taken
    metadata,
    Column("name", Text, primary_key=True),  # playbook, and the place of the trigger in it
    Column("slot_at", Moment, nullable=False),
    Column("served_at", Moment, nullable=False),  # when some replica last had it
)

signs = Table(
    "signs",  # signs of life: when the Watchdog, Alertmanager and Prometheus were last heard
    metadata,
    Column("name", String(32), primary_key=True),
    Column("at", Moment, nullable=False),
    Column("detail", Text, nullable=False, default=""),
)

notifications = Table(
    "notifications",
    metadata,
    Column("key", Text, primary_key=True),
    Column("severity", String(16), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("dedup", Text, nullable=False, default="", server_default=""),  # one story, one page
    Column("run_id", Integer),
    Column("created_at", Moment, nullable=False),
    Column("due_at", Moment),  # NULL once sent, or given up
    Column("attempts", Integer, nullable=False, default=0),
    Column("sent_at", Moment),
    Column("error", Text, nullable=False, default=""),
    Index("notifications_due", "due_at"),
)
