"""esptool 5's documented functions on images, without a chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esptool.logger import log
from esptool.util import (
    FatalError,
    ImageSource,
    NotSupportedError,
    name_source,
    read_source,
    translated,
)
from espwire.chips.registry import load_chip, parse_chip_id
from espwire.image.header import HeaderSettings, parse_size

if TYPE_CHECKING:
    from espwire.image.elf2image import ElfOptions


@translated
def elf2image(
    input: ImageSource,
    chip: str,
    output: str | None = None,
    flash_freq: str | None = None,
    flash_mode: str = "qio",
    flash_size: str = "1MB",
    **kwargs: Any,
) -> bytes | tuple[bytes | None, bytes] | None:
    """An image from an ELF file: returned, or written to ``output``. Version 1 of the ESP8266 gives two.

    :param kwargs: ``version``, ``min_rev``, ``min_rev_full``, ``max_rev_full``, ``secure_pad``, ``secure_pad_v2``,
        ``elf_sha256_offset``, ``append_digest``, ``use_segments``, ``flash_mmu_page_size``,
        ``pad_to_size``, ``ram_only_header``
    """
    from espwire.files import write_file
    from espwire.image.elf2image import convert_elf

    settings = HeaderSettings(mode=flash_mode, size=flash_size, frequency=flash_freq or "keep")
    files = convert_elf(
        read_source(input), load_chip(parse_chip_id(chip)), _elf_options(kwargs, settings)
    )
    if output is not None:
        for file in files:
            write_file(output if len(files) == 1 else f"{output}{file.name}", file.data)
        return None
    return files[0].data if len(files) == 1 else (files[0].data, files[1].data)


def _elf_options(given: dict[str, Any], settings: HeaderSettings) -> ElfOptions:
    """
    :raises NotSupportedError: a keyword that nobody knows
    """
    from espwire.image.elf2image import ElfOptions

    left = dict(given)
    pad = 2 if left.pop("secure_pad_v2", False) else 1 if left.pop("secure_pad", False) else 0
    left.pop("secure_pad", None)
    names = {
        "min_rev": "min_revision_legacy",
        "min_rev_full": "min_revision",
        "max_rev_full": "max_revision",
        "elf_sha256_offset": "digest_offset",
        "flash_mmu_page_size": "mmu_page_size",
    }
    known = ("version", "append_digest", "use_segments", "pad_to_size", "ram_only_header")
    values: dict[str, Any] = {
        names.get(key, key): value for key, value in left.items() if value is not None
    }
    for key in left:
        if key not in names and key not in known:
            raise NotSupportedError(f"elf2image does not take {key}")
    for key in ("mmu_page_size", "pad_to_size"):
        if isinstance(values.get(key), str):
            values[key] = parse_size(values[key])
    if "version" in values:
        values["version"] = int(values["version"])
    return ElfOptions(settings=settings, secure_pad=pad, **values)  # type: ignore[arg-type]  # 0, 1 or 2


@translated
def merge_bin(
    addr_data: list[tuple[int, ImageSource]],
    chip: str,
    output: str | None = None,
    flash_freq: str = "keep",
    flash_mode: str = "keep",
    flash_size: str = "keep",
    format: str = "raw",
    **kwargs: Any,
) -> bytes | None:
    """One file of several: returned (``raw`` only), or written to ``output``.

    :param kwargs: ``target_offset``, ``pad_to_size``, ``chunk_size``, ``md5_disable``
    """
    from espwire.blob import Blob
    from espwire.files import write_file
    from espwire.image.merge import MergeOptions, merge_blobs

    unknown = kwargs.keys() - {"target_offset", "pad_to_size", "chunk_size", "md5_disable"}
    if unknown:
        raise NotSupportedError(f"merge_bin does not take {min(unknown)}")
    if output is None and format != "raw":
        raise FatalError(f"merge_bin needs an output file for the format {format}")
    pad = kwargs.get("pad_to_size")
    options = MergeOptions(
        format=format,  # type: ignore[arg-type]  # merge_blobs rejects others
        target_offset=int(kwargs.get("target_offset") or 0),
        pad_to_size=parse_size(pad) if isinstance(pad, str) else pad,
        chunk_size=kwargs.get("chunk_size"),
        md5=not kwargs.get("md5_disable", False),
        settings=HeaderSettings(mode=flash_mode, size=flash_size, frequency=flash_freq),
    )
    blobs = [
        Blob(address, read_source(source), name_source(source)) for address, source in addr_data
    ]
    merged = merge_blobs(blobs, load_chip(parse_chip_id(chip)), options)
    if output is None:
        return merged.data
    write_file(output, merged.data)
    return None


@translated
def image_info(input: ImageSource, chip: str | None = None) -> None:
    """Print what an image holds.

    :raises FatalError: something in it is wrong
    """
    from espwire.cli.image_text import draw_file
    from espwire.image.inspect import inspect_bytes

    named = None if chip is None or chip == "auto" else load_chip(parse_chip_id(chip))
    found = inspect_bytes(read_source(input), name_source(input), named, format="esptool")
    log.print(draw_file(found))
    if not found.intact:
        raise FatalError(f"{found.name} is damaged: {found.problems[0]}")
