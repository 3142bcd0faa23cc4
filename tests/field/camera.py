"""Cameras of the kernel's test driver: what `camera.sh` sees while the daemon runs, and the records it leaves."""

import json
import pathlib
import sys

from qemu import Failed, Machine

# Width, height, and how far the bright ones of eight bars reach: white, yellow and cyan have a mean above a half in
# colours, and green has in luma, too.
SOURCES = {
    "yuyv": (640, 360, 240),
    "uyvy": (320, 180, 120),
    "nv12": (640, 480, 240),
    "rgb24": (320, 180, 120),
    "grey": (320, 180, 160),
    "odd": (320, 180, 120),
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
    for source, (width, height, reach) in SOURCES.items():
        for record in by_source[source]:
            if (record["width"], record["height"]) != (width, height):
                raise Failed(f"{source} is {width}x{height}, and its record {record}")
            boxes = [ship["bbox"] for ship in record["ships"]]
            # Where two pixels share a colour, a border may be off by them.
            if len(boxes) != 1 or boxes[0][:2] != [0, 0] or boxes[0][3] != height or abs(boxes[0][2] - reach) > 2:
                raise Failed(f"{source} shows a bright rectangle of {reach}x{height}, and its record {record}")
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
