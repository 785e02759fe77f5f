"""The monitor: CPU time at 2 Mbaud, speed of `decode`, and the time to the first decoded line, with an ELF of 20 MB.

The ELF file is compiled here by Debian's gcc-riscv64-unknown-elf; without it, only the first figures are measured. The
times are of whole processes, with Python's start. Load of the machine by others counts against the time, not the CPU time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from measure import ENVIRONMENT, ESPWIRE, run

RATE = 200_000  # bytes per second at 2 Mbaud
SECONDS = 10
LOG_BYTES = 100_000_000
UNITS = 360
GCC, LD = "riscv64-unknown-elf-gcc", "riscv64-unknown-elf-ld"
BASE = 0x42000000


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        decode_log(folder)
        elf = make_elf(folder)
        address = BASE + 0x4000
        keep_up(
            b"I (12345) wifi: connected to the access point, channel 6, bssid 00:11:22\r\n",
            "no addresses",
            (),
        )
        if elf is None:
            print(f"monitor: no {GCC} here: times with an ELF file are not measured")
            return
        line = b"I (12345) app: callback is 0x%08x, state 3, channel 6, tries 1\r\n" % address
        keep_up(line, "an address in each line", ("--elf", str(elf)))
        first_line(folder, elf, address)


def decode_log(folder: Path) -> None:
    """How fast a log without a crash passes."""
    line = b"I (12345) wifi: connected to the access point, channel 6, bssid 00:11:22\n"
    log = folder / "log.txt"
    log.write_bytes(line * (LOG_BYTES // len(line)))
    done = run([*ESPWIRE, "decode", str(log), "-o", str(folder / "out.txt")])
    wall, cpu = LOG_BYTES / done.wall / 1e6, LOG_BYTES / done.cpu / 1e6
    print(f"decode: {wall:.0f} MB/s, {cpu:.0f} MB per second of CPU, without matches (goal: 20)")
    log.unlink()


def keep_up(line: bytes, what: str, options: tuple[str, ...]) -> None:
    """The share of a core that the monitor needs at 2 Mbaud."""
    import pty
    import tty

    master, slave = pty.openpty()
    tty.setraw(slave)
    command = [*ESPWIRE, "--no-state", "-p", os.ttyname(slave), "monitor", "--no-input", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while b"baud" not in process.stderr.readline():
            pass
        threading.Thread(target=process.stderr.read, daemon=True).start()
        received: list[int] = []
        stdout = process.stdout
        reader = threading.Thread(
            target=lambda: received.extend(
                len(data) for data in iter(lambda: os.read(stdout.fileno(), 65536), b"")
            ),
        )
        reader.start()
        before = cpu_time(process.pid)
        start = time.perf_counter()
        piece = line * (RATE // 50 // len(line))
        sent = 0
        while (passed := time.perf_counter() - start) < SECONDS:
            while sent < passed * RATE:
                sent += os.write(master, piece)
            time.sleep(0.005)
        time.sleep(0.5)
        used = cpu_time(process.pid) - before
        process.terminate()
        reader.join()
    os.close(master)
    os.close(slave)
    lost = sent // len(line) - sum(received) // (len(line) - 1)
    print(
        f"monitor at 2 Mbaud, {what}: {used / SECONDS:.0%} of a core (goal: 30 %), {max(lost, 0)} lines late"
    )


def cpu_time(process: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_elf(folder: Path) -> Path | None:
    """A program of many units with debug information, about 20 MB; None: no compiler."""
    if shutil.which(GCC) is None:
        return None
    source = folder / "unit.c"
    types = "".join(
        f"struct s{n} {{ int a{n}; struct s{n} *next{n}; unsigned char data{n}[{n + 1}]; }};\n"
        f"typedef struct s{n} t{n};\n"
        for n in range(250)
    )
    functions = "".join(
        f"static inline int i{n}(t{n} *x) {{ return x->a{n} + {n}; }}\n"
        f"int NAME(f{n})(t{n} *x, int y) {{ for (int k = 0; k < y; k++) y += i{n}(x) * k; return y; }}\n"
        for n in range(40)
    )
    source.write_text(
        f"#define CAT(a, b) a##b\n#define CAT2(a, b) CAT(a, b)\n#define NAME(x) CAT2(x, UNIT)\n{types}{functions}"
    )
    objects = []
    for n in range(UNITS):
        target = folder / f"{n}.o"
        if n < 4:
            flags = ["-march=rv32imc", "-mabi=ilp32", "-O2", "-g", "-c", f"-DUNIT=_{n}"]
            subprocess.run([GCC, *flags, str(source), "-o", str(target)], check=True)
        else:  # the same unit again, with other names: quicker than compiling it
            subprocess.run(
                [
                    "riscv64-unknown-elf-objcopy",
                    "--prefix-symbols",
                    f"u{n}_",
                    str(folder / f"{n % 4}.o"),
                    str(target),
                ],
                check=True,
            )
        objects.append(str(target))
    elf = folder / "app.elf"
    subprocess.run(
        [LD, "-m", "elf32lriscv", "-Ttext", hex(BASE), "-e", "0", *objects, "-o", str(elf)],
        check=True,
    )
    print(f"monitor: an ELF file of {elf.stat().st_size / 1e6:.0f} MB, {UNITS} units")
    return elf


def first_line(folder: Path, elf: Path, address: int) -> None:
    """Time from the start of the program to the first decoded line, without and with the cache."""
    import pty
    import tty

    environment = ENVIRONMENT | {"XDG_STATE_HOME": str(folder / "state")}
    for what, goal, repeat in (("first start", 1.5, 1), ("from the cache", 0.3, 3)):
        times = []
        for _ in range(repeat):
            master, slave = pty.openpty()
            tty.setraw(slave)
            start = time.perf_counter()
            with subprocess.Popen(
                [*ESPWIRE, "-p", os.ttyname(slave), "monitor", "--no-input", "--elf", str(elf)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
            ) as process:
                assert process.stderr is not None
                while b" baud" not in process.stderr.readline():
                    pass
                os.write(master, b"abort() was called at PC 0x%08x on core 0\r\n" % address)
                while b"unit.c:" not in process.stderr.readline():
                    pass
                times.append((time.perf_counter() - start, cpu_time(process.pid)))
                process.terminate()
                process.stderr.read()
            os.close(master)
            os.close(slave)
        print(
            f"monitor, first decoded line, {what}: {min(times)[0]:.2f} s, {min(cpu for _, cpu in times):.2f} s of CPU (goal: {goal})"
        )


if __name__ == "__main__":
    main()
