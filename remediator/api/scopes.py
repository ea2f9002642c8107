"""The scope of a control: refused when it names nothing, because it would seem to hold."""

from __future__ import annotations

from collections.abc import Callable, Collection

from fastapi import HTTPException

from remediator.store import controls
from remediator.store.database import Database

# Returns the names there are of a kind of scope: playbook, target, pool or action.
Known = Callable[[str], Collection[str]]


async def check_scope(db: Database, known: Known, scope: str, name: str) -> None:
    """Refuse a scope that includes nothing.

    What is no longer served, but still runs or holds something, can be stopped by name as well.

    Raises:
        HTTPException: 422, with the names there are.
    """
    if scope == "all":
        if name:
            raise HTTPException(422, f"scope all takes no name, and not {name!r}")
        return
    if not name:
        raise HTTPException(422, f"which {scope}? Give its name; known: {_told(known(scope))}")
    check_name(known, scope, name, also=await db.read(controls.in_use, scope))


def check_name(known: Known, scope: str, name: str, *, also: Collection[str] = ()) -> None:
    """Refuse a name that nothing has.

    Raises:
        HTTPException: 422, with the names there are.
    """
    names = {*known(scope), *also}
    if name not in names:
        raise HTTPException(422, f"there is no {scope} {name!r}; known: {_told(names)}")


def _told(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
