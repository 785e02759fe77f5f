"""Guided plans for secure boot, flash encryption and JTAG: the firmware, a rehearsal on a virtual copy of the chip, and the execution.

The steps are in ``efuse/secure_steps.py``. Whether a step is done is read from the chip each time, so a plan that was stopped
continues when it is run again, also with another computer. Signatures may be random, so signed firmware in flash counts if
it is the same image with valid signatures by the same keys. A flash encryption key that is hidden already counts as proven if
the flash holds the firmware that is encrypted with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

from espwire.blob import Blob, choose_for_chip
from espwire.chips.model import Chip
from espwire.device.device import Device
from espwire.efuse.burn import burn
from espwire.efuse.danger import ALONE, Surroundings, find_dangers
from espwire.efuse.keys import request_keys
from espwire.efuse.plan import BurnPlan, judge_unproven, plan_burn
from espwire.efuse.planner import Planner
from espwire.efuse.secure_steps import (
    CRYPT_CONFIG,
    DOWNLOAD,
    ENCRYPTION,
    JTAG_OFF,
    SECURE_BOOT_V2,
    SecureRequest,
    SecureStep,
    SecureSteps,
    list_steps,
)
from espwire.efuse.security_status import SECURE_BOOT
from espwire.efuse.state import FuseState
from espwire.efuse.store import FuseStore, VirtualStore, store_from_state
from espwire.efuse.trust import list_trusted
from espwire.errors import DeviceError, ImageError, SafetyStop, UsageError
from espwire.events import Event, Report, Warned, silent
from espwire.flash.findings import Finding, Policy, stop_if_fatal
from espwire.flash.host_key import (
    FlashCipher,
    FoundTable,
    HostKey,
    encrypt_blobs,
    list_encrypted,
)
from espwire.flash.read import read_flash
from espwire.flash.verify import has_content
from espwire.flash.write import write_flash
from espwire.image.build_file import find_table
from espwire.image.codec import is_image, parse_prefix
from espwire.image.scan import find_regions
from espwire.secure import secure_boot
from espwire.secure.flash_encryption import BLOCK, USUAL_CRYPT_CONFIG, find_scheme
from espwire.secure.keys import PrivateKey
from espwire.sizes import SECTOR
from espwire.virtual.boot import find_boot_text
from espwire.virtual.fuse_file import find_flash_key, is_encrypting
from espwire.virtual.secure_start import FlashView, Start, build_decrypt, start

FIRMWARE = "firmware"
LEAVE_OPEN = "Add --keep-download-mode to leave out this step."
PROBE = 256  # bytes that are read first to see whether an image is in flash
WRITE_CONSENTS = frozenset(("encryption-off",))  # it is enabled in a later step
READ_FLASH = Callable[[int, int], bytes]


class Firmware(NamedTuple):
    """``plain``: signed; ``raw``: as it is in flash, encrypted where the chip decrypts; ``table``: the partition table."""

    plain: tuple[Blob, ...]
    raw: tuple[Blob, ...]
    table: FoundTable | None


class PlannedStep(NamedTuple):
    """A step with what it burns on the copy of the chip; ``plan`` None: it writes firmware."""

    step: SecureStep
    plan: BurnPlan | None
    findings: tuple[Finding, ...] = ()


class Rehearsal(NamedTuple):
    """``steps``: all, in order; ``start``: how the copy starts from flash afterwards; None: not tried."""

    steps: tuple[PlannedStep, ...]
    start: Start | None


class Plan(NamedTuple):
    """A plan for one chip in one state."""

    chip: Chip
    request: SecureRequest
    steps: SecureSteps
    firmware: Firmware
    signers: tuple[PrivateKey, ...]


class FirmwareStore(Protocol):
    """Where the firmware of a plan is."""

    def holds(self, firmware: Firmware) -> bool:
        """Whether the flash holds it."""

    def write(self, firmware: Firmware) -> None:
        """Write it."""


def make_plan(
    state: FuseState,
    request: SecureRequest,
    blobs: Iterable[Blob],
    signers: Sequence[PrivateKey] = (),
    held: READ_FLASH | None = None,
) -> Plan:
    """The plan for a chip.

    :param blobs: bootloader, partition table and applications, as plaintext; signed or not
    :param held: reads the chip's flash
    :raises UsageError, Unsupported, DeviceError: see ``list_steps``
    :raises ImageError: code ``plan-image``; KeyFileError: a key does not fit
    """
    chip = state.chip
    blobs = tuple(choose_for_chip(tuple(blobs), chip.id))
    steps = list_steps(state, request)
    found = _find_table(blobs, chip)
    cipher = _choose_cipher(state, request, bool(blobs))
    if _boots_securely(state, request):
        digests = [key.digest() for key in request.signing_keys]
        digests += [each.digest for each in list_trusted(state) if not each.revoked]
        reader = None if held is None else _open_reader(held, cipher)
        blobs = tuple(_sign(blob, chip, signers, digests, reader) for blob in blobs)
    _require_room(blobs)
    raw = blobs
    if cipher is not None and blobs:
        if found is None:
            raise UsageError(
                "the firmware has no partition table, so it is not known what is encrypted",
                hint="Name the partition table as well, or the build folder.",
                code="plan-table",
            )
        raw = encrypt_blobs(blobs, list_encrypted(found), cipher)
    return Plan(chip, request, steps, Firmware(blobs, raw, found), tuple(signers))


def _find_table(blobs: Sequence[Blob], chip: Chip) -> FoundTable | None:
    for blob in blobs if find_table(blobs) is not None else ():
        for region in find_regions(blob.data, chip, start=blob.address):
            if region.table is not None:
                return FoundTable(blob.address + region.offset, region.table)
    return None


def _boots_securely(state: FuseState, request: SecureRequest) -> bool:
    on = any(state.value_of(name) for name in SECURE_BOOT)
    return on or SECURE_BOOT_V2 in request.features


def _choose_cipher(
    state: FuseState, request: SecureRequest, has_firmware: bool
) -> FlashCipher | None:
    """The encryption of the firmware; None: none.

    :raises UsageError: code ``plan-flash-key``: the chip encrypts already, and no key is given
    """
    on = is_encrypting(state.chip, state.register)
    if not on and ENCRYPTION not in request.features:
        return None
    if not request.flash_key:
        if not has_firmware:
            return None
        raise UsageError(
            "flash encryption of this chip is on, and its key is not among the keys",
            hint="Add --key FILE with the flash encryption key.",
            code="plan-flash-key",
        )
    config = None
    if find_scheme(state.chip) != "xts":
        config = state.value_of(CRYPT_CONFIG) or USUAL_CRYPT_CONFIG
    cipher = FlashCipher(request.flash_key, config)
    cipher.encrypt(bytes(BLOCK), 0)  # reports an unsuitable key now
    return cipher


def _open_reader(held: READ_FLASH, cipher: FlashCipher | None) -> READ_FLASH:
    def read(address: int, size: int) -> bytes:
        raw = held(address, size + -size % BLOCK)
        return (raw if cipher is None else cipher.decrypt(raw, address))[:size]

    return read


def _sign(
    blob: Blob,
    chip: Chip,
    signers: Sequence[PrivateKey],
    digests: Sequence[bytes],
    held: READ_FLASH | None,
) -> Blob:
    """The blob with signatures, if it is an image without any by a trusted key.

    :raises ImageError: code ``plan-image``
    """
    if not is_image(blob.data):
        return blob
    size = parse_prefix(memoryview(blob.data), chip)[1]
    end = -(-size // SECTOR) * SECTOR
    if _is_trusted(blob.data, end, digests):
        return blob
    if blob.data[size:].strip(b"\xff") or not signers:
        raise ImageError(
            f"{blob.label} is not signed by a key that the chip will trust",
            hint="Give the unsigned file, and the private key with --key.",
            code="plan-image",
        )
    image = blob.data[:size].ljust(end, b"\xff")
    if held is not None:
        wanted = [signer.public.digest() for signer in signers]
        same = held(blob.address, PROBE) == image[:PROBE]
        there = held(blob.address, end + SECTOR) if same else b""
        if there.startswith(image) and _list_signers(there, end) == wanted:
            return replace(blob, data=there)
    return replace(blob, data=secure_boot.sign(blob.data[:size], signers).data)


def _list_signers(data: bytes, end: int) -> list[bytes]:
    """The digests of the keys with a valid signature after an image."""
    if len(data) < end + SECTOR:
        return []
    blocks = secure_boot.read_blocks(data[: end + SECTOR])
    return [each.public.digest() for each in blocks if each.state == "valid" and each.public]


def _is_trusted(data: bytes, end: int, digests: Sequence[bytes]) -> bool:
    return any(found.startswith(each) for found in _list_signers(data, end) for each in digests)


def _require_room(blobs: Iterable[Blob]) -> None:
    """:raises UsageError: code ``plan-overlap``"""
    ordered = sorted(blobs, key=lambda blob: blob.address)
    for one, other in itertools.pairwise(ordered):
        if one.end > other.address:
            raise UsageError(
                f"{one.label} with its signature ends at {one.end:#x}, inside {other.label}",
                hint="Move the partition table or the application.",
                code="plan-overlap",
            )


# the rehearsal


def rehearse(
    plan: Plan,
    state: FuseState,
    find_surroundings: Callable[[BurnPlan], Surroundings] = lambda plan: ALONE,
) -> Rehearsal:
    """Carry out a plan on a virtual copy of the chip, and start it from flash. Dangers do not stop it.

    :raises DeviceError: an eFuse cannot be burned
    """
    store = store_from_state(state)
    planner = Planner(state)
    request_keys(planner, plan.steps.flash_key)
    for number, bits in enumerate(planner.unproven):  # a key that the chip hides
        store.burned[number] |= bits
    steps: list[PlannedStep] = []
    for step in plan.steps.steps:
        if step.collect is None:
            steps.append(PlannedStep(step, None))
            continue
        planner = Planner(store.read())
        step.collect(planner)
        done = plan_burn(planner)
        findings = (*planner.dangers, *find_dangers(done, find_surroundings(done)))
        steps.append(PlannedStep(step, done, findings if done.steps else ()))
        burn(done, store)
    return Rehearsal(tuple(steps), _start(plan, store) if plan.firmware.raw else None)


def require_safe(plan: Plan, rehearsal: Rehearsal, policy: Policy) -> None:
    """Check how a rehearsal went.

    :raises SafetyStop: code ``plan-does-not-start``: the firmware would not start; or the consent to a danger is missing
    """
    found = []
    for step in rehearsal.steps:
        remedy = LEAVE_OPEN if step.step.name == DOWNLOAD else ""
        found += [each._replace(remedy=each.remedy or remedy) for each in step.findings]
    stop_if_fatal(found, policy)
    ended = rehearsal.start
    if ended is not None and ended.app is None and plan.request.features != {JTAG_OFF}:
        raise SafetyStop(
            f"in the rehearsal, the chip does not start this firmware: {_last_line(ended.text)}",
            hint="Check that the files are a complete build for this chip, and the keys. Nothing was burned.",
            code="plan-does-not-start",
        )


def _start(plan: Plan, store: VirtualStore) -> Start:
    size = max(blob.end for blob in plan.firmware.raw) + SECTOR
    flash = bytearray(b"\xff" * size)
    for blob in plan.firmware.raw:
        flash[blob.address : blob.end] = blob.data
    decrypt = build_decrypt(store, find_flash_key(store))
    view = FlashView(lambda address, count: bytes(flash[address : address + count]), decrypt, size)
    return start(find_boot_text(plan.chip), store, view)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or "it prints nothing"


# the execution


def execute(
    plan: Plan,
    store: FuseStore,
    flash: FirmwareStore,
    *,
    policy: Policy,
    confirm: Callable[[PlannedStep], None],
    on_step: Callable[[SecureStep, str], None],
    find_surroundings: Callable[[BurnPlan], Surroundings] = lambda plan: ALONE,
) -> None:
    """Carry out the steps that are not done yet, and prove each by reading back.

    :param confirm: called before a burn; raises to stop
    :param on_step: a step ended: ``done before``, ``done`` or ``not readable``
    :raises UsageError: code ``plan-firmware``: there is no firmware to write
    :raises SafetyStop: a consent is missing
    :raises DeviceError: a step is not proven; what follows it was left out
    """
    if not plan.firmware.plain and any(step.collect is None for step in plan.steps.steps):
        raise UsageError(
            "this plan needs the firmware that the chip will start",
            hint="Name the build folder, or each ADDRESS FILE: bootloader, partition table, application.",
            code="plan-firmware",
        )
    for step in plan.steps.steps:
        if step.collect is None:
            if flash.holds(plan.firmware):
                on_step(step, "done before")
                continue
            flash.write(plan.firmware)
            if not flash.holds(plan.firmware):
                raise _not_proven(step)
            on_step(step, "done")
            continue
        planner, todo = _collect(step, store.read())
        if todo.unproven and not flash.holds(plan.firmware):
            missing = "the flash does not hold firmware for this key"
            stop_if_fatal(judge_unproven(todo.unproven, missing), policy)
        if not todo.steps:
            on_step(step, "done before")
            continue
        findings = [*planner.dangers, *find_dangers(todo, find_surroundings(todo))]
        stop_if_fatal(findings, policy)
        confirm(PlannedStep(step, todo, tuple(findings)))
        burn(todo, store)
        if store.proves and _collect(step, store.read())[1].steps:
            raise _not_proven(step)
        on_step(step, "done" if store.proves else "not readable")


def _collect(step: SecureStep, state: FuseState) -> tuple[Planner, BurnPlan]:
    assert step.collect is not None
    planner = Planner(state)
    step.collect(planner)
    return planner, plan_burn(planner)


def _not_proven(step: SecureStep) -> DeviceError:
    return DeviceError(
        f"step {step.name} is not proven: the chip does not hold what was burned or written",
        hint="Run the command again: it continues with this step.",
        code="plan-not-proven",
    )


class DeviceFlash:
    """The flash of a connected chip."""

    def __init__(self, device: Device, plan: Plan, policy: Policy, report: Report = silent) -> None:
        self._device, self._plan = device, plan
        self._report = partial(_report_unexpected, report)
        self._policy = policy.replace(consents=policy.consents | WRITE_CONSENTS)

    def holds(self, firmware: Firmware) -> bool:
        """Whether the flash holds it; without firmware, nothing is known."""
        return bool(firmware.raw) and all(
            has_content(self._device, blob.address, blob.data) for blob in firmware.raw
        )

    def write(self, firmware: Firmware) -> None:
        """Write it, encrypted on this computer.

        :raises ToolError: it cannot be written
        """
        key = None
        if firmware.raw != firmware.plain and firmware.table is not None:
            config = None
            if find_scheme(self._plan.chip) != "xts":
                config = USUAL_CRYPT_CONFIG
            key = HostKey(
                key=self._plan.request.flash_key,
                crypt_config=config,
                table=firmware.table.table,
                table_offset=firmware.table.offset,
            )
        write_flash(self._device, firmware.plain, policy=self._policy, key=key, report=self._report)


def _report_unexpected(report: Report, event: Event) -> None:
    """Leave out the warnings about what a later step enables."""
    if not (isinstance(event, Warned) and event.code in WRITE_CONSENTS):
        report(event)


def open_flash(device: Device) -> READ_FLASH:
    """Reads a device's flash."""
    return lambda address, size: read_flash(device, address, size)
