"""Several ELF files: chooses the one of the running application by its SHA-256, and notices when a file is built again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from espwire.errors import DataError
from espwire.symbols.cache import SymbolCache
from espwire.symbols.symbol_file import Frame, SymbolFile, find_stamp


class SymbolSet:
    """Resolves addresses by the ELF files of a run.

    :param paths: in order of preference
    :raises FileError: one cannot be read
    :raises ElfError: one is not an ELF file for a chip
    """

    def __init__(self, paths: Sequence[str], cache: SymbolCache | None = None) -> None:
        self._cache = cache or SymbolCache(None)
        self.files = [self._cache.open(path) for path in paths]
        self._running = ""  # first digits of the running application's SHA-256
        self._active = list(self.files)

    def identify(self, sha256: str) -> str:
        """Use only the file with this SHA-256, of which the application prints the first digits.

        Returns a text for the user: the files are of another build; empty: one of them is the right one, or this
        application was identified before.
        """
        if not self.files or sha256 == self._running:
            return ""
        self._running = sha256
        self.refresh()
        self._active = [file for file in self.files if _has_sha(file, sha256)]
        if self._active:
            return ""
        names = ", ".join(file.name for file in self.files)
        return (
            f"{names}: another build than the application that runs (ELF file SHA256 {sha256}…); "
            "its addresses are not resolved: flash this build, or choose the right file with --elf"
        )

    def refresh(self) -> None:
        """Read files again that were built again."""
        for n, file in enumerate(self.files):
            with suppress(DataError):  # it is being built: keep what is known
                if find_stamp(file.path) != file.stamp:
                    self.files[n] = self._cache.open(file.path)
                    self._running = ""
        if not self._running:
            self._active = list(self.files)

    def find(self, address: int) -> SymbolFile | None:
        """The file with code at ``address``."""
        return next((file for file in self._active if file.holds(address)), None)

    def resolve(self, address: int) -> tuple[Frame, ...]:
        """The places in the source at ``address``, innermost first; empty: not known."""
        file = self.find(address)
        return () if file is None else file.resolve(address)

    def unwind(
        self, pc: int, registers: dict[int, int], read_word: Callable[[int], int | None]
    ) -> list[int]:
        """Return addresses on the stack, innermost first: see ``SymbolFile.unwind``."""
        file = self.find(pc) or (self._active[0] if self._active else None)
        return [] if file is None else file.unwind(pc, registers, read_word)

    def save(self) -> None:
        """Keep the indexes for the next run."""
        for file in self.files:
            self._cache.save(file)


def _has_sha(file: SymbolFile, digits: str) -> bool:
    with suppress(DataError):
        return file.sha256().startswith(digits)
    return False
