"""Start-up: what is read, and what is refused with exit code 2 and one line."""

from __future__ import annotations

import socket
import threading
import zipfile
from pathlib import Path

import pytest

from detector_service import __main__ as main_module
from detector_service.__main__ import _listen, main
from detector_service.errors import StartError
from detector_service.settings import is_loopback, read_settings, unknown_variables
from tests.detector.toys import write_canary


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DETECTOR_TOKEN", "DETECTOR_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    model = tmp_path / "m.pt"
    zipfile.ZipFile(model, "w").writestr("m/data.pkl", b"")
    monkeypatch.setenv("DETECTOR_MODEL", str(model))
    monkeypatch.setenv("DETECTOR_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DETECTOR_CANARY_DIR", str(write_canary(tmp_path / "canary")))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Start, be refused; returns the one line."""
    assert main(list(arguments)) == 2
    line = capsys.readouterr().err
    assert line.startswith("detector_service: ")
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_a_network_address_without_a_token_is_refused(
    capsys: pytest.CaptureFixture[str], host: str
) -> None:
    assert "without a control token" in refusal(capsys, "--host", host, "--port", "0")


def test_a_network_address_with_a_token_is_fine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    monkeypatch.setenv("DETECTOR_TOKEN_FILE", str(secret))
    assert read_settings(host="0.0.0.0").control_token() == "s3cret"


@pytest.mark.parametrize("told", ["  ", "\t", "two\nlines", "\udcff"])
def test_a_token_that_no_header_can_carry_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setenv("DETECTOR_TOKEN", told)
    assert "DETECTOR_TOKEN" in refusal(capsys, "--port", "0")


def test_blanks_round_a_token_do_not_count_as_in_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTOR_TOKEN", " s3cret \n")
    assert read_settings().control_token() == "s3cret"


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_token_file_that_is_missing_or_empty_is_refused_and_not_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    secret = tmp_path / "token"
    if content is not None:
        secret.write_text(content)
    monkeypatch.setenv("DETECTOR_TOKEN_FILE", str(secret))
    with pytest.raises(StartError, match="token file"):
        read_settings(host="0.0.0.0")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("detector", False),
    ],
)
def test_loopback_is_known_in_all_its_spellings(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("name", "damage"),
    [("gone.pt", None), ("empty.pt", b""), ("text.pt", b"hello"), ("model.onnx", b"PK")],
)
def test_a_model_file_that_cannot_be_one_is_refused_by_name(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    damage: bytes | None,
) -> None:
    path = tmp_path / name
    if damage is not None:
        path.write_bytes(damage)
    monkeypatch.setenv("DETECTOR_MODEL", str(path))
    line = refusal(capsys, "--port", "0")
    assert str(path) in line
    assert "DETECTOR_MODEL" in line


def test_a_wrong_setting_is_refused_by_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTOR_MAX_CONCURRENCY", "0")
    assert "DETECTOR_MAX_CONCURRENCY must be between 1 and 256" in refusal(capsys, "--port", "0")
    monkeypatch.setenv("DETECTOR_MAX_CONCURRENCY", "many")
    assert "DETECTOR_MAX_CONCURRENCY: " in refusal(capsys, "--port", "0")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *(("OBJECTIVE_S", told) for told in ("inf", "nan", "-inf")),
        *((name, "inf") for name in ("HANG_S", "DEADLINE_S", "VIDEO_KEEP_S")),
        *(("CANARY_EVERY_S", "0.001"), ("TORCH_THREADS", "1025"), ("DECODE_THREADS", "99999")),
    ],
)
def test_a_number_that_no_process_can_work_with_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setenv(f"DETECTOR_{name}", told)
    assert f"DETECTOR_{name}: " in refusal(capsys, "--port", "0")


def test_a_damaged_state_file_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "settings.json").write_text("{")
    assert "settings.json is damaged" in refusal(capsys, "--port", "0")


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in refusal(capsys, "--port", str(port))


def test_answers_are_not_held_back_until_the_client_acknowledges_their_headers() -> None:
    with _listen(read_settings(port=0)) as listener:
        # asyncio sets TCP_NODELAY on what it accepts only where this is named.
        assert listener.proto == socket.IPPROTO_TCP


def test_a_misspelt_variable_is_noticed() -> None:
    environment = {"DETECTOR_PORT": "1", "DETECTOR_MAX_CONCURENCY": "1", "PATH": ""}
    assert unknown_variables(environment) == ["DETECTOR_MAX_CONCURENCY"]


def test_exports_are_kept_beside_the_state_by_a_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert str(read_settings().cache) == "/var/cache/detector_service"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # nobody knows a home
    assert read_settings().cache == tmp_path / "state" / "cache"


def test_the_state_folder_is_per_port_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETECTOR_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert str(read_settings(port=7861).folder) == "/var/state/detector_service/7861"


def test_a_thread_that_is_deep_inside_a_film_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()
    inside = threading.Thread(target=go.wait, name="deep inside", daemon=False)
    inside.start()
    monkeypatch.setattr(main_module, "LEAVE_S", 0.01)
    try:
        assert "deep inside" in main_module._still_busy()
    finally:
        go.set()
        inside.join()
    assert "deep inside" not in main_module._still_busy()
