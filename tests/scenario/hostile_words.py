"""The words of hostile command lines: numbers, files, ports and rubbish. Data only."""

from __future__ import annotations

_NUMBERS = """
0 1 -1 -0 +0 4 0x 0X 0x0 0x1000 0x2000 0x10000 0x8000 1e9 1E9 0x1g 0b 0b2 0o8 00 010 0_1 1_000 1k 4K 1M 1kk 4kB 4MB 4MiB
0x10k ALL all All keep detect 256KB 1MB 2MB 2MB-c1 32m-c1 3MB 0MB -4MB 999999999999999MB 0xFFFFFFFF 0xFFFFFFFC 0x100000000
0xFFFFFFFFFFFFFFFF 18446744073709551616 99999999999999999999999999999999999999 1.5 .5 NaN inf Infinity ٣ ４ ¹ Ⅷ 0x٣
"""
NUMBERS = [
    *_NUMBERS.split(),
    "9" * 5000,
    "9" * 10_000,
    "-" + "9" * 10_000,
    "0x" + "F" * 3000,
    "0x" + "F" * 10_000,
    "0b" + "1" * 10_000,
    "9" * 10_000 + "M",
    "1." + "0" * 10_000,
    " 1",
    "1 ",
    "\t1",
    "1\n",
    "",
    " ",
    "0x 1",
    "1\u00a0",
    "\u20070",
]
_FILES = """
app.bin boot.bin torn.bin text.txt empty.bin data.hex bad.hex table.bin table.csv junk.toml junk.cfg args.txt loop.txt folder
folder/out.bin missing.bin missing/out.bin out.bin out2.bin . .. ./ - -- /dev/full /dev/null /dev/zero /nonexistent/x folder/
unreadable.bin prog.elf flasher_args.json @ @args.txt @loop.txt @missing @folder @app.bin @@args.txt @word.txt @quoted.txt @open.txt @keys.toml digits.csv @/dev/null @empty.bin
"""
FILES = _FILES.split()
JUNK = [
    "", " ", "-", "--", "---", "=", "--=", "-=", "--x=y", "\0", "a\0b", "\x1b[31m", "\x7f", "\r", "\n", "\n\nerror: x", "\t",
    "\udc80", "\udcff\udcfe", "\ud800", "a\u0300\u0301", "\u202eabc", "\ufeff", "𝟘𝟙", "𝔴𝔯𝔦𝔱𝔢", "é" * 300, "A" * 70_000, "x" * 125_000, "--" + "x" * 125_000,
    "-x" * 50_000, "a=" * 30_000, "\x9b31m", "\u2066a\u2069", "\x1b]0;t\x07", "a\x08\x08b", "x\x85y", "\u2028", "%s%n", "{}",
    "{0}", "$(id)", "`id`", "'", '"', "\\", "*", "?", "~", "~root", "--help=1", "-hh", "--version=2", "nvs", "nvs=app.bin", "=app.bin",
    "nvs=", "0x0=app.bin", "app.bin=0x0", "0x9000,app.bin", "CON", "NUL", "COM1", "1:2", "15:1,2:0", "vid=0x303A", "vid=", "name=", "yes", "no",
]  # fmt: skip
PORTS = [
    "virtual:esp32c3", "virtual:esp32c3", "virtual:esp32", "virtual:esp8266", "virtual:", "virtual:nope", "virtual:?", "virtual:esp32c3?",
    "virtual:esp32c3?size", "virtual:esp32c3?size=", "virtual:esp32c3?size=9", "virtual:esp32c3?size=-1", "virtual:esp32c3?size=3MB",
    "virtual:esp32c3?flash=folder", "virtual:esp32c3?flash=", "virtual:esp32c3?flash=text.txt", "virtual:esp32c3?flash=missing/f",
    "virtual:esp32c3?vendor=nobody", "virtual:esp32c3?mac=zz", "virtual:esp32c3?mac=1", "virtual:esp32c3?revision=x", "virtual:esp32c3?revision=1.2.3",
    "virtual:esp32c3?revision=99999", "virtual:esp32c3?crystal=7", "virtual:esp32c3?kind=usb", "virtual:esp32?kind=usb-jtag", "virtual:esp32c3?fault=flip",
    "virtual:esp32c3?fault=flip:x", "virtual:esp32c3?fault=flip:-1", "virtual:esp32c3?fault=flip:nan", "virtual:esp32c3?latency=inf",
    "virtual:esp32c3?latency=-1", "virtual:esp32c3?rc=1e400", "virtual:esp32c3?pins=x", "virtual:esp32c3?pins=99:1", "virtual:esp32c3?nope=1",
    "virtual:esp32c3?package=x", "virtual:esp32c3?package=99999999999", "virtual:esp32c3?seed=x", "virtual:esp32c3?quirk=,", "virtual:esp32c3?ail=none",
    "virtual:esp32c3?strap=-1", "virtual:esp32c3?app-baud=x", "virtual:esp32c3?%00=1", "virtual:esp32c3?flash=%00", "virtual:esp32c3?size=4MB&size=1MB",
    "virtual:esp32c3?starts=never", "virtual:esp32c3?profile=warp", "virtual:esp32c3?secure-download=2", "virtual:esp8266?secure-download=1",
    "virtual:esp32c3?secure-download=1", "virtual:esp32c3?secure-boot=1&flash-encryption=1", "virtual:esp32c3?boot=app&circuit=none",
    "VIRTUAL:esp32c3", "virtual:ESP32-C3", "virtual://esp32c3", "virtual:esp32c3?pins=²:1", "virtual:esp32c3?revision=²",
    "socket://", "socket://x", "socket://x:", "socket://x:99999", "socket://x:-1", "socket://[::1", "socket://[::1]:1", "socket://x:1:2", "socket:x",
    "socket://:1", "socket://\udcff:1", "socket://a b:1", "rfc2217://", "rfc2217://x", "rfc2217://x:1?ign_set_control", "rfc2217://x:x", "rfc2217://x:²",
    "socket://a..b:1", "socket://.:1", "socket://..:1", "socket://.a:1", "rfc2217://a..b:1", "socket://" + "a" * 64 + ".de:1",
    "rfc2217://" + "a" * 70 + ":1", "socket://" + "a." * 200 + "b:1", "socket://" + "ü" * 60 + ":1", "socket://xn--:1", "socket://xn--\u20ac:1",
    "socket://\u2488com:1", "socket://a\u3002\u3002b:1", "socket://x:" + "9" * 10_000, "socket://a\0b:1", "socket://[" + ":" * 5000 + "]:1",
    "socket://[fe80::1%" + "e" * 300 + "]:1", "rfc2217://x:1?timeout=" + "9" * 10_000, "socket://" + "x" * 100_000,
    "virtual:esp32c3?pins=" + "9" * 10_000 + ":1", "virtual:esp32c3?fault=flip@" + "9" * 10_000, "virtual:esp32c3?fault=flip:" + "9" * 10_000,
    "virtual:esp32c3?seed=" + "9" * 10_000, "virtual:esp32c3?mac=" + "a" * 10_000, "virtual:esp32c3?revision=" + "9" * 10_000,
    "virtual:esp32c3?latency=" + "9" * 10_000, "virtual:esp32c3?size=" + "9" * 10_000 + "MB", "virtual:esp32c3?strap=" + "9" * 10_000,
    "virtual:esp32c3?" + "a=1&" * 20_000, "virtual:" + "esp32c3?" * 10_000,
    "loop://", "spy://", "hwgrep://", "http://x", "://", "COM", "/dev/null", "/dev/full", "/dev/zero", "folder", "app.bin", "/nonexistent", "", " ", "\0",
    "24:0a:c4:00:01:10", "ff:ff", "A" * 5000,
]  # fmt: skip
VARIABLES = [
    *(f"{prefix}_{name}" for prefix in ("ESPTOOL", "ESPWIRE") for name in
      ("CHIP", "PORT", "BAUD", "BEFORE", "AFTER", "CONNECT_ATTEMPTS", "OPEN_PORT_ATTEMPTS", "STUB_VERSION", "FF", "FM", "FS", "CFGFILE", "X")),
    "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM",
]  # fmt: skip
# part of an option's name → values that it takes
FITTING = {
    "chip": ["esp32c3", "esp32c3", "auto", "esp32"],
    "size": ["keep", "detect", "4MB", "256KB", "1MB", "0x1000"],
    "port": ["virtual:esp32c3", "vid=0x303A"],
    "output": ["out.bin", "out2.bin", "folder", "missing/x", "/dev/full"],
    "allow": ["plaintext", "damaged-image", "past-flash-end", "wrong-chip-image"],
    "encrypt-files": ["0x2000 boot.bin", "0x2000"],
    "diff-with": ["boot.bin", "skip"],
    "spi-connection": ["SPI", "HSPI", "6,17,8,11,16"],
    "rev": ["0", "101", "65535"],
    "address": ["0", "0x8000", "0x10000"],
    "offset": ["0", "0x8000", "0xb0"],
    "baud": ["115200", "460800"],
    "config": [
        *(
            "junk.toml",
            "junk.cfg",
            "keys.toml",
            "tables.toml",
            "deep.toml",
            "dots.toml",
            "digits.toml",
            "hexa.toml",
        ),
        *("keys.cfg", "long.cfg"),
    ],
}
CONTENTS = {
    "text.txt": b"no firmware at all\n",
    "empty.bin": b"",
    "bad.hex": b":10000000zz\n",
    "data.hex": b":0430000001020304C2\n:00000001FF\n",
    "table.csv": b"# Name, Type, SubType, Offset, Size\nnvs, data, nvs, 0x9000, 0x6000\nfactory, app, factory, , 64K\n",
    "junk.toml": b"[connect]\nbaud = 'x'\n[\n",
    "junk.cfg": b"[esptool]\ntimeout = soon\nbogus\n\xff",
    "word.txt": b"x" * 100_000,
    "quoted.txt": b"'" + b"a b" * 30_000 + b"'",
    "open.txt": b'"' + b"a b\\" * 20_000,
    "keys.toml": b"[connect]\n" + b"".join(b"key%d = 1\n" % number for number in range(2_000)),
    "tables.toml": b"".join(b"[t%d]\n" % number for number in range(2_000)),
    "deep.toml": b"[connect]\nport = " + b"[" * 50_000,
    "dots.toml": b"connect." + b"a." * 50_000 + b"b = 1\n",
    "digits.toml": b"[connect]\nbaud = " + b"9" * 10_000 + b"\n",
    "hexa.toml": b"[connect]\nbaud = 0x"
    + b"f" * 10_000
    + b"\n[timing]\nsync = 0x"
    + b"f" * 10_000
    + b"\n",
    "keys.cfg": b"[esptool]\n" + b"".join(b"key%d = 1\n" % number for number in range(2_000)),
    "long.cfg": b"[esptool]\na" + b" " * 90_000 + b"b\n",
    "digits.csv": b"nvs, data, nvs, " + b"9" * 900 + b", 0x6000\n",
    "args.txt": b"--chip esp32c3 'a b' --baud\n",
    "loop.txt": b"@loop.txt\n",
    "flasher_args.json": b'{"flash_files": {"0x0": 7, "x": "boot.bin"}}',
    "prog.elf": b"\x7fELF\x01\x01\x01" + bytes(60),
}
