"""The stack against real daemons; the detector is a stand-in: only the stack is on trial."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from remediator.demo import stack as stack_module
from remediator.demo.children import marked
from remediator.demo.daemons import write_files
from remediator.demo.layout import PORTS, Site
from remediator.demo.stack import Options, Stack, StackError, shipped
from remediator.settings import load_settings

STANDIN = (sys.executable, str(Path(__file__).with_name("standin.py")), "{port}")
ROOT = Path(__file__).resolve().parents[2]


def options(*parts: str, **changes) -> Options:
    return Options(parts=parts, detector_command=STANDIN, detector_stop_s=3, **changes)


def eventually(ask: Callable[[], object], seconds: float = 20) -> object:
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end, f"still {answer!r} after {seconds} s"
        threading.Event().wait(0.05)
    return answer


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def query(stack: Stack, promql: str) -> dict[str, float]:
    answer = httpx.get(stack.url("prometheus") + "/api/v1/query", params={"query": promql})
    result = answer.json()["data"]["result"]
    return {series["metric"].get("instance", ""): float(series["value"][1]) for series in result}


class Receiver:
    """A webhook receiver that keeps what Alertmanager posts."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict]] = []
        self.gets = 0
        posts, outer = self.posts, self

        class Keeps(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts.append((self.headers.get("Authorization", ""), json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def do_GET(self) -> None:
                outer.gets += 1
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Keeps)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def seen(self) -> set[tuple[str, str, str]]:
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""), alert["status"])
            for _, body in list(self.posts)
            for alert in body["alerts"]
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    ports = {name: 20001 + offset for offset, name in enumerate(PORTS)}
    site = Site(
        options=options(
            *("supervisord", "alertmanager", "prometheus"),
            scale=10,
            detector_env={"DETECTOR_MAX_CONCURRENCY": "10", "DETECTOR_NOTE": "100%"},
        ),
        folder=tmp_path,
        socket=tmp_path / "s.sock",
        ports=ports,
    )
    write_files(site)
    return site


def test_shipped_folders_are_found() -> None:
    for name in ("rules", "deploy"):
        assert shipped(name) == ROOT / name


def test_a_folder_that_is_not_shipped_is_named() -> None:
    with pytest.raises(StackError, match="'nonsense'"):
        shipped("nonsense")


@pytest.mark.parametrize("wrong", [{"parts": ("grafana",)}, {"ports": {"grafana": 3000}}])
def test_an_unknown_part_is_refused_by_name(wrong: dict) -> None:
    with pytest.raises(StackError, match="grafana"):
        Options(**wrong)


def test_secrets_are_readable_by_their_owner_only(site: Site) -> None:
    for name in ("webhook", "detector", "supervisor"):
        assert site.secret(name).stat().st_mode & 0o077 == 0
        assert len(site.secret(name).read_text()) >= 32


def test_what_is_demonstrated_is_the_shipped_file_with_other_ports_and_times(site: Site) -> None:
    def load(path: Path) -> dict:
        return YAML(typ="safe").load(path.read_text())

    ours = load(site.config("alertmanager.yml"))
    theirs = load(ROOT / "deploy" / "alertmanager" / "alertmanager.yml")
    assert ours["inhibit_rules"] == theirs["inhibit_rules"]
    assert ours["route"]["group_by"] == theirs["route"]["group_by"]
    assert ours["route"]["group_interval"] == "3s"
    ours = load(site.config("prometheus.yml"))
    (detector,) = ours["scrape_configs"]
    assert detector["job_name"] == "videoagent_screenfilter"
    assert detector["static_configs"] == [
        {"targets": ["127.0.0.1:20001"], "labels": {"instance": "detector-1"}}
    ]


@pytest.mark.parametrize("scale", [1, 12])
def test_the_controller_accepts_the_configuration_written_for_it(
    tmp_path: Path, scale: float
) -> None:
    site = Site(
        options=Options(
            scale=scale, controller={"tick_s": 0.5, "targets": {"detector-1": {"job": "j"}}}
        ),
        folder=tmp_path,
        socket=tmp_path / "s.sock",
        ports={name: 20001 + offset for offset, name in enumerate(PORTS)},
    )
    write_files(site)
    settings = load_settings(site.config("controller.yml"))
    assert (settings.scrape_s, settings.tick_s) == (1.0, 0.5)
    assert settings.hold_down_s == 60 / scale
    target = settings.targets["detector-1"]
    assert (target.url, target.job) == ("http://127.0.0.1:20001", "j")
    assert target.supervisor
    assert target.supervisor.socket == site.socket


def test_supervisord_gets_the_detectors_environment_and_no_password(site: Site) -> None:
    text = site.config("supervisord.conf").read_text()
    assert 'DETECTOR_MAX_CONCURRENCY="10"' in text
    assert 'DETECTOR_NOTE="100%%"' in text
    assert site.secret("supervisor").read_text() not in text


def test_an_environment_that_supervisord_cannot_carry_is_refused(tmp_path: Path) -> None:
    bad = Site(
        options=options("supervisord", detector_env={"DETECTOR_NOTE": 'say "hello"'}),
        folder=tmp_path,
        socket=tmp_path / "s.sock",
        ports=dict.fromkeys(PORTS, 20001),
    )
    with pytest.raises(StackError, match="DETECTOR_NOTE"):
        write_files(bad)


@pytest.mark.real
def test_the_written_files_satisfy_the_daemons_own_checkers(
    site: Site, daemon: Callable[..., str]
) -> None:
    for argv in (
        [daemon("promtool"), "check", "config", str(site.config("prometheus.yml"))],
        [daemon("amtool"), "check-config", str(site.config("alertmanager.yml"))],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# --- real processes ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _daemons(request: pytest.FixtureRequest, daemon: Callable[..., str]) -> None:
    if request.node.get_closest_marker("real"):
        daemon("prometheus")
        daemon("prometheus-alertmanager", "alertmanager")


@pytest.mark.real
def test_a_fault_reaches_the_receiver_and_so_does_its_end(receiver: Receiver) -> None:
    wanted = options(
        *("supervisord", "alertmanager", "prometheus"), scale=30, webhook_url=receiver.url
    )
    with Stack(wanted) as stack:
        eventually(lambda: query(stack, "up") == {"detector-1": 1.0})
        assert query(stack, "detector_ready") == {"detector-1": 1.0}
        frozen = stack.kill("detector", signal.SIGSTOP)
        eventually(lambda: ("DetectorDown", "detector-1", "firing") in receiver.seen())
        os.kill(frozen, signal.SIGCONT)
        eventually(lambda: ("DetectorDown", "detector-1", "resolved") in receiver.seen(), 30)
        token = stack.site.secret("webhook").read_text()
        assert {shown for shown, _ in receiver.posts} == {f"Bearer {token}"}
        assert ("Watchdog", "", "firing") in receiver.seen()


@pytest.mark.real
def test_parts_can_be_started_without_the_others() -> None:
    with Stack(options("prometheus", "alertmanager")) as stack:
        assert set(stack.pids) == set(stack.urls) == {"prometheus", "alertmanager"}
        assert httpx.get(stack.url("alertmanager") + "/api/v2/alerts").status_code == 200
        pids, folder = stack.pids.values(), stack.folder
    assert all(gone(pid) for pid in pids)
    assert not folder.exists()


@pytest.mark.real
def test_supervisord_restarts_a_killed_detector_and_the_stack_knows_the_new_one() -> None:
    with Stack(options("supervisord")) as stack:
        first = stack.kill("detector")
        eventually(lambda: stack.pids.get("detector", first) != first)
        stack.wait_ready("detector")
        second = stack.pid("detector")
        stack.restart("detector")
        assert stack.pid("detector") not in {first, second}


@pytest.mark.real
def test_a_killed_supervisord_can_be_started_again_although_its_orphan_held_the_port() -> None:
    with Stack(options("supervisord")) as stack:
        orphan = stack.pid("detector")
        stack.kill("supervisord")
        assert stack.pid("detector") == orphan
        stack.restart("supervisord")
        assert gone(orphan)
        assert stack.pid("detector") != orphan


@pytest.mark.real
def test_nothing_is_left_behind_by_a_killed_supervisord() -> None:
    stack = Stack(options("supervisord", "prometheus", "alertmanager"))
    stack.start()
    pids = stack.pids
    assert set(pids) == {"supervisord", "prometheus", "alertmanager", "detector"}
    stack.kill("supervisord")
    assert not gone(pids["detector"]), "the orphan is what this test is about"
    stack.stop()
    assert [part for part, pid in pids.items() if not gone(pid)] == []
    assert marked(stack.mark) == []
    stack.stop()


@pytest.mark.real
def test_frozen_parts_are_ended_too() -> None:
    with Stack(options("supervisord", "prometheus", "alertmanager")) as stack:
        pids = stack.pids
        for part in ("detector", "supervisord", "prometheus", "alertmanager"):
            stack.kill(part, signal.SIGSTOP)
    assert [part for part, pid in pids.items() if not gone(pid)] == []


@pytest.mark.real
def test_a_detector_that_ignores_term_is_killed_in_the_end() -> None:
    deafly = (
        "import runpy, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    deaf = (sys.executable, "-c", deafly, *STANDIN[1:])
    wanted = Options(parts=("supervisord",), detector_command=deaf, detector_stop_s=1)
    with Stack(wanted) as stack:
        pid = stack.pid("detector")
    assert gone(pid)


@pytest.mark.real
def test_a_part_that_does_not_start_is_named_with_the_end_of_its_log() -> None:
    broken = (sys.executable, "-c", "raise SystemExit('no weights at /nowhere')")
    stack = Stack(Options(parts=("supervisord", "prometheus"), detector_command=broken))
    with pytest.raises(StackError, match=r"(?s)detector did not start.*no weights at /nowhere"):
        stack.start()
    assert marked(stack.mark) == []


@pytest.mark.real
def test_a_stranger_who_answers_on_our_port_is_not_taken_for_our_part(receiver: Receiver) -> None:
    broken = (sys.executable, "-c", "import signal; signal.pause()")
    wanted = Options(
        parts=("supervisord",),
        detector_command=broken,
        detector_stop_s=1,
        deadline_s=3,
        ports={"detector": receiver.server.server_address[1]},
    )
    with pytest.raises(StackError, match="not ready within 3 s"):
        Stack(wanted).start()
    assert receiver.gets > 0, "the stranger was asked, and answered"


@pytest.mark.real
def test_a_port_lost_between_choosing_and_binding_costs_one_more_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reserve, calls = stack_module._reserve, []
    with socket.create_server(("127.0.0.1", 0)) as taken:

        def sometimes_late() -> socket.socket:
            calls.append(1)
            # The second port is the first part's that is started here.
            return taken.dup() if len(calls) == PORTS.index("alertmanager") + 1 else reserve()

        monkeypatch.setattr(stack_module, "_reserve", sometimes_late)
        with Stack(options("alertmanager")) as stack:
            assert len(calls) == 2 * len(PORTS)
            assert not stack.url("alertmanager").endswith(f":{taken.getsockname()[1]}")


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_program_that_uses_a_stack_ends_the_stack(number: signal.Signals) -> None:
    program = (
        "import signal, sys; from remediator.demo.stack import Options, Stack\n"
        # A test run in the background of a shell inherits an interrupt that is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"with Stack(Options(parts=('supervisord', 'prometheus'), detector_command={STANDIN!r}))"
        " as stack:\n"
        "    print(stack.mark, *stack.pids.values(), flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    ) as user:
        assert user.stdout
        mark, *pids = user.stdout.readline().split()
        user.send_signal(number)
        assert user.wait(30) != 0
    assert len(pids) == 3
    assert all(gone(int(pid)) for pid in pids)
    assert marked(mark) == []


@pytest.mark.real
def test_the_shipped_detector_is_ready_scraped_and_restarted_with_its_settings() -> None:
    wanted = Options(
        parts=("supervisord", "prometheus"), detector_env={"DETECTOR_MAX_CONCURRENCY": "10"}
    )
    with Stack(wanted) as stack:
        settings = stack.url("detector") + "/v1/settings"
        token = stack.site.secret("detector").read_text()
        answer = httpx.patch(
            settings,
            json={"values": {"max_concurrency": 3}, "owner": "a test", "reason": "a restart"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 200, answer.text
        eventually(lambda: query(stack, "detector_canary_success") == {"detector-1": 1.0}, 30)
        first = stack.pid("detector")
        stack.restart("detector")
        assert stack.pid("detector") != first
        assert httpx.get(settings).json()["values"]["max_concurrency"] == 3


@pytest.mark.real
def test_a_folder_of_the_users_own_is_kept_with_the_logs(tmp_path: Path) -> None:
    # Long enough that a socket in it could not be bound.
    folder = tmp_path / ("a-long-name-" * 9)
    with Stack(options("supervisord", "prometheus", folder=folder)) as stack:
        assert stack.pid("detector")
        assert stack.folder == folder
    assert "Server is ready" in (folder / "logs" / "prometheus.log").read_text()
