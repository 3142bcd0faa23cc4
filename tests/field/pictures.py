"""What cameras show that are given their frames: bright rectangles on black. Writes a driver's frames into a folder."""

import pathlib
import struct
import sys

WIDTH, HEIGHT = 320, 176
# Left, top, width and height of what is bright.
SHIPS = [(48, 32, 48, 32), (208, 112, 32, 16)]
_BLOCK = 8
# Of ISO/IEC 10918-1, K.3: the codes of the sizes of differences of luminance and of chrominance, and of "no more".
_LUMA = ["00", "010", "011", "100", "101", "110", "1110", "11110", "111110"], "1010"
_CHROMA = ["00", "01", "10", "110", "1110", "11110", "111110", "1111110", "11111110"], "00"


def shown(divisor=1):
    """Ships of the picture by its size; of the same in small where `divisor` is not 1."""
    return {(WIDTH // divisor, HEIGHT // divisor): [tuple(side // divisor for side in ship) for ship in SHIPS]}


def jpeg(divisor=1):
    """In colours, 4:2:2, without Huffman tables, as webcams send it. Blocks are of one value each: nothing is lost."""
    [((width, height), ships)] = shown(divisor).items()
    bits, last = [], 0
    for y in range(0, height, _BLOCK):
        for x in range(0, width, _BLOCK):
            value = 127 if _bright(x, y, ships) else -128
            bits.append(_coded(value - last, _LUMA))
            last = value
            if x % (2 * _BLOCK):
                bits.append(_coded(0, _CHROMA) * 2)
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8))
    components = bytes([1, 0x21, 0, 2, 0x11, 0, 3, 0x11, 0])
    return (
        b"\xff\xd8"
        + _segment(0xDB, b"\0" + bytes([8] * 64))
        + _segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + components)
        + _segment(0xDA, bytes([3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]))
        + scan.replace(b"\xff", b"\xff\0")
        + b"\xff\xd9"
    )


def yuyv(stride):
    """Lines of `stride` bytes. Behind the pixels of each all is bright: read as pixels, it would be seen."""
    [((width, height), ships)] = shown().items()
    lines = []
    for y in range(height):
        pixels = b"".join(bytes([235 if _bright(x, y, ships) else 16, 128]) for x in range(width))
        lines.append(pixels + bytes([235, 128] * ((stride - len(pixels)) // 2)))
    return b"".join(lines)


def _bright(x, y, ships):
    return any(left <= x < left + wide and top <= y < top + tall for left, top, wide, tall in ships)


def _coded(difference, codes):
    sizes, end = codes
    size = abs(difference).bit_length()
    value = difference if difference > 0 else difference + (1 << size) - 1
    return sizes[size] + (f"{value:0{size}b}" if size else "") + end


def _segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpegs():
    """The picture, one that is cut off, and one of another size."""
    whole = jpeg()
    return {"whole": whole, "cut": whole[: len(whole) // 2], "small": jpeg(2)}


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir()
    for name, frame in jpegs().items():
        (folder / name).write_bytes(frame)


if __name__ == "__main__":
    main()
