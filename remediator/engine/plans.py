"""The playbook that a run carries, read back from the journal.

Called by the runner and by settle. The surprise: it always gives one. A run can be older than this
version of the language, or newer; what it did still has to be taken back, and the journal says how
without the playbook. So a plan that cannot be read is replaced by one that plans nothing.
"""

from __future__ import annotations

from remediator.model.playbook import Playbook
from remediator.model.run import Run


def read(run: Run) -> tuple[Playbook, str]:
    """Return the run's playbook with its templates filled in, and why it cannot be read, or ''."""
    try:
        return Playbook.model_validate(run.plan), ""
    except ValueError as error:
        why = str(error).splitlines()
        return _stand_in(run), f"its playbook cannot be read any more: {' '.join(why[:3])}"


def plan_of(run: Run) -> Playbook:
    """Return the run's playbook, or one that plans nothing where it cannot be read."""
    return read(run)[0]


def _stand_in(run: Run) -> Playbook:
    # As many steps as there may be rows of: each gives its calls the usual time and retries.
    steps = run.plan.get("steps")
    count = max(run.pc + 1, len(steps) if isinstance(steps, list) else 0)
    return Playbook.model_validate(
        {
            "apiVersion": "remediator/v1",
            "name": run.playbook,
            "on": {"alerts": ['alertname=""']},
            "target": run.target,
            "steps": [{"notify": {"message": "unreadable"}}] * count,
        }
    )
