"""What `explain` says of a look: one line, whatever was seen."""

from __future__ import annotations

from remediator.cli.stories import diagnosis_line


def test_a_look_is_one_line_with_its_errors_and_its_answers() -> None:
    seen = {
        "settings": {"error": "gpu-1 does not answer"},
        "process": {"pid": 7},
        "process shows": {"stderr": ["Killed"]},
        "query depth": {"query": "depth", "value": 7.0, "said": "7"},
    }
    line = diagnosis_line({"pc": -1, "at": "2026-03-02T12:00:00Z", "seen": seen})
    assert line.endswith(
        "looked at settings (gpu-1 does not answer), process, process shows, query depth (7)"
    )
    assert diagnosis_line({"at": "2026-03-02T12:00:00Z", "seen": {}}).endswith("nothing")
