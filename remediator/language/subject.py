"""One playbook beside its text: what the checks of its meaning look at, and where they point.

Made by `lint`, used by its parts (`guard_checks`, `step_checks`). The surprise: queries are judged
with their vars put in and a placeholder for every label, because no alert has come yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from remediator.language import promql
from remediator.language.finding import Finding, did_you_mean
from remediator.language.surroundings import Surroundings
from remediator.language.templates import templates_in
from remediator.language.text_checks import filled_query, vars_of
from remediator.language.tree import Node
from remediator.model.playbook import Playbook


@dataclass(frozen=True)
class Subject:
    """A valid model, the text it came from, and what stands around it."""

    playbook: Playbook
    root: Node
    surroundings: Surroundings

    def at(self, *path: str | int, message: str, hint: str = "", fatal: bool = True) -> Finding:
        """Return a finding at a place of the text."""
        return Finding(*self.root.place(*path), message, hint, fatal)

    def unknown(self, *path: str | int, what: str, name: str, known: frozenset[str]) -> Finding:
        """Return the finding that `name` is none of the `known` names of its kind."""
        listed = ", ".join(sorted(known)) or "none"
        hint = did_you_mean(name, known, otherwise=f"known: {listed}")
        return self.at(*path, message=f"no {what} is called {name!r}", hint=hint)

    def filled(self, query: str) -> str:
        """Return a query with its vars put in; empty when that cannot be done."""
        return filled_query(query, vars_of(self.root)) or ""

    def window(self, query: str) -> timedelta | None:
        """Return how far a query looks back; None for a broken one, which is told elsewhere."""
        filled = self.filled(query)
        try:
            return promql.window_of(filled) if filled else None
        except ValueError:
            return None

    def names_target(self, query: str) -> bool:
        """Say whether a query says which target it measures, itself or by a var."""
        known = vars_of(self.root)
        seen: set[str] = set()
        todo = [query]
        while todo:
            for template in templates_in(todo.pop()):
                if template.var is None:
                    return True
                if template.var in known and template.var not in seen:
                    seen.add(template.var)
                    todo.append(str(known[template.var].value))
        return False
