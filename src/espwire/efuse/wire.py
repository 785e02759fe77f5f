"""The eFuses of a connected chip, through the registers of its eFuse controller.

A burn writes the timing, the data with its coding into the program registers, an opcode into the configuration register, the
number of the block into the command register, and a command. A wrong bit in them would be burned for ever, so all of them are
read back before the command is sent; afterwards the controller loads the eFuses into the registers that software reads, and
these are compared with the plan.

Requests to a ROM bootloader have no checksum: values are read twice, and everything is read again after a burn. The command
itself cannot be checked before it has its effect. It therefore sets only the bits that start the burn: its value repeats the
number of the block, and its mask leaves the number out, so that one flipped bit in either of them cannot select another block.
Two flipped bits can: the same bit of the number in the value and in the mask. The comparison finds that, except in a block
that software cannot read.

``ENABLE_SECURITY_DOWNLOAD`` may end the reading of registers. GET_SECURITY_INFO, which still answers, proves it then.

The content of keys is kept out of traces: see ``Loader.confidential``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from espwire.device.device import Device
from espwire.device.double_read import read_words
from espwire.device.loader import Attempts
from espwire.device.security import ask_security
from espwire.device.spi import write_group
from espwire.efuse.check import require_unused
from espwire.efuse.coding import encode
from espwire.efuse.danger import Surroundings, find_fixed_voltage
from espwire.efuse.model import Block, Field
from espwire.efuse.plan import SECURE_DOWNLOAD, BurnPlan
from espwire.efuse.state import FuseState
from espwire.efuse.store import find_error_registers
from espwire.efuse.tables import load_fuses
from espwire.efuse.timing import find_timing
from espwire.errors import ConnectError, DeviceError, NoReply, Unsupported
from espwire.events import Warned
from espwire.protocol.commands import RegWrite

WRITE_ATTEMPTS = 4
ALL_BITS = 0xFFFFFFFF
USB_PORTS = ("usb-jtag", "usb-otg")


class DeviceStore:
    """The eFuses of ``device``.

    :raises UsageError: the chip has no eFuses that can be burned
    :raises Unsupported: code ``secure-download-mode``
    """

    def __init__(self, device: Device) -> None:
        if device.secure_download:
            raise Unsupported(
                "eFuses cannot be read or burned in Secure Download Mode",
                hint="Use get-security-info to show what the chip reports.",
                code="secure-download-mode",
            )
        self.device, self.loader = device, device.loader
        self.data = load_fuses(device.chip.id)
        self._assumed: FuseState | None = None  # the chip does not let anyone read it any more

    @property
    def proves(self) -> bool:
        """Whether the chip still lets its eFuses be read."""
        return self._assumed is None

    def read(self, custom: Sequence[Field] = ()) -> FuseState:
        """What software reads: every word is read each time, because another chip may be connected since.

        :raises DeviceError, TransportError: the chip cannot be read
        """
        if self._assumed is not None:
            return self._assumed
        blocks = self.data.blocks
        addresses = [block.read + 4 * i for block in blocks for i in range(block.words)]
        outside = self._find_outside(addresses)
        with self.loader.confidential():
            found = read_words(self.loader, [*addresses, *outside])
        words = dict(zip([*addresses, *outside], found, strict=True))
        return FuseState(
            self.data.id,
            [
                sum(words[block.read + 4 * i] << 32 * i for i in range(block.words))
                for block in blocks
            ],
            outside={address: words[address] for address in outside},
            custom=custom,
        )

    def program(self, block: Block, bits: int) -> None:
        """Burn bits of a block.

        :raises DeviceError: code ``efuse-second-burn``: coded data is there already, and differs; code
            ``efuse-registers``: the controller does not keep what is written; code ``efuse-busy``: it does not finish; code
            ``efuse-not-proven``: bits that end the reading of registers may be burned or not
        :raises Unsupported: code ``efuse-crystal``
        """
        state = self.read()
        require_unused(state, block, bits)
        number = self._prepare(
            block, encode(bits.to_bytes(state.size(block) // 8, "little"), state.scheme(block))
        )
        field = state.layout.find(SECURE_DOWNLOAD)
        secure = field.mask & bits if isinstance(field, Field) and block.id == 0 else 0
        if not secure:
            self._burn(number)
            return
        try:
            self._burn(number)
            self.read()
        except (ConnectError, DeviceError) as error:
            self._prove_closed(state, bits, secure, error)

    def _burn(self, number: int) -> None:
        """Burn what is prepared, and load it into the registers that software reads."""
        controller = self.data.controller
        self._command(controller.program_command | number)
        self._clear()
        self._write([RegWrite(controller.registers["config"], controller.read_opcode)])
        self._command(controller.read_command | number, controller.after_read_us)

    def _prove_closed(self, state: FuseState, bits: int, secure: int, error: Exception) -> None:
        """Secure Download Mode instead of reading back: before a reset, else after it.

        :raises DeviceError: code ``efuse-not-proven``
        """
        if not self._reports_secure(reset=False) and not self._reports_secure(reset=True):
            raise DeviceError(
                f"it is not proven that {SECURE_DOWNLOAD} is burned: the chip does not report Secure Download Mode ({error})",
                hint="Reset the board, then run the command again.",
                code="efuse-not-proven",
            ) from error
        self.loader.secure = True
        if others := bits & ~secure & ~state.blocks[0]:
            names = [f.name for f in state.layout.fields if f.block == 0 and f.mask & others]
            raise DeviceError(
                f"the chip is in Secure Download Mode, so other bits of the last burn are not proven: {', '.join(names)}",
                hint="For other chips, omit --no-stub: the stub flasher can still read them.",
                code="efuse-not-proven",
            ) from error
        blocks = [state.blocks[0] | bits, *state.blocks[1:]]
        self._assumed = state.change(blocks)
        text = "the chip reports Secure Download Mode; its registers can no longer be read"
        self.device.report(Warned(code="efuse-closed", text=text))

    def _reports_secure(self, *, reset: bool) -> bool:
        """Whether the chip reports Secure Download Mode; False also if it does not answer."""
        device = self.device
        if reset and device.reenter is None:
            return False
        try:
            if reset and device.reenter is not None:
                with suppress(DeviceError):  # it may refuse to have its watchdogs switched off
                    device.reenter()
            return ask_security(self.loader, device.chip, None, device.revision).secure_download
        except (ConnectError, DeviceError):
            return False

    def find_surroundings(self, plan: BurnPlan) -> Surroundings:
        """The port in use, and the voltage of the flash if the burn may change it and the flash answers."""
        kind = self.device.transport.info.kind
        port = kind if kind in USB_PORTS else "uart"
        fixed = find_fixed_voltage(plan.before)
        if find_fixed_voltage(plan.state_after) == fixed:
            return Surroundings(port)
        try:
            self.device.attach_flash()
        except DeviceError:
            return Surroundings(port)
        strapping = self.device.chip.strapping
        bits = [bit for name, bit in strapping.bits.items() if name.endswith("flash_voltage")]
        if fixed or strapping.address is None or not bits:
            return Surroundings(port, fixed)
        is_low = read_words(self.loader, [strapping.address])[0] >> bits[0] & 1
        return Surroundings(port, "1.8V" if is_low else "3.3V")

    def _prepare(self, block: Block, coded: bytes) -> int:
        """Write all registers that a burn needs. Returns the number of the block as the command has it."""
        controller = self.data.controller
        registers = controller.registers
        mhz = self.device.crystal_mhz or 0
        for address, (value, mask) in find_timing(self.data, mhz).items():
            self._write([RegWrite(address, value, mask)])
        self._wait()
        self._clear()
        start = block.write if controller.per_block_write_registers else registers["program_data"]
        words = [int.from_bytes(coded[i : i + 4], "little") for i in range(0, len(coded), 4)]
        with self.loader.confidential():
            self._write([RegWrite(start + 4 * i, word) for i, word in enumerate(words)])
        number = 0 if controller.per_block_write_registers else block.id << controller.block_shift
        self._write([RegWrite(registers["command"], number, ALL_BITS ^ controller.command_mask)])
        self._write([RegWrite(registers["config"], controller.write_opcode)])
        return number

    def _command(self, value: int, delay_us: int = 0) -> None:
        """Send a command once, and wait until it is done: its reply may be lost, but not sent again."""
        controller = self.data.controller
        writes = [RegWrite(controller.registers["command"], value, controller.command_mask)]
        if delay_us:
            nothing = self.device.chip.uart.date_address
            writes.append(RegWrite(nothing, 0, mask=0, delay_us=delay_us))
        for write in writes:
            with suppress(NoReply):
                self.loader.write_regs(write)
        self._wait()

    def _wait(self) -> None:
        """:raises DeviceError: code ``efuse-busy``"""
        controller = self.data.controller
        address, clean = controller.registers["command"], 0
        deadline = self.device.transport.now() + controller.timeout_s
        while clean < controller.idle_reads:
            busy = self.loader.read_reg(address) & controller.command_mask
            clean = 0 if busy else clean + 1
            if busy and self.device.transport.now() > deadline:
                raise DeviceError(
                    f"the eFuse controller is busy for more than {controller.timeout_s:g} s",
                    hint="Reset the chip, then run check-error.",
                    code="efuse-busy",
                )

    def _clear(self) -> None:
        """Zero the program registers: all that is left in them would be burned as well."""
        controller = self.data.controller
        if controller.per_block_write_registers:
            addresses = [
                block.write + 4 * i for block in self.data.blocks for i in range(block.words)
            ]
        else:
            count = controller.program_words + controller.check_words
            start = controller.registers["program_data"]
            addresses = [start + 4 * i for i in range(count)]
        self._write([RegWrite(address, 0) for address in addresses])

    def _write(self, writes: Sequence[RegWrite]) -> None:
        """Write registers that have no effect by themselves, and read them back.

        :raises DeviceError: code ``efuse-registers``
        """
        attempts = Attempts(WRITE_ATTEMPTS)
        addresses = [write.address for write in writes]
        while True:
            try:
                write_group(self.loader, self.device.chip, writes)
            except NoReply as error:
                attempts.failed(error)
                continue
            found = read_words(self.loader, addresses)
            if all(
                word & write.mask == write.value & write.mask
                for word, write in zip(found, writes, strict=True)
            ):
                return
            attempts.failed(
                DeviceError(
                    "the eFuse controller does not keep what is written to its registers",
                    hint="Use a shorter cable or a lower --baud; nothing was burned.",
                    code="efuse-registers",
                )
            )

    def _find_outside(self, blocks: Iterable[int]) -> list[int]:
        """Registers besides the blocks: those that report errors, and those of calculated fields and the revision."""
        chip = self.device.chip
        found = list(find_error_registers(self.data))
        for table in self.data.table:
            extras = (field.extra_part for field in table.calculated)
            found += [extra.address for extra in extras if extra is not None]
        names = ("major_revision", "minor_revision", "major_revision_raw")
        for name in (*names, *chip.revision.treat_as_zero_when):
            found += [part.address for part in chip.fields.get(name, ())]
        known = set(blocks)
        return [address for address in dict.fromkeys(found) if address not in known]
