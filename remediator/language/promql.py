"""PromQL, as far as a playbook needs it: does it parse, is it one number, how far back it looks.

Called by `text_checks` and by the loader for the windows; `window_of` serves whoever holds a
filled-in query. The surprise: promql-parser overflows its stack on deeply nested input and takes
the process with it, so length and nesting are bounded before it sees anything. It knows the
language of Prometheus 2.45; the server has the last word. Where it panics, that is no `Exception`
in Python, and would end whoever reloads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import promql_parser as pp

from remediator.model.duration import LONGEST, format_duration

MAX_LENGTH = 4000
# Measured: 1,000 nested operators still parse on a 1 MB stack, 2,000 end the process.
MAX_OPERATORS = 250

# Aggregations that choose among the series and leave them as they are.
_KEEP_LABELS = {"topk", "bottomk", "limitk", "limit_ratio"}
_COMPARISONS = {"==", "!=", ">", "<", ">=", "<="}
# What NVML's compute-busy share is called: gpu_utilization_percent (the detector, most exporters),
# DCGM_FI_DEV_GPU_UTIL (dcgm), nv_gpu_utilization (Triton), nvidia_smi_utilization_gpu_ratio.
_BUSY = re.compile(r"gpu_?util|utili[sz]ation_gpu", re.IGNORECASE)
# Where a length of time may stand: [range:resolution], offset.
_LENGTHS = re.compile(r"\[([^\[\]:]*)(?::([^\[\]]*))?\]|\boffset\s+([-+]?[^\s()]+)", re.IGNORECASE)
# The parser panics from 2^64 seconds on, and its panic prints a stack trace by itself.
ENDLESS_S = 1e12
_OPERATOR = re.compile(r"[(\[{+\-*/%^<>=!@]|\b(?:and|or|unless|atan2|offset)\b", re.IGNORECASE)


def parse(query: str) -> Any:
    """Return the syntax tree of a query.

    Raises:
        ValueError: not PromQL, or more than any playbook needs.
    """
    if len(query) > MAX_LENGTH:
        raise ValueError(f"a query of {len(query)} characters; {MAX_LENGTH} at most")
    # Counted in strings and comments, too: what decides where those end is the parser itself.
    if len(_OPERATOR.findall(query)) > MAX_OPERATORS:
        raise ValueError(f"a query with more than {MAX_OPERATORS} operators and brackets")
    if any(_is_endless(text) for match in _LENGTHS.finditer(query) for text in match.groups("")):
        raise ValueError("a length of time beyond all calendars")
    try:
        return pp.parse(query)
    except (ValueError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of the parser's derives from nothing else
        raise ValueError(f"the parser fails on it: {str(error)[:200]}") from None


def _is_endless(text: str) -> bool:
    try:
        return abs(float(text)) > ENDLESS_S
    except ValueError:
        return False


def window_of(query: str) -> timedelta:
    """Return how far a query looks back: ranges, subqueries and offsets added along each path.

    Zero for an instant query; Prometheus' own look-back for a sample (5m) is not counted, because
    a value that old would be stale and not part of the answer.

    Raises:
        ValueError: as `parse`.
    """
    return _reach(parse(query))


def problems(query: str) -> list[tuple[str, str]]:
    """Return what is wrong with a query that must give one number, as (message, hint) pairs."""
    try:
        tree = parse(query)
    except ValueError as error:
        return [(f"not PromQL: {error}", "")]
    top = _unwrapped(tree)
    found = []
    if _reach(tree) > LONGEST:
        found.append((f"the query looks back more than {format_duration(LONGEST)}", ""))
    if isinstance(top, pp.MatrixSelector | pp.SubqueryExpr):
        found.append(("the query gives a range of samples", "wrap it, as in rate(...)"))
    if isinstance(top, pp.StringLiteral):
        found.append(("the query is a text and not a number", ""))
    if isinstance(top, pp.BinaryExpr) and str(top.op) in _COMPARISONS:
        hint = "write the left side as query and the limit as above: or below:"
        found.append(("the comparison is ours: an empty answer must mean unknown", hint))
    if any(_pins_time(node) for node in _nodes(tree)):
        found.append(("@ pins the time, so the answer never changes", "leave the @ out"))
    return found


def metrics_in(query: str) -> frozenset[str]:
    """Return the names of the metrics a query reads; an empty name where it is not written out.

    Raises:
        ValueError: as `parse`.
    """
    selectors = (n for n in _nodes(parse(query)) if isinstance(n, pp.VectorSelector))
    return frozenset(_metric(selector) for selector in selectors)


def is_utilisation(query: str) -> bool:
    """Say whether a query reads how busy a device is, and nothing else.

    Raises:
        ValueError: as `parse`.
    """
    names = metrics_in(query)
    return bool(names) and all(_BUSY.search(name) for name in names)


def loses(query: str, label: str) -> bool:
    """Say whether the series a query gives have certainly lost `label`.

    Raises:
        ValueError: as `parse`.
    """
    return _loses(parse(query), label)


def _metric(selector: Any) -> str:
    named = (m.value for m in selector.matchers.matchers if m.name == "__name__" and _is_equal(m))
    return selector.name or next(named, "")


def _is_equal(matcher: Any) -> bool:
    return str(matcher.op) == "MatchOp.Equal"


def _loses(node: Any, label: str) -> bool:
    if isinstance(node, pp.AggregateExpr):
        return _aggregates_away(node, label) or _loses(node.expr, label)
    if isinstance(node, pp.ParenExpr | pp.UnaryExpr | pp.SubqueryExpr):
        return _loses(node.expr, label)
    if isinstance(node, pp.NumberLiteral | pp.StringLiteral):
        return True
    if isinstance(node, pp.Call):
        return _call_loses(node, label)
    if isinstance(node, pp.BinaryExpr):
        sides = [_loses(node.lhs, label), _loses(node.rhs, label)]
        # With a modifier the label may come from either side; a number leaves the other's labels.
        return all(sides) if node.modifier or str(node.op) == "or" else _pair_loses(node, sides)
    return False


def _pair_loses(node: Any, sides: list[bool]) -> bool:
    numbers = [_is_number(node.lhs), _is_number(node.rhs)]
    vectors = [lost for lost, number in zip(sides, numbers, strict=True) if not number]
    return any(vectors) if vectors else True


def _is_number(node: Any) -> bool:
    inner = _unwrapped(node)
    if isinstance(inner, pp.BinaryExpr):
        return _is_number(inner.lhs) and _is_number(inner.rhs)
    if isinstance(inner, pp.UnaryExpr):
        return _is_number(inner.expr)
    is_scalar = isinstance(inner, pp.Call) and inner.func.return_type == pp.ValueType.Scalar
    return is_scalar or isinstance(inner, pp.NumberLiteral)


def _aggregates_away(node: Any, label: str) -> bool:
    if str(node.op) in _KEEP_LABELS:
        return False
    if node.modifier is None:
        return True
    is_by = bool(node.modifier.type == pp.AggModifierType.By)
    return is_by != (label in node.modifier.labels)


def _call_loses(node: Any, label: str) -> bool:
    if node.func.name in {"label_replace", "label_join", "absent", "absent_over_time"}:
        return False  # these may make the label
    kinds = (pp.ValueType.Vector, pp.ValueType.Matrix)
    given = zip(node.args, node.func.arg_types, strict=False)
    series = [argument for argument, kind in given if kind in kinds]
    return any(_loses(argument, label) for argument in series) if series else True


def _unwrapped(tree: Any) -> Any:
    while isinstance(tree, pp.ParenExpr):
        tree = tree.expr
    return tree


def _children(node: Any) -> list[Any]:
    if isinstance(node, pp.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, pp.Call):
        return list(node.args)
    if isinstance(node, pp.AggregateExpr):
        parameter = [] if node.param is None else [node.param]
        return [*parameter, node.expr]
    if isinstance(node, pp.ParenExpr | pp.UnaryExpr | pp.SubqueryExpr):
        return [node.expr]
    return [node.vector_selector] if isinstance(node, pp.MatrixSelector) else []


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in _children(node):
        yield from _nodes(child)


def _reach(tree: Any) -> timedelta:
    try:
        return max(_reaches(tree), default=timedelta())
    except (OverflowError, ValueError):
        # The parser takes lengths of time that Python has no value for.
        return timedelta.max


def _reaches(node: Any) -> Iterator[timedelta]:
    own = timedelta()
    if isinstance(node, pp.MatrixSelector | pp.SubqueryExpr):
        own += node.range or timedelta()
    if isinstance(node, pp.VectorSelector | pp.SubqueryExpr):
        own += node.offset or timedelta()
    # A negative offset looks forward: it shortens nothing that was measured already.
    own = max(own, timedelta())
    yield own
    for child in _children(node):
        yield from (own + reach for reach in _reaches(child))


def _pins_time(node: Any) -> bool:
    return isinstance(node, pp.VectorSelector | pp.SubqueryExpr) and node.at is not None
