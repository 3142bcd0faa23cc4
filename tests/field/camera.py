"""Cameras that show known pictures: what `camera.sh` sees while the daemon runs, and the records that it leaves."""

import collections
import json
import pathlib
import sys
import tempfile

import pictures
from qemu import Failed, Machine
from redirection import Port
from webcam import Format, Webcam


def bars(width, height, bright):
    """What of eight bars is bright, as boxes. Those that touch are one ship."""
    return {(width, height): [(left * width // 8, 0, (right - left) * width // 8, height) for left, right in bright]}


# White, yellow, cyan and magenta have a mean above a half in colours; in luma white, yellow, cyan and green do.
COLOURS, LUMA = [(0, 3), (4, 5)], [(0, 4)]
# What each source shows: boxes by the size of the frame.
SOURCES = {
    "yuyv": bars(640, 360, COLOURS),
    "uyvy": bars(320, 180, COLOURS),
    "nv12": bars(320, 180, COLOURS),
    "rgb24": bars(320, 180, COLOURS),
    "grey": bars(320, 180, LUMA),
    "odd": bars(320, 180, COLOURS),
    "mjpeg": pictures.shown() | pictures.shown(2),
    "webcam": pictures.shown(),
    "padded": pictures.shown(),
}


def near(box, expected):
    """Where pixels share a colour, a border may be off by them; but not the edge of the frame."""
    (x, y, wide, tall), (left, top, width, height) = box, expected
    return abs(x - left) <= 2 and abs(x + wide - left - width) <= 2 and (y, tall) == (top, height)


def check(lines):
    records = [json.loads(line) for line in lines]
    ids = [record["id"] for record in records]
    names = [record["frame"] for record in records]
    if len(set(ids)) < len(ids) or len(set(names)) < len(names):
        raise Failed("two records have one number or one name")
    frames = collections.Counter()
    for record in records:
        source, size = record["frame"].split("-")[0], (record["width"], record["height"])
        boxes, expected = sorted(ship["bbox"] for ship in record["ships"]), SOURCES[source].get(size)
        if expected is None or len(boxes) != len(expected) or not all(map(near, boxes, expected)):
            raise Failed(f"{source} shows {SOURCES[source]}, and its record is {record}")
        frames[source, size] += 1
    for (source, (width, height)), count in sorted(frames.items()):
        print(f"{source}: {count} frames of {width}x{height}")


def usb(name, folder, *formats):
    """A port for a USB camera."""
    return Port(name, folder / name, Webcam(name, formats))


def trial(work):
    [size], [small] = pictures.shown(), pictures.shown(2)
    compressed = list(pictures.jpegs().values())
    # 20 bits per pixel, of which 16 are used.
    padded = [pictures.yuyv(size[0] * 20 // 8)]
    # Paths of sockets are short.
    with tempfile.TemporaryDirectory() as sockets:
        sockets = pathlib.Path(sockets)
        webcam = usb("webcam", sockets, Format({small: compressed, size: compressed}))
        others = usb("padded", sockets, Format({size: padded}, bits=20))
        devices = ["-device", "qemu-xhci", *webcam.arguments(), *others.arguments()]
        with Machine(work / "camera-trial", work / "camera.initramfs", devices=devices) as machine:
            webcam.plug()
            others.plug()
            machine.wait_for("PULL OUT")
            webcam.unplug()
            machine.wait_for("PLUG IN")
            webcam.plug()
            machine.wait_for("ENDED")
            machine.wait(lambda: machine.process.poll() is not None, "the end")
            for event in machine.read("events"):
                print(event)
            check(machine.read("data"))


def kernel_failed(work):
    """Linux 6.1 may fail by itself as a camera that is open is pulled out. What it said is kept."""
    failed = work / "camera-trial"
    if b"Unable to handle kernel" not in (failed / "console").read_bytes():
        return False
    failed.rename(work / "camera-kernel")
    return True


def main():
    work = pathlib.Path(sys.argv[1])
    try:
        try:
            trial(work)
        except Failed as failure:
            if not kernel_failed(work):
                raise
            print(f"the kernel failed, and all is tried once more: {failure}")
            trial(work)
    except Failed as failure:
        sys.exit(f"FAILED: {failure}")


if __name__ == "__main__":
    main()
