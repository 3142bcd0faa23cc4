"""Power cuts while images come in. What a reader has seen stays; in the end each image has exactly one line."""

import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import images
from disk import Disk, Server
from qemu import Failed, Lost, Machine

MEGABYTES = 96
CUTS = {"kept": Disk.keep_all, "lost": Disk.lose_all, "reordered": Disk.reorder}
# In turn.
KINDS = ["reordered", "kept", "lost", "kept"]


class Trial:
    # Where the outputs lie on the disk.
    out = "/out"

    def __init__(self, folder, initramfs, seed, unsynced=False):
        self.folder = folder
        self.folder.mkdir()
        self.initramfs = initramfs
        self.random = random.Random(seed)
        self.options = "unsynced=1" if unsynced else ""
        self.disk = Disk(self.formatted())
        # Lines in the order in which they were seen, and images that are on the disk for good.
        self.seen = []
        self.dropped = set()
        self.next = 0
        self.boots = 0

    def run(self, count):
        """So many cuts, half of them of a disk that loses nothing, the others of one that loses or reorders."""
        for number in range(count):
            self.cut(KINDS[number % 4], f"finished={['move', 'delete'][number // 2 % 2]}")
        self.finish("finished=move")

    def formatted(self):
        """An empty file system, with the smallest journal, which is soon full."""
        path = self.folder / "disk"
        path.write_bytes(b"")
        os.truncate(path, MEGABYTES << 20)
        made = tool("sbin/mke2fs", "-q", "-t", "ext4", "-b", 4096, "-J", "size=4", "-E", "lazy_itable_init=0", path)
        if made.returncode:
            raise Failed("mke2fs failed")
        return path.read_bytes()

    def boot(self, options):
        self.boots += 1
        folder = self.folder / f"boot-{self.boots}"
        folder.mkdir()
        # Paths of sockets are short.
        self.socket = pathlib.Path(tempfile.mkdtemp()) / "disk"
        self.server = Server(self.disk, self.socket)
        self.disk.power()
        # Centiseconds until the kernel writes what no one has asked it to; by default it takes half a minute.
        writeback = self.random.choice([5, 50, 500])
        options = f"{options} {self.options} writeback={writeback}"
        return Machine(folder / "machine", self.initramfs, options, self.socket)

    def off(self, machine):
        machine.kill()
        self.server.end()
        self.socket.unlink()
        self.socket.parent.rmdir()

    def cut(self, kind, options):
        """Boots, cuts the power at a random moment, and leaves the disk as it then may be."""
        machine = self.boot(f"{options} first={self.next}")
        try:
            self.moment(machine)
            if kind != "kept" or self.random.random() < 0.5:
                # It is when the most is at stake.
                self.disk.stop_at_flush.set()
                machine.wait(self.disk.stopped.is_set, "a flush", 0.005)
            lines = len(machine.read("data"))
        finally:
            self.off(machine)
        self.take(machine)
        flushes, pending = self.disk.flushes, len(self.disk.unflushed)
        CUTS[kind](self.disk, self.random)
        print(
            f"cut {self.boots}: {kind}, {options}; {pending} blocks unflushed after {flushes} flushes,"
            f" {lines} lines seen, {len(self.dropped)} images on the disk for good",
            flush=True,
        )

    def moment(self, machine):
        """Waits until a random number of lines more were seen, or for a moment of the recovery before there are any."""
        if self.random.random() < 0.25:
            machine.wait(lambda: machine.read("events"), "the first event")
        else:
            machine.wait_for("UP")
            more = self.random.randint(1, 25)
            machine.wait(lambda: len(machine.read("data")) >= len(self.seen) + more, f"{more} more lines", 0.005)
        time.sleep(self.random.uniform(0, 0.5))

    def take(self, machine):
        """What was seen of this boot must go on from what was seen before."""
        lines = machine.read("data")
        for place, (was, is_) in enumerate(zip(self.seen, lines)):
            if was != is_:
                raise Lost(f"line {place + 1} was\n  {was}\nand after the cut is\n  {is_}\n{machine.folder}")
        self.seen += lines[len(self.seen) :]
        numbers = [int(event.split()[1]) for event in machine.read("events") if event.startswith("DROPPED")]
        self.dropped.update(numbers)
        # One more may have been on its way to the disk.
        self.next = max([self.next, *(number + 1 for number in numbers)]) + 1

    def finish(self, options):
        """Boots once more, lets the daemon do what is left, and looks at all that is on the disk."""
        self.to_the_end(options)
        (self.folder / "disk").write_bytes(self.disk.image)
        check = tool("sbin/e2fsck", "-fn", self.folder / "disk")
        if check.returncode:
            raise Lost(f"the file system is damaged:\n{check.stdout}")
        self.check()

    def to_the_end(self, options):
        """Boots, and lets the machine shut down by itself."""
        machine = self.boot(options)
        try:
            machine.wait_for("ENDED")
            machine.wait(lambda: machine.process.poll() is not None, "the end")
        finally:
            self.off(machine)
        self.take(machine)
        # Of a disk that was told to flush before it went off nothing is lost.
        self.disk.lose_all(self.random)

    def check(self):
        lines = self.file("detections.jsonl")
        if lines[: len(self.seen)] != self.seen:
            raise Lost("lines that were seen are not in the file")
        records = [json.loads(line) for line in lines]
        once("id", [record["id"] for record in records])
        frames = [record["frame"] for record in records]
        once("frame", frames)
        if missing := {f"{number}.png" for number in self.dropped} - set(frames):
            raise Lost(f"no line of {', '.join(sorted(missing))}")
        for record in records:
            expected = self.run_lengths(record["frame"])
            if [ship["rle"] for ship in record["ships"]] != expected:
                raise Lost(f"{record['frame']} has the ships {record['ships']}, not {expected}")
        self.check_csv(frames)
        print(f"{len(records)} lines of {len(self.dropped)} images that were on the disk for good", flush=True)

    def check_csv(self, frames):
        rows = collections.defaultdict(list)
        for line in self.file("detections.csv")[1:]:
            name, run_lengths = line.split(",", 1)
            rows[name].append(run_lengths)
        for frame in frames:
            expected = self.run_lengths(frame)
            if (found := rows.pop(frame, None)) != expected:
                raise Lost(f"{frame} has the rows {found} in the CSV, not {expected}")
        if rows:
            raise Lost(f"the CSV alone has {', '.join(rows)}")

    def run_lengths(self, frame):
        """Those of the ships that it shows."""
        return [images.run_lengths(int(frame.removesuffix(".png")))]

    def file(self, name):
        found = tool("sbin/debugfs", "-R", f"cat {self.out}/{name}", self.folder / "disk")
        return found.stdout.splitlines()


def once(what, values):
    doubled = [value for value, count in collections.Counter(values).items() if count > 1]
    if doubled:
        raise Lost(f"more than one {what} {doubled}")


def tool(name, *arguments):
    """A program of the packages."""
    root = os.environ["FIELD_ROOT"]
    loader = f"{root}/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    libraries = f"{root}/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu"
    command = [loader, "--library-path", libraries, f"{root}/{name}", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def main(trial, name):
    work = pathlib.Path(sys.argv[1])
    count = int(os.environ.get("FIELD_CUTS", 20))
    seed = int(os.environ.get("FIELD_SEED", time.time_ns() % 10**9))
    print(f"FIELD_SEED={seed}, FIELD_CUTS={count}", flush=True)
    try:
        trial(work / f"{name}-trial", work / f"{name}.initramfs", seed).run(count)
    except Failed as failure:
        sys.exit(f"FAILED: {failure}")


if __name__ == "__main__":
    main(Trial, "cuts")
