"""The scope of a control: refused when it names nothing, because it would seem to hold."""

from __future__ import annotations

from collections.abc import Callable, Collection

from fastapi import HTTPException

# Returns the names there are of a kind of scope: playbook, target, pool or action.
Known = Callable[[str], Collection[str]]


def check_scope(known: Known, scope: str, name: str) -> None:
    """Refuse a scope that includes nothing.

    Raises:
        HTTPException: 422, with the names there are.
    """
    if scope == "all":
        if name:
            raise HTTPException(422, f"scope all takes no name, and not {name!r}")
        return
    if not name:
        raise HTTPException(422, f"which {scope}? Give its name; known: {_told(known(scope))}")
    check_name(known, scope, name)


def check_name(known: Known, scope: str, name: str) -> None:
    """Refuse a name that nothing has.

    Raises:
        HTTPException: 422, with the names there are.
    """
    names = known(scope)
    if name not in names:
        raise HTTPException(422, f"there is no {scope} {name!r}; known: {_told(names)}")


def _told(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
