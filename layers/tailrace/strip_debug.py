#!/usr/bin/env python3
"""Drops from every shared object under a folder what is never loaded: debug information and symbols.

Some wheels carry more of it than code (10 of 47 MB, aiohttp alone 5). `strip` from binutils knows only the
architecture it was built for, and the layer is built for arm64 on any machine. The dynamic loader reads
program headers only, so this keeps the file up to the end of the last segment and drops the section table.
"""

import struct
import sys
from pathlib import Path

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")  # Elf64_Ehdr, little endian (elf(5))
SEGMENT = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr
MAGIC = b"\x7fELF\x02\x01"  # 64 bit, little endian: arm64 and x86_64


def stripped(data: bytes) -> bytes:
    """The same shared object, without what no segment covers."""
    if not data.startswith(MAGIC):
        raise ValueError("not a 64-bit little-endian ELF file")
    header = list(HEADER.unpack_from(data))
    table, entry_size, count = header[5], header[9], header[10]
    end = table + entry_size * count
    for number in range(count):
        _, _, offset, _, _, size, _, _ = SEGMENT.unpack_from(data, table + number * entry_size)
        end = max(end, offset + size)
    header[6] = header[12] = header[13] = 0  # e_shoff, e_shnum, e_shstrndx: there is no section table
    return HEADER.pack(*header) + data[HEADER.size : end]


def main(folder: str) -> None:
    """Strip every ``*.so`` and ``*.so.*`` below the folder, in place."""
    for path in sorted(Path(folder).rglob("*.so*")):
        path.write_bytes(stripped(path.read_bytes()))


if __name__ == "__main__":
    main(sys.argv[1])
