"""Power cuts of a daemon whose fsync and fdatasync do nothing: `cuts` must find that lines are lost."""

import os
import pathlib
import sys
import time

from cuts import Trial
from qemu import Failed, Lost


def main():
    work = pathlib.Path(sys.argv[1])
    seed = int(os.environ.get("FIELD_SEED", time.time_ns() % 10**9))
    trial = Trial(work / "control-trial", work / "cuts.initramfs", seed, unsynced=True)
    try:
        trial.run(4)
    except Lost as loss:
        print(f"as it must be without fsync: {loss}")
        return
    except Failed as failure:
        sys.exit(f"FAILED: {failure}")
    sys.exit(f"FAILED: nothing is lost without fsync, so the test of power cuts shows nothing; FIELD_SEED={seed}")


if __name__ == "__main__":
    main()
