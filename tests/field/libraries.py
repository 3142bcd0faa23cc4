"""Prints the files of the shared libraries that programs need, of any processor of 64 bits and little endian.

    libraries.py FOLDER[:FOLDER...] PROGRAM...
"""

import pathlib
import struct
import sys

_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS = 1, 5


def needed(path):
    """Names of what a file says it needs, by the ELF specification's program headers and dynamic section."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        sys.exit(f"{path} is no program of 64 bits and little endian")
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<II6Q", data, start + place * size) for place in range(count)]
    entries = []
    for kind, _, offset, _, _, length, _, _ in headers:
        if kind == _DYNAMIC:
            entries = list(struct.iter_unpack("<QQ", data[offset : offset + length]))
    for address in (value for tag, value in entries if tag == _STRINGS):
        for kind, _, offset, loaded_at, _, length, _, _ in headers:
            if kind == _LOAD and loaded_at <= address < loaded_at + length:
                strings = address - loaded_at + offset
    for name in (strings + value for tag, value in entries if tag == _NEEDED):
        yield data[name : data.index(0, name)].decode()


def main():
    folders = [pathlib.Path(folder) for folder in sys.argv[1].split(":")]
    files = [pathlib.Path(program) for program in sys.argv[2:]]
    libraries = {}
    while files:
        for name in needed(files.pop()):
            if name not in libraries:
                found = [folder / name for folder in folders if (folder / name).exists()]
                if not found:
                    sys.exit(f"no {name} in {sys.argv[1]}")
                libraries[name] = found[0]
                files.append(found[0])
    print(*libraries.values(), sep="\n")


if __name__ == "__main__":
    main()
