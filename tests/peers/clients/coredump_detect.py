"""The chip that esp-coredump finds at PORT, where the core file does not name it. Prints it."""

import sys

from esp_coredump import CoreDump
from esp_coredump.corefile.elf import ESPCoreDumpElfFile

dump = CoreDump(prog="app.elf", port=sys.argv[1])
dump.core_elf = ESPCoreDumpElfFile()
print("target", dump.get_target())
