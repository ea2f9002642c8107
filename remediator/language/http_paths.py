"""May a call's path stand there: what an author wrote, before a label fills anything in.

Called by `step_checks`. What labels may do is settled in `model.template`. The surprise: a path
cannot lead above the endpoint's own URL, because the configuration says who is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from remediator.model.template import url_parts

_TEMPLATE = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)
# White space and control characters end a request line; a backslash is a slash to some servers.
_UNFIT = re.compile(r"[\x00-\x20\x7f\\#]")


def path_problems(path: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a path that is appended to an endpoint's URL, with a hint."""
    segments, _ = url_parts(path)
    # Nothing calls the endpoint itself; what begins with // would be another host to a browser.
    if segments[0] or path.startswith("//"):
        yield "path must begin with one /", "the endpoint names the host"
    if any(unquote(segment) in {".", ".."} for segment in segments):
        yield "path leads out of the endpoint by its dots", "write the folder itself"
    literal = _TEMPLATE.sub("", path)
    if unfit := _UNFIT.search(literal):
        yield f"{unfit[0]!r} cannot stand in a path", "percent-encode it"
