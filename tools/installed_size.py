"""Print the disk space of an environment's packages without pip; fail above 15 MB."""

import sys
from pathlib import Path

MOST_BYTES = 15_000_000
OWN = ("pip", "setuptools", "wheel", "_distutils_hack", "distutils-precedence", "pkg_resources")


def main(environment: str) -> int:
    (packages,) = {path.resolve() for path in Path(environment).glob("[Ll]ib*/**/site-packages")}
    sizes = {
        entry.name: sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
        if entry.is_dir()
        else 0
        for entry in packages.iterdir()
        if not entry.name.startswith(OWN) and entry.name != "__pycache__"
    }
    total = sum(sizes.values())
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:6]
    print(f"installed: {total:,} bytes; " + ", ".join(f"{name} {size:,}" for name, size in largest))
    return int(total > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
