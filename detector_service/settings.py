"""What the process is told at start, from ``DETECTOR_*`` variables and the command line.

Read once by ``__main__``. Surprise: the tunables here are only the *first* values. Once a state
file exists it wins, since a restart must come back as throttled as it was.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from detector_service.errors import StartError
from detector_service.tunables import KNOBS, Number
from detector_service.tunables.knobs import problems

PACKAGE: Final = Path(__file__).parent
PREFIX: Final = "DETECTOR_"


class Settings(BaseSettings):
    """The start-up settings; sizes in bytes or pixels, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, allow_inf_nan=False
    )

    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65535)
    instance: str | None = None
    commit: str = "unknown"
    model: Path = PACKAGE / "weights" / "cursor.pt"
    canary_dir: Path = PACKAGE / "samples"
    canary_every_s: float = Field(default=15.0, ge=0.1)
    state_dir: Path | None = None
    token: SecretStr | None = None
    token_file: Path | None = None
    torch_threads: int | None = Field(default=None, ge=1, le=1024)
    decode_threads: int = Field(default=2, ge=1, le=1024)
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024)
    max_pixels: int = Field(default=40_000_000, ge=1024)
    hang_s: float = Field(default=60.0, gt=0)

    backend: Literal["auto", "torch", "openvino"] = "auto"
    cache_dir: Path | None = None
    adaptive: bool = True
    objective_s: float = Field(default=0.25, gt=0)

    video_workers: int = Field(default=1, ge=1, le=16)
    video_queue: int = Field(default=32, ge=1)
    max_video_bytes: int = Field(default=2**30, ge=1024)
    max_video_s: float = Field(default=4 * 3600.0, gt=0)
    max_video_frames: int = Field(default=1_000_000, ge=1)
    video_store_bytes: int = Field(default=20 * 2**30, ge=2**20)
    video_keep_s: float = Field(default=86_400.0, gt=0)
    video_urls: Annotated[tuple[str, ...], NoDecode] = ()
    chunk_frames: int = Field(default=32, ge=1, le=1024)
    encode_preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"
    ] = "ultrafast"
    encode_crf: int = Field(default=23, ge=0, le=51)

    max_concurrency: int | None = None
    conf_threshold: float | None = None
    iou_threshold: float | None = None
    batch_size: int | None = None
    batch_wait_ms: float | None = None
    imgsz: int | None = None
    frame_stride: int | None = None
    queue_limit: int | None = None
    deadline_s: float | None = None

    @field_validator("video_urls", mode="before")
    @classmethod
    def _split(cls, told: object) -> object:
        return told.replace(",", " ").split() if isinstance(told, str) else told

    @property
    def cache(self) -> Path:
        """Return the folder for exported models: as told, or under the user's cache folder."""
        if self.cache_dir is not None:
            return self.cache_dir
        home = os.environ.get("XDG_CACHE_HOME")
        try:
            return Path(home or Path.home() / ".cache") / "detector_service"
        except RuntimeError:  # a user without a home, as in many containers
            return self.folder / "cache"

    @property
    def folder(self) -> Path:
        """Return the state folder: as told, or one per port under the user's state folder."""
        if self.state_dir is not None:
            return self.state_dir
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(home) / "detector_service" / str(self.port)

    def initial(self) -> dict[str, Number]:
        """Return the first value of every tunable.

        Raises:
            StartError: one is out of its range.
        """
        told = {name: getattr(self, name) for name in KNOBS}
        values: dict[str, Number] = {
            name: knob.default if told[name] is None else told[name] for name, knob in KNOBS.items()
        }
        wrong = problems(values)
        if wrong:
            phrases = (f"{PREFIX}{name.upper()} {phrase}" for name, phrase in wrong.items())
            raise StartError("; ".join(phrases))
        return values

    def control_token(self) -> str | None:
        """Return the token for control endpoints, from the variable or the file.

        Raises:
            StartError: it is blank or cannot be sent in a header, or the file cannot be read.
        """
        if self.token is not None and self.token.get_secret_value():
            return _sendable(self.token.get_secret_value(), f"the token ({PREFIX}TOKEN)")
        if self.token_file is None:
            return None
        where = f"the token file {self.token_file} ({PREFIX}TOKEN_FILE)"
        try:
            return _sendable(self.token_file.read_text(encoding="utf-8"), where)
        except (OSError, UnicodeDecodeError) as exc:
            raise StartError(f"cannot read {where}: {exc}") from exc


def read_settings(**told: Any) -> Settings:
    """Read the environment; ``told`` (the command line) goes first.

    Raises:
        StartError: a value is wrong, or the service would be open to a network without a token.
    """
    try:
        settings = Settings(**{name: value for name, value in told.items() if value is not None})
    except ValidationError as exc:
        lines = (f"{PREFIX}{_variable(e['loc'])}: {e['msg']}" for e in exc.errors())
        raise StartError("; ".join(line[:200] for line in lines)) from exc
    if not is_loopback(settings.host) and settings.control_token() is None:
        raise StartError(
            f"refusing to listen on {settings.host} without a control token: anybody who reaches "
            f"it could change settings; set {PREFIX}TOKEN or {PREFIX}TOKEN_FILE"
        )
    return settings


def _sendable(told: str, where: str) -> str:
    token = told.strip()
    if not token:
        raise StartError(f"{where} is blank; set one, or unset the variable")
    if not token.isprintable():
        raise StartError(f"{where} has characters in it that no header can carry")
    return token


def _variable(where: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in where).upper()


def is_loopback(host: str) -> bool:
    """Say whether ``host`` (an address or ``localhost``) is this machine only."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def unknown_variables(environment: dict[str, str]) -> list[str]:
    """Return variables that look like ours and are not; probably typing errors."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
