"""Runs a bundle's two networks in ONNX Runtime for `train`, which compares engines with it.

    pip install -r tests/requirements.txt
    python tests/onnx_runtime.py --mean 128 --std 128 GATE.onnx UNET.onnx

A request on standard input is one byte, 0 for the gate or 1 for the U-Net, and a tile: S * S * 3
bytes, RGB, row by row, where S is the side that the networks take. The answer on standard output is
the number of values as u32 and the network's output as f32, all little-endian. Both go on until
standard input ends. What people should read goes to standard error.
"""

import argparse
import os
import signal
import struct
import sys

import numpy as np
import onnxruntime as ort

LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session(path, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    # x86 without VNNI adds pairs of 8-bit products in 16 bits, which overflow: exact sums instead.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check(path, network, level):
    given, returned = network.get_inputs()[0], network.get_outputs()[0]
    print(
        f"{path}: onnxruntime {ort.__version__}, {', '.join(network.get_providers())}, "
        f"optimisation level {level}, {given.shape} {given.type} to {returned.shape} {returned.type}",
        file=sys.stderr,
    )


def serve(networks, mean, std, requests, answers):
    """Answers until `requests` ends; a request that ends too soon is an error."""
    side = networks[0].get_inputs()[0].shape[2]
    while which := requests.read(1):
        tile = requests.read(side * side * 3)
        if len(tile) < side * side * 3:
            sys.exit(f"a tile of {len(tile)} bytes, not {side} x {side} x 3: does `tile` fit the networks?")
        pixels = np.frombuffer(tile, np.uint8).reshape(side, side, 3).transpose(2, 0, 1)
        values = (pixels.astype(np.float32) - np.float32(mean)) / np.float32(std)
        network = networks[which[0]]
        output = network.run(None, {network.get_inputs()[0].name: np.ascontiguousarray(values[None])})[0]
        answers.write(struct.pack("<I", output.size) + output.astype("<f4").tobytes())
        answers.flush()


def main():
    parser = argparse.ArgumentParser(description="Runs a gate and a U-Net in ONNX Runtime for `train`.")
    parser.add_argument("--mean", type=float, required=True, help="byte that becomes the input value 0")
    parser.add_argument("--std", type=float, required=True, help="bytes per unit of input")
    parser.add_argument("--level", choices=LEVELS, default="all", help="graph optimisation (%(default)s)")
    parser.add_argument("--check", action="store_true", help="say first what runs the networks, and how")
    parser.add_argument("gate")
    parser.add_argument("unet")
    args = parser.parse_args()
    # Ctrl-C is for the caller, whose end closes standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing that a library prints may come between answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    networks = [session(path, args.level) for path in (args.gate, args.unet)]
    if args.check:
        for path, network in zip((args.gate, args.unet), networks):
            check(path, network, args.level)
    serve(networks, args.mean, args.std, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
