"""Images that each show one white rectangle on black, of which it is known what is to be found."""

import pathlib
import struct
import sys
import zlib

WIDTH, HEIGHT = 96, 80


def rectangle(number):
    """Left, top, width, height of the rectangle of an image: no two numbers below 32760 share all."""
    left, rest = number % 63, number // 63
    top, size = rest % 52, rest // 52
    return left, top, 9 + (number % 7) * 3, 5 + size * 2


def run_lengths(number):
    """As the Airbus challenge writes masks: start and length, from 1, down the columns."""
    left, top, width, height = rectangle(number)
    starts = (column * HEIGHT + top + 1 for column in range(left, left + width))
    return " ".join(f"{start} {height}" for start in starts)


def png(number):
    left, top, width, height = rectangle(number)
    black = bytes(1 + WIDTH)
    row = bytes(1 + left) + b"\xff" * width + bytes(WIDTH - left - width)
    rows = black * top + row * height + black * (HEIGHT - top - height)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir()
    for number in range(4000):
        (folder / f"{number}.png").write_bytes(png(number))


if __name__ == "__main__":
    main()
