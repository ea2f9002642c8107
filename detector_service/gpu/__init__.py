"""NVML: which cards there are and what they say. The only module that knows ``pynvml``.

``series`` turns readings into metrics, ``sampler`` takes them once a second for the service;
``exporter`` does so for a machine without one. All calls are meant for one thread, never that of
a request: a sick driver may block them.
Surprise: every reading fails alone. A card that cannot tell its temperature still tells the rest,
and a figure that cannot be read now is None, whatever it was a second ago. Faults (XID) are no
reading but a count of ours, so they stay: a card that is lost is lost by one of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pynvml

log = logging.getLogger(__name__)

# NVML's clock event reasons, in its own words.
THROTTLE_REASONS: Final[Mapping[str, int]] = {
    "gpu_idle": pynvml.nvmlClocksEventReasonGpuIdle,
    "applications_clocks_setting": pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
    "sw_power_cap": pynvml.nvmlClocksEventReasonSwPowerCap,
    "hw_slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
    "sync_boost": pynvml.nvmlClocksEventReasonSyncBoost,
    "sw_thermal_slowdown": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hw_thermal_slowdown": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "hw_power_brake_slowdown": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "display_clock_setting": pynvml.nvmlClocksEventReasonDisplayClockSetting,
}
ECC_KINDS: Final[Mapping[str, int]] = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
# A card in distress may report without end; the rest is read a second later.
XIDS_AT_ONCE = 100
LOOK_AGAIN_S = 60.0


@dataclass(frozen=True)
class Reading:
    """One card's figures; None (or empty) where the card or the driver does not tell.

    Attributes:
        gpu_id: its number in NVML's order, that of the PCI bus.
        uuid: empty where it does not tell.
        utilization: percent of time in which a kernel ran.
        used_bytes: memory in use.
        total_bytes: memory there is.
        temperature: degrees Celsius.
        power_w: what it draws.
        power_limit_w: what it may draw.
        throttle: reason to whether its clocks are lowered for it.
        ecc_errors: kind to memory errors since the driver was loaded.
        xid_errors: faults (XID) reported since somebody listens; None: nobody can.
        last_xid: code of the last of them.
    """

    gpu_id: str
    uuid: str = ""
    utilization: float | None = None
    used_bytes: float | None = None
    total_bytes: float | None = None
    temperature: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    throttle: Mapping[str, bool] = field(default_factory=dict)
    ecc_errors: Mapping[str, int] = field(default_factory=dict)
    xid_errors: int | None = None
    last_xid: int | None = None

    @property
    def silent(self) -> bool:
        """Say whether the card itself told nothing: it is lost, or its driver is."""
        return self == Reading(
            self.gpu_id, self.uuid, xid_errors=self.xid_errors, last_xid=self.last_xid
        )


class Cards:
    """The cards this process may use, and the faults they reported since it listens."""

    def __init__(
        self, told: str | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; the first ``read`` starts NVML.

        Args:
            told: CUDA_VISIBLE_DEVICES, None where it is not set.
            monotonic: seconds, for looking again now and then while there is no card: a driver
                may be loaded after us.
        """
        self._told = told
        self._monotonic = monotonic
        self._look_at: float | None = None
        self._cards: Sequence[int] = ()
        self._faults: dict[int, _Faults] = {}

    def read(self) -> list[Reading]:
        """Read every card; never raises for what a card or the driver does not tell."""
        if not self._cards and (self._look_at is None or self._monotonic() >= self._look_at):
            self._find(first=self._look_at is None)
            self._look_at = self._monotonic() + LOOK_AGAIN_S
        return [self._read(index) for index in self._cards]

    def _find(self, *, first: bool) -> None:
        try:
            pynvml.nvmlInit()
            count = int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as exc:
            if first:
                log.info("no GPU readings: %s", exc)
            return
        self._cards = visible(count, self._told)
        if first and not self._cards:
            log.info("no GPU readings: %d cards, none of which this process may use", count)

    def _read(self, index: int) -> Reading:
        handle = _try(pynvml.nvmlDeviceGetHandleByIndex, index)
        if handle is not None and index not in self._faults:
            self._faults[index] = _Faults(handle)
        faults = self._faults.get(index)
        reading = Reading(str(index)) if handle is None else _read(index, handle)
        if faults is None:
            return reading
        faults.gather()
        return replace(reading, xid_errors=faults.count, last_xid=faults.last)


def visible(count: int, told: str | None) -> Sequence[int]:
    """Return which of ``count`` cards the process may use, by CUDA_VISIBLE_DEVICES.

    Entries are numbers, UUIDs (``GPU-...``, the beginning is enough) or MIG instances
    (``MIG-...``, shown as the card they are part of). As CUDA does, the list is read up to the
    first entry that is no card. Numbers are taken in the order of the PCI bus, which is CUDA's
    only for cards of one kind or with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    if told is None:
        return range(count)
    cards: list[int] = []
    for entry in (part.strip() for part in told.split(",")):
        card = _card(entry, count)
        if card is None:
            break
        if card not in cards:  # two instances of one card
            cards.append(card)
    return cards


def _card(entry: str, count: int) -> int | None:
    if entry.isascii() and entry.isdigit():
        return int(entry) if int(entry) < count else None
    if entry.startswith("MIG-"):
        return _card_of_instance(entry, count)
    if entry.startswith("GPU-"):
        return _card_of_uuid(entry, count)
    return None


def _card_of_uuid(uuid: str, count: int) -> int | None:
    matching = (index for index in range(count) if _uuid(index).startswith(uuid))
    return next(matching, None)


def _card_of_instance(entry: str, count: int) -> int | None:
    if entry.startswith("MIG-GPU-"):  # before driver 470: MIG-<UUID of the card>/<gi>/<ci>
        return _card_of_uuid(entry.removeprefix("MIG-").partition("/")[0], count)
    try:
        instance = pynvml.nvmlDeviceGetHandleByUUID(entry)
        card = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
        return int(pynvml.nvmlDeviceGetIndex(card))
    except pynvml.NVMLError:
        return None


def _uuid(index: int) -> str:
    try:
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
    except pynvml.NVMLError:
        return ""


def _read(index: int, handle: Any) -> Reading:
    rates = _try(pynvml.nvmlDeviceGetUtilizationRates, handle)
    memory = _try(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return Reading(
        gpu_id=str(index),
        uuid=_try(pynvml.nvmlDeviceGetUUID, handle) or "",
        utilization=None if rates is None else float(rates.gpu),
        used_bytes=None if memory is None else float(memory.used),
        total_bytes=None if memory is None else float(memory.total),
        temperature=_try(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        power_w=_watts(_try(pynvml.nvmlDeviceGetPowerUsage, handle)),
        power_limit_w=_watts(_try(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        throttle=_throttle(handle),
        ecc_errors=_ecc_errors(handle),
    )


def _throttle(handle: Any) -> dict[str, bool]:
    bits = _try(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if bits is None:  # drivers before 535 know it by its older name
        bits = _try(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    if bits is None:
        return {}
    return {reason: bool(bits & bit) for reason, bit in THROTTLE_REASONS.items()}


def _ecc_errors(handle: Any) -> dict[str, int]:
    counts = {
        kind: _try(pynvml.nvmlDeviceGetTotalEccErrors, handle, code, pynvml.NVML_VOLATILE_ECC)
        for kind, code in ECC_KINDS.items()
    }
    return {kind: count for kind, count in counts.items() if count is not None}


class _Faults:
    """The XID faults of one card, from an event set of its own; ``count`` is None till it works."""

    def __init__(self, handle: Any) -> None:
        self.count: int | None = None
        self.last: int | None = None
        self._events: Any = None
        try:
            events = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
            self._events = events
        except pynvml.NVMLError as exc:
            log.info("no XID readings: %s", exc)

    def gather(self) -> None:
        """Take what was reported meanwhile, without waiting; of a lost card, keep what is known."""
        if self._events is None:
            return
        try:
            for _ in range(XIDS_AT_ONCE):
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
                self.count = (self.count or 0) + 1
                self.last = int(event.eventData)
        except pynvml.NVMLError_Timeout:  # there is nothing more
            self.count = self.count or 0
        except pynvml.NVMLError as exc:
            log.debug("no more XID readings: %s", exc)


def _watts(milliwatts: float | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _try(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except pynvml.NVMLError:
        return None
