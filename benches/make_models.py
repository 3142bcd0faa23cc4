"""Networks of sizes that models/ has not, for benches/peers.py: MobileNetV2 of width 0.75 at 224.

    make bench-models
    python benches/make_models.py --train target/release/train --out target/bench-models

Writes width75-f32 and width75-int8, a gate and a U-Net with the light decoder, and seed75-f32 and
seed75-int8, a U-Net with the dense decoder of the original system. Their weights are all but random,
on which speed does not depend: two steps of each phase on a few made-up pictures, in about a minute.

`train` does this on tiles of 64 pixels, which goes twelve times as fast; the same operators then take
224, since none of them knows the side. Needs the package onnx (benches/requirements.txt).
"""

import argparse
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

SIDE = 224
# Decoder and networks of each.
BUNDLES = {"width75": ("light", ["gate", "unet"]), "seed75": ("seed", ["unet"])}
CONFIG = """
name = "{name}-f32"
seed = 1
width = 0.75
decoder = "{decoder}"
tile = 64
gsd = [1.0, 2.0]

[phases]
gate-head = {{ batch = 2, steps = 2 }}
decoder = {{ batch = 2, steps = 2 }}
gate-int8 = {{ steps = 0 }}
unet-int8 = {{ steps = 0 }}

[[data]]
name = "made-up"
root = "data"
licence = "none"
attribution = "nobody"
scale = [0.8, 1.2]
tune = ["2", "3"]
test = ["4", "5"]
"""


def write_data(root):
    """Six pictures of a dark sea in the challenge's layout, half of them with a bright boat."""
    side, width, height = 96, 36, 12
    (root / "images").mkdir(parents=True)
    rows = ["ImageId,EncodedPixels"]
    for index in range(6):
        left, top = 10 + 8 * index, 20 + 9 * index
        boat = index % 2 == 0
        pixels = bytearray()
        for y in reversed(range(side)):
            for x in range(side):
                inside = left <= x < left + width and top <= y < top + height
                pixels += bytes([220 if boat and inside else 30 + (x * 7 + y * 3 + index) % 11] * 3)
        header = struct.pack("<2sIII", b"BM", 54 + len(pixels), 0, 54)
        header += struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, len(pixels), 0, 0, 0, 0)
        (root / "images" / f"{index}.bmp").write_bytes(header + pixels)
        runs = (f"{x * side + top + 1} {height}" for x in range(left, left + width) if boat)
        rows.append(f"{index}.bmp,{' '.join(runs)}")
    (root / "ship_segmentations.csv").write_text("\n".join(rows) + "\n")


def at_side(source, target):
    """The same network for pictures of another side."""
    model = onnx.load(source)
    assert not model.graph.value_info, "sides of maps within would have to change too"
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value = SIDE
    onnx.checker.check_model(model, full_check=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target)


def make(name, train, out):
    """Both bundles of a name."""
    decoder, networks = BUNDLES[name]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_data(folder / "data")
        (folder / "train.toml").write_text(CONFIG.format(name=name, decoder=decoder))
        for command in (
            ["run", "--config", "train.toml", "--out", "run", "--device", "cpu"],
            ["export", "--run", "run", "--out", "f32"],
            # Six pictures prove nothing, and nothing is to be proved.
            ["quantize", "run", "--out", "int8", "--float", "f32", "--over-limits", "--device", "cpu"],
        ):
            ended = subprocess.run([train, *command], cwd=folder, capture_output=True, text=True)
            if ended.returncode:
                sys.exit(f"`train {' '.join(command)}` failed:\n{ended.stderr}")
        for kind in ("f32", "int8"):
            for network in networks:
                target = out / f"{name}-{kind}" / f"{network}.onnx"
                at_side(folder / kind / f"{network}.onnx", target)
                print(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=Path("target/release/train"), help="the program (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("target/bench-models"), help="folder (%(default)s)")
    options = parser.parse_args()
    train = options.train.resolve()
    if not train.exists():
        sys.exit(f"there is no {train}: cargo build --release --features train")
    shutil.rmtree(options.out, ignore_errors=True)
    for name in BUNDLES:
        make(name, train, options.out)


if __name__ == "__main__":
    main()
