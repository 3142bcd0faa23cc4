"""The package on a machine with Debian's systemd: it is installed and tried, and then power is cut while both a camera
and another user give it frames. The disk that loses what was not flushed is that of the whole system."""

import json
import os
import pathlib
import sqlite3
import time

from cuts import KINDS, Trial, main, tool
from qemu import Lost

STATE = "/var/lib/shipwatch"
SCENE = "algiers-roads.png"
# What the models that are part of the program find on it on every processor.
GOLDEN = pathlib.Path(__file__).parent.parent / "fixtures/golden/algiers-roads.csv"
WIDTH, HEIGHT = 320, 180
# Which of the eight bars that the camera sees are bright (see camera.py).
BARS = [(0, 3), (4, 5)]


class System(Trial):
    out = STATE

    def formatted(self):
        """With the system on it."""
        return self.folder.with_name("service.image").read_bytes()

    def run(self, count):
        self.to_the_end("part=install")
        self.sound()
        for number in range(count):
            self.cut(KINDS[number % 4], "part=cut")
            self.sound()
        self.finish("part=finish")

    def moment(self, machine):
        """Waits for a moment of the boot, or until both sources have given a random number of frames."""
        start = len(self.seen)
        if self.random.random() < 0.25:
            machine.wait_for("MOUNTED")
            time.sleep(self.random.uniform(0, 20))
        else:
            more = self.random.randint(1, 15)

            def flowing():
                names = [json.loads(line)["frame"] for line in machine.read("data")[start:]]
                camera = sum(name.startswith("deck-") for name in names)
                return min(camera, len(names) - camera) >= more

            machine.wait_for("STEADY")
            machine.wait(flowing, f"{more} more lines of either source", 0.02)
            time.sleep(self.random.uniform(0, 0.5))

    def take(self, machine):
        super().take(machine)
        if damage := [line for line in machine.read("console") if "EXT4-fs error" in line]:
            raise Lost(f"{damage[0]}: {machine.path('console')}")

    def sound(self):
        """The file system has no damage that its journal does not mend."""
        image = self.folder / "disk"
        image.write_bytes(self.disk.image)
        mended = tool("sbin/e2fsck", "-fp", image)
        if mended.returncode > 1:
            raise Lost(f"the file system is damaged:\n{mended.stdout}")

    def check(self):
        super().check()
        records = {record["id"]: record for record in map(json.loads, self.file("detections.jsonl"))}
        self.check_ledger(records)
        frames = {record["frame"] for record in records.values()}
        camera = {frame for frame in frames if frame.startswith("deck-")}
        listed = tool("sbin/debugfs", "-R", f"ls -p {STATE}/done", self.folder / "disk").stdout.splitlines()
        moved = {line.split("/")[5] for line in listed if line} - {".", ".."}
        if moved != frames - camera:
            raise Lost(f"of {', '.join(moved ^ (frames - camera))} there is a line or a file that was moved, not both")
        print(f"{len(camera)} of them are of the camera", flush=True)

    def check_csv(self, frames):
        # It was not asked for when the first was done.
        super().check_csv([frame for frame in frames if frame != SCENE])

    def check_ledger(self, records):
        path = self.folder / "ledger"
        for ending in ["", "-wal"]:
            tool("sbin/debugfs", "-R", f"dump {STATE}/detections.ledger{ending} {path}{ending}", self.folder / "disk")
        with sqlite3.connect(path) as ledger:
            if (verdict := ledger.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                raise Lost(f"the ledger is damaged: {verdict}")
            kept = {number: json.loads(text) for number, text in ledger.execute("SELECT frame, json FROM record")}
        if kept != records:
            differ = [number for number in kept | records if kept.get(number) != records.get(number)]
            raise Lost(f"the ledger and the lines differ in {differ}")

    def run_lengths(self, frame):
        if frame.startswith("deck-"):
            return [
                f"{left * WIDTH // 8 * HEIGHT + 1} {(right - left) * WIDTH // 8 * HEIGHT}" for left, right in BARS
            ]
        if frame == SCENE:
            return [line.split(",")[1] for line in GOLDEN.read_text().splitlines()[1:]]
        return super().run_lengths(frame)


if __name__ == "__main__":
    main(System, "service")
