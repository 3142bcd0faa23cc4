"""Cameras of the kernel's test driver: what `camera.sh` sees while the daemon runs, and the records it leaves."""

import json
import pathlib
import sys

from qemu import Failed, Machine

# Width, height, and which of eight bars are bright: white, yellow, cyan and magenta have a mean above a half in colours,
# in luma white, yellow, cyan and green do. Those that touch are one ship.
SOURCES = {
    "yuyv": (640, 360, [(0, 3), (4, 5)]),
    "uyvy": (320, 180, [(0, 3), (4, 5)]),
    "nv12": (320, 180, [(0, 3), (4, 5)]),
    "rgb24": (320, 180, [(0, 3), (4, 5)]),
    "grey": (320, 180, [(0, 4)]),
    "odd": (320, 180, [(0, 3), (4, 5)]),
}


def check(lines):
    records = [json.loads(line) for line in lines]
    ids = [record["id"] for record in records]
    names = [record["frame"] for record in records]
    if len(set(ids)) < len(ids) or len(set(names)) < len(names):
        raise Failed("two records have one number or one name")
    by_source = {source: [] for source in SOURCES}
    for record in records:
        by_source[record["frame"].split("-")[0]].append(record)
    for source, (width, height, bars) in SOURCES.items():
        expected = [(left * width // 8, right * width // 8) for left, right in bars]
        for record in by_source[source]:
            boxes = sorted(ship["bbox"] for ship in record["ships"])
            # Where pixels share a colour, a border may be off by them.
            if (record["width"], record["height"]) != (width, height) or not (
                len(boxes) == len(expected)
                and all(
                    (y, tall) == (0, height) and abs(x - left) <= 2 and abs(x + wide - right) <= 2
                    for (x, y, wide, tall), (left, right) in zip(boxes, expected)
                )
            ):
                raise Failed(f"{source} shows bright bars {expected} on {width}x{height}, and its record is {record}")
        print(f"{source}: {len(by_source[source])} frames of {width}x{height}")


def main():
    work = pathlib.Path(sys.argv[1])
    try:
        with Machine(work / "camera-trial", work / "camera.initramfs") as machine:
            machine.wait_for("ENDED")
            machine.wait(lambda: machine.process.poll() is not None, "the end")
            for event in machine.read("events"):
                print(event)
            check(machine.read("data"))
    except Failed as failure:
        sys.exit(f"FAILED: {failure}")


if __name__ == "__main__":
    main()
