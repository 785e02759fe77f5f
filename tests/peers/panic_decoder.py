"""Runs in the environment of esp-idf-panic-decoder (`make peer-monitor`): prints what it finds in a log, as JSON.

usage: panic_decoder.py PREFIX ELF LOG — PREFIX is that of the programs addr2line and gdb.
"""

import json
import sys

from esp_idf_panic_decoder import PanicOutputDecoder, PcAddressDecoder

prefix, elf, log = sys.argv[1:4]
with open(log, "rb") as file:
    data = file.read()
decoder = PcAddressDecoder(prefix, [elf])
addresses = {}
for line in data.decode().splitlines():
    for address, places in decoder.translate_addresses(line):
        addresses[address] = [(place.func, place.path, int(place.line)) for place in places]
trace = ""
if b"Stack memory:" in data:
    trace = PanicOutputDecoder(prefix, elf, "esp32c3").process_panic_output(data).decode()
print(json.dumps({"addresses": addresses, "trace": trace}))
