"""A virtual machine that boots from memory, and what it says."""

import os
import pathlib
import subprocess
import time

# Seconds without an event: far more than anything takes on a slow machine.
PATIENCE = 600


class Failed(Exception):
    """What was tested does not hold."""


class Lost(Failed):
    """What was on the disk for good is not there, or there twice."""


class Machine:
    """A machine whose serial ports are files in `folder`: `console`, `events` (what its script says), `data`."""

    def __init__(self, folder, initramfs, options="", disk=None, devices=()):
        root = os.environ["FIELD_ROOT"]
        usr = f"{root}/usr"
        emulator, *processor = os.environ["FIELD_QEMU"].split()
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        command = [
            f"{root}/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "--library-path",
            f"{root}/lib/x86_64-linux-gnu:{usr}/lib/x86_64-linux-gnu",
            *(f"{usr}/bin/{emulator}", *processor),
            *("-L", f"{usr}/share/qemu", "-L", f"{usr}/share/seabios"),
            *("-accel", "tcg,thread=multi", "-smp", "2", "-m", "640"),
            *("-nodefaults", "-no-reboot", "-display", "none"),
            *("-kernel", os.environ["FIELD_KERNEL"], "-initrd", str(initramfs)),
            # Where others compute, too, Linux on x86-64 finds at times that no timer ticks, and gives up.
            *("-append", f"console=ttyS0 panic=-1 no_timer_check {options}"),
        ]
        for name in ["console", "events", "data"]:
            self.path(name).touch()
            command += ["-chardev", f"file,id={name},path={self.path(name)}"]
            command += ["-device", f"{os.environ['FIELD_SERIAL']},chardev={name}"]
        if disk:
            drive = f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={disk},if=none,id=disk,cache=writeback"
            device = "virtio-blk-pci,drive=disk,logical_block_size=4096,physical_block_size=4096"
            command += ["-drive", drive, "-device", device]
        command += devices
        environment = os.environ | {"QEMU_MODULE_DIR": f"{usr}/lib/x86_64-linux-gnu/qemu"}
        self.said = open(self.path("qemu"), "wb")
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def path(self, name):
        return self.folder / name

    def read(self, name):
        """The whole lines that came from a port."""
        text = self.path(name).read_text(errors="replace")
        return text[: text.rfind("\n") + 1].splitlines()

    def kill(self):
        """SIGKILL: what the machine has in memory is gone."""
        self.process.kill()
        self.process.wait()
        self.said.close()

    def wait(self, condition, what, pause=0.05):
        """Waits until `condition()` holds; its value."""
        start, said = time.monotonic(), 0
        while True:
            value = condition()
            events = self.read("events")
            if len(events) > said:
                start, said = time.monotonic(), len(events)
            for line in events:
                if line.startswith(("FAILED", "LOST")):
                    failure = Lost if line.startswith("LOST") else Failed
                    raise failure(f"{line}; {self.path('console')}")
            if value:
                return value
            if self.process.poll() is not None:
                # It may have said so and ended in between.
                if value := condition():
                    return value
                raise Failed(f"the machine ended before {what}: {self.path('console')}")
            if time.monotonic() - start > PATIENCE:
                raise Failed(f"in vain for {what}: {self.path('console')}")
            time.sleep(pause)

    def wait_for(self, event):
        return self.wait(lambda: event in self.read("events"), event)
