"""shipwatch's engine beside the runtimes that a user would pick instead, on the same networks.

    make bench                                  # models, environment and all
    python benches/peers.py --json peers.json   # with benches/requirements.txt installed
    python benches/peers.py --only width75 --rounds 3
    python benches/peers.py --pair INT8.onnx FLOAT.onnx --mean 127.5 --std 127.5

Every contender is given the same picture, bytes RGB [S, S, 3], and its time ends with the network's
output in floats: what it does to get from the one to the other is counted. A peer that can prepare
the picture in several ways takes the one that is fastest here:

    numpy            to NCHW and floats by numpy
    graph            by operators put before the network; where these and the network's quantizer
                     leave the bytes as they are, the bytes themselves
    PrePostProcessor by what OpenVINO adds to a network

Contenders are processes that take turns, A, B, C, ..., A, B, C, ..., so that what else the machine
does hits all alike. A turn has a warm-up and then lasts --seconds. Figures are medians over turns:
of a turn's median, and of its CPU time (of all threads) per picture; `least` is the least of all.
`speed` compares with the peer of the best median in the same turn: 2.00 is twice as fast. On a
machine that others use, believe `by CPU`, and where both tell apart little, nothing.

shipwatch runs as `shipwatch bench --model FILE --threads N --seconds S --json`, once a turn, and
prints an object with `median_ms`, `min_ms` and `cpu_ms`, the last per picture. On a file of floats
that is tract. The int8 files are QDQ; a runtime that does not take these has the float file.

Bundles NAME-int8 and NAME-f32 in the folders of --models make pairs; benches/make_models.py makes
some of random weights, of the sizes that models/ has not.
"""

import argparse
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ["gate", "unet"]
PACKAGES = ["onnxruntime", "openvino", "ncnn", "pnnx", "onnx", "numpy"]
# What engines choose their kernels by, as Linux calls it on x86 and Arm.
FEATURES = """
    avx2 fma avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 amx_int8 amx_bf16
    asimd asimddp asimdhp i8mm bf16 sve
""".split()
# Mean difference of outputs from ONNX Runtime's by which something else is computed than asked.
ASTRAY = 0.05
# Seconds for each way of preparing a picture to show how fast it is, and the turns it has.
TRIAL, TRIALS = 0.1, 5
# Between turns, for threads that wait for work to give up.
REST = 0.05


def shown(path):
    """A path as people read it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


class Unavailable(Exception):
    """Why a contender does not run here."""


@dataclass(frozen=True)
class Network:
    """A file, and how its input is made of bytes."""

    path: Path
    side: int
    mean: float
    std: float


# ---- pictures and how they get into a network


def picture(side):
    """Bright boats on a dark sea."""
    import numpy as np

    rng = np.random.default_rng(1)
    image = rng.normal([28, 45, 60], 6, (side, side, 3))
    for _ in range(6):
        x, y = rng.integers(side - 30, size=2)
        image[y : y + rng.integers(4, 9), x : x + rng.integers(12, 30)] += 150
    return np.clip(image, 0, 255).astype(np.uint8)


def into(buffer, image, network):
    """Fills floats [1, 3, S, S] from a picture."""
    import numpy as np

    np.multiply(image.transpose(2, 0, 1), np.float32(1 / network.std), out=buffer[0])
    np.subtract(buffer, np.float32(network.mean / network.std), out=buffer)


def of_bytes(network):
    """The network as a file that takes bytes [1, S, S, 3]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(network.path)
    graph = model.graph
    image = graph.input[0].name
    constants = {constant.name: constant for constant in graph.initializer}
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, network.side, network.side, 3])
    )
    planes = helper.make_node("Transpose", ["bytes"], ["planes"], perm=[0, 3, 1, 2])
    readers = [node for node in graph.node if image in node.input]
    if len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
        scale, zero = (numpy_helper.to_array(constants[name]) for name in readers[0].input[1:])
        if zero.dtype == "uint8" and zero == network.mean and abs(scale * network.std - 1) < 1e-6:
            planes.output[0] = readers[0].output[0]
            graph.node.remove(readers[0])
            graph.node.insert(0, planes)
            return model.SerializeToString()
    for name, value in (("mean", network.mean), ("std", network.std)):
        graph.initializer.append(helper.make_tensor(f"bytes.{name}", TensorProto.FLOAT, [], [value]))
    nodes = [
        planes,
        helper.make_node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["levels", "bytes.mean"], ["centred"]),
        helper.make_node("Div", ["centred", "bytes.std"], [image]),
    ]
    for index, node in enumerate(nodes):
        graph.node.insert(index, node)
    return model.SerializeToString()


# ---- the peers: each gives its ways of running a picture, and what it computes with


def onnxruntime(network, threads, image, precision):
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads may spin while they wait within a picture, not into the next contender's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")

    def bound(model, given):
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        binding.bind_cpu_input(session.get_inputs()[0].name, given)
        binding.bind_output(session.get_outputs()[0].name)

        def run():
            session.run_with_iobinding(binding)
            return binding.get_outputs()[0].numpy()

        return run

    floats = np.zeros((1, 3, network.side, network.side), np.float32)
    run = bound(str(network.path), floats)

    def by_numpy():
        into(floats, image, network)
        return run()

    return {"numpy": by_numpy, "graph": bound(of_bytes(network), image[None])}, precision


def openvino(network, threads, image, precision):
    import numpy as np
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    core = ov.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # One thread that is bound to a core cannot move away from what else runs there, as all other
        # contenders' can; of two, the second hardly gets to work unless it is bound.
        "ENABLE_CPU_PINNING": threads > 1,
    }
    if precision == "f32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"

    def bound(model, given):
        compiled = core.compile_model(model, "CPU", settings)
        request = compiled.create_infer_request()
        request.set_input_tensor(ov.Tensor(given, shared_memory=True))
        output = request.get_output_tensor().data

        def run():
            request.infer()
            return output

        return run, compiled

    floats = np.zeros((1, 3, network.side, network.side), np.float32)
    run, compiled = bound(core.read_model(network.path), floats)

    def by_numpy():
        into(floats, image, network)
        return run()

    model = core.read_model(network.path)
    before = PrePostProcessor(model)
    before.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    before.input().preprocess().convert_element_type(ov.Type.f32).mean(network.mean).scale(network.std)
    before.input().model().set_layout(ov.Layout("NCHW"))
    ways = {
        "numpy": by_numpy,
        "graph": bound(core.read_model(of_bytes(network)), image[None])[0],
        "PrePostProcessor": bound(before.build(), image[None])[0],
    }
    rest = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return ways, f"int8, else {rest}" if precision == "int8" else rest


def ncnn(network, threads, image, precision):
    import ncnn
    import numpy as np

    net = ncnn.Net()
    net.opt.num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        # It writes beside the file.
        link = Path(folder, "network.onnx")
        link.symlink_to(network.path.resolve())
        converter = [converter_to_ncnn(), link.name, "fp16=0"]
        converted = subprocess.run(converter, cwd=folder, capture_output=True, text=True)
        files = [Path(folder, f"network.ncnn.{kind}") for kind in ("param", "bin")]
        if converted.returncode or not all(file.exists() for file in files):
            raise Unavailable(f"pnnx cannot convert it: {(converted.stderr or converted.stdout)[-300:]}")
        if net.load_param(str(files[0])) or net.load_model(str(files[1])):
            raise Unavailable("it does not load what pnnx makes of it")

    def run():
        given = ncnn.Mat.from_pixels(image, ncnn.Mat.PixelType.PIXEL_RGB, network.side, network.side)
        given.substract_mean_normalize([network.mean] * 3, [1 / network.std] * 3)
        extractor = net.create_extractor()
        extractor.input("in0", given)
        failed, output = extractor.extract("out0")
        assert not failed, "no output"
        return np.array(output)

    return {"ncnn": run}, precision


def converter_to_ncnn():
    """The program within the package, whose own entry point would import PyTorch."""
    for file in importlib.metadata.files("pnnx") or []:
        if file.name == "pnnx" and file.parent.name == "pnnx":
            return str(file.locate())
    raise Unavailable("the package pnnx holds no converter for this machine")


PEERS = {
    "OpenVINO int8": (openvino, "int8"),
    "OpenVINO float": (openvino, "float"),
    "OpenVINO f32": (openvino, "f32"),
    "ONNX Runtime int8": (onnxruntime, "int8"),
    "ONNX Runtime f32": (onnxruntime, "f32"),
    "ncnn f32": (ncnn, "f32"),
}


# ---- a contender's turns


def turn(run, seconds):
    """Milliseconds of pictures run one after another for some seconds, after a warm-up."""
    warm = time.perf_counter() + seconds / 4
    for count in range(1_000_000):
        if count >= 2 and time.perf_counter() > warm:
            break
        run()
    times = []
    cpu, start = time.process_time(), time.perf_counter()
    before = start
    while before < start + seconds or len(times) < 3:
        run()
        after = time.perf_counter()
        times.append(1e3 * (after - before))
        before = after
    cpu = 1e3 * (time.process_time() - cpu)
    return {"median_ms": statistics.median(times), "min_ms": min(times), "cpu_ms": cpu / len(times)}


def fastest(ways):
    """The way of the least time, as found by turns: what disturbs can only add to it."""
    trials = {name: [] for name in ways}
    for _ in range(TRIALS if len(ways) > 1 else 0):
        for name, run in ways.items():
            trials[name].append(turn(run, TRIAL)["min_ms"])
    return min(ways, key=lambda name: min(trials[name], default=0))


def serve(connection, peer, network, threads):
    """A peer's process: its output and what it is first, then a turn for each number of seconds."""
    import numpy as np

    make, precision = PEERS[peer]
    image = picture(network.side)
    try:
        ways, computes = make(network, threads, image, precision)
        outputs = {name: np.array(run(), np.float32).ravel() for name, run in ways.items()}
        output = next(iter(outputs.values()))
        for name, other in outputs.items():
            if other.shape != output.shape or np.abs(other - output).mean() > ASTRAY:
                raise Unavailable(f"the picture by {name} gives something else than by numpy")
        way = fastest(ways)
    except ImportError as error:
        connection.send({"skipped": f"{error}: see benches/requirements.txt"})
        return
    except Exception as error:  # Whatever a runtime throws at a network that it does not take.
        connection.send({"skipped": f"{type(error).__name__}: {error}"})
        return
    connection.send({"picture": way, "computes": computes, "output": outputs[way]})
    with contextlib.suppress(EOFError):
        while True:
            connection.send(turn(ways[way], connection.recv()))


class Peer:
    """A runtime in a process of its own."""

    def __init__(self, peer, network, threads):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, peer, network, threads), daemon=True)
        self.process.start()
        other.close()
        self.about = self.receive()
        if reason := self.about.get("skipped"):
            self.close()
            raise Unavailable(reason)

    def receive(self):
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            raise Unavailable(f"its process ended by {self.process.exitcode}") from None

    def turn(self, seconds):
        self.connection.send(seconds)
        return self.receive()

    def close(self):
        self.connection.close()
        self.process.join()


class Shipwatch:
    """`shipwatch bench`, started for every turn."""

    def __init__(self, program, computes, network, threads):
        self.about = {"picture": "shipwatch", "computes": computes, "output": None}
        self.command = [str(program), "bench", "--model", str(network.path), "--threads", str(threads), "--json"]
        if not program.exists():
            raise Unavailable(f"there is no {shown(program)}: cargo build --release --bin shipwatch")
        known = subprocess.run([program, "bench", "--help"], capture_output=True, stdin=subprocess.DEVNULL)
        if known.returncode:
            raise Unavailable(f"{shown(program)} has no subcommand `bench` yet")
        self.turn(TRIAL)

    def turn(self, seconds):
        command = [*self.command, "--seconds", str(seconds)]
        words = f"`{' '.join(shown(Path(word)) for word in command)}`"
        ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if ended.returncode:
            raise Unavailable(f"{words} failed: {ended.stderr.strip()[-300:]}")
        try:
            said = json.loads(ended.stdout)
            return {key: float(said[key]) for key in ("median_ms", "min_ms", "cpu_ms")}
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(f"{words} said {ended.stdout[:200]!r}: {error!r}") from None

    def close(self):
        pass


# ---- the comparison


def network_of(path, mean=None, std=None):
    """Reads what a file says of its input; `mean` and `std` are for files that say nothing."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    notes = {note.key: note.value for note in model.metadata_props}
    said = re.fullmatch(r"RGB, NCHW, \(byte - ([\d.]+)\) / ([\d.]+)", notes.get("input", ""))
    if said:
        mean, std = map(float, said.groups())
    if mean is None or std is None:
        sys.exit(f"{path} does not say how its input is made of bytes: give --mean and --std")
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    if len(shape) != 4 or shape[:2] != [1, 3] or shape[2] != shape[3]:
        sys.exit(f"{path} takes {shape}, not [1, 3, S, S]")
    return Network(path, shape[2], mean, std)


def products(network):
    """Multiply-accumulates of the convolutions for one picture."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(network.path)).graph
    shapes = {constant.name: list(constant.dims) for constant in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    count = 0
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            # Each weight meets each place of the map on whose grid the kernel moves.
            grid = node.output[0] if node.op_type == "Conv" else node.input[0]
            count += math.prod(shapes[node.input[1]]) * math.prod(shapes[grid][2:])
    return count


def pairs_in(folder):
    """The int8 and float networks of the same names in a folder of bundles."""
    for int8 in sorted(folder.glob("*-int8")):
        name = int8.name.removesuffix("-int8")
        for network in NETWORKS:
            files = [folder / f"{name}-{kind}" / f"{network}.onnx" for kind in ("int8", "f32")]
            if all(file.exists() for file in files):
                yield f"{name} {network}", *files


def compare(int8, floats, options):
    """Figures of each contender on a pair of networks."""
    rivals = {
        "shipwatch int8": functools.partial(Shipwatch, options.shipwatch, "int8", int8, options.threads),
        **{
            name: functools.partial(Peer, name, int8 if precision == "int8" else floats, options.threads)
            for name, (_, precision) in PEERS.items()
        },
        "tract f32": functools.partial(Shipwatch, options.shipwatch, "f32", floats, options.threads),
    }
    results, running, turns = {}, {}, {}
    for name, start in rivals.items():
        say(f"starting {name}")
        try:
            running[name] = start()
            turns[name] = []
        except Unavailable as reason:
            results[name] = {"skipped": str(reason)}
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for name in list(running):
            try:
                turns[name].append(running[name].turn(options.seconds))
            except Unavailable as reason:
                results[name] = {"skipped": str(reason)}
                running.pop(name).close()
                del turns[name]
            time.sleep(REST)
    say("")
    for contender in running.values():
        contender.close()

    def middle(name, key):
        return statistics.median(turn[key] for turn in turns[name])

    others = [name for name in turns if name != "shipwatch int8"]
    best = min(others, key=lambda name: middle(name, "median_ms"), default=None)

    def speed(name, key):
        if best is None:
            return None
        return statistics.median(theirs[key] / own[key] for theirs, own in zip(turns[best], turns[name]))

    for name, contender in running.items():
        about = dict(contender.about)
        output = about.pop("output")
        same_file = f"ONNX Runtime {'int8' if name.endswith('int8') else 'f32'}"
        results[name] = {
            **about,
            "median_ms": middle(name, "median_ms"),
            "min_ms": min(turn["min_ms"] for turn in turns[name]),
            "cpu_ms": middle(name, "cpu_ms"),
            "speed": speed(name, "median_ms"),
            "speed_by_cpu": speed(name, "cpu_ms"),
            "turns": turns[name],
        }
        if output is not None and same_file in running:
            wanted = running[same_file].about["output"]
            if output.shape != wanted.shape or abs(output - wanted).mean() > ASTRAY:
                results[name] = {"skipped": f"it computes something else than {same_file}"}
            else:
                results[name]["largest_difference"] = float(abs(output - wanted).max())
    return {name: results[name] for name in rivals}, best


def table(results):
    """The figures in Markdown, and below why contenders have none."""
    head = ["contender", "computes", "picture by", "median ms", "least", "CPU ms", "speed", "by CPU", "differs by"]
    rows = [head, ["---:"] * len(head)]
    rows[1][:3] = ["---"] * 3

    def number(value, digits):
        return "-" if value is None else f"{value:.{digits}f}"

    for name, result in results.items():
        if "skipped" not in result:
            figures = [("median_ms", 2), ("min_ms", 2), ("cpu_ms", 2), ("speed", 2), ("speed_by_cpu", 2)]
            figures = [number(result[key], digits) for key, digits in figures]
            difference = number(result.get("largest_difference"), 4)
            rows.append([name, result["computes"], result["picture"], *figures, difference])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    skipped = [f"SKIPPED {name}: {result['skipped']}" for name, result in results.items() if "skipped" in result]
    return "\n".join(lines + [""] * bool(skipped) + skipped)


def machine():
    """What the figures depend on."""
    with open("/proc/cpuinfo") as file:
        facts = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", file.read(), re.MULTILINE))
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "processor": facts.get("model name") or facts.get("CPU part") or platform.processor(),
        "family, model, stepping": [facts.get(key) for key in ("cpu family", "model", "stepping")],
        "features": [feature for feature in FEATURES if feature in flags],
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": os.getloadavg(),
    }


def versions(program):
    """Of all that is compared, None for what is not there."""

    def of(package):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)

    found = {"python": platform.python_version(), **{package: of(package) for package in PACKAGES}}
    locked = re.search(r'name = "tract-core"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text())
    found["tract"] = locked and locked.group(1)
    found["shipwatch"] = None
    if program.exists():
        found["shipwatch"] = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()[-1]
    return found


def say(what):
    """A line of progress for a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders = [ROOT / "models", ROOT / "target/bench-models"]
    parser.add_argument("--models", type=Path, action="append", help="folder of bundles (models, target/bench-models)")
    parser.add_argument("--only", default="", help="networks whose name has this, as in `base gate`")
    pair = ("INT8", "FLOAT")
    parser.add_argument("--pair", type=Path, nargs=2, metavar=pair, action="append", help="compare these files only")
    parser.add_argument("--mean", type=float, help="byte that becomes the input 0, for files that do not say")
    parser.add_argument("--std", type=float, help="bytes per unit of input, for files that do not say")
    parser.add_argument("--threads", type=int, choices=[1, 2], default=1)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn (%(default)s)")
    parser.add_argument("--shipwatch", type=Path, default=ROOT / "target/release/shipwatch", metavar="PROGRAM")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    try:
        import numpy  # noqa: F401
        import onnx  # noqa: F401
    except ImportError as error:
        sys.exit(f"{error}: pip install --no-deps -r benches/requirements.txt")

    if options.pair:
        pairs = [(f"{int8} against {floats}", int8, floats) for int8, floats in options.pair]
    else:
        pairs = [pair for folder in options.models or folders for pair in pairs_in(folder)]
    pairs = [pair for pair in pairs if options.only in pair[0]]
    if not pairs:
        sys.exit("no pair of NAME-int8 and NAME-f32 is there")

    report = {
        "machine": machine(),
        "versions": versions(options.shipwatch),
        "settings": {key: getattr(options, key) for key in ("threads", "rounds", "seconds")},
        "networks": [],
    }
    about = report["machine"]
    print(f"{about['processor']}, {about['cores']} cores, {' '.join(about['features'])}; {about['system']}")
    print("load", ", ".join(f"{load:.1f}" for load in about["load"]), "when begun; threads:", options.threads)
    print(", ".join(f"{name} {version or 'absent'}" for name, version in report["versions"].items()))
    for name, *files in pairs:
        int8, floats = (network_of(file, options.mean, options.std) for file in files)
        results, best = compare(int8, floats, options)
        digests = {shown(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        size = products(floats)
        network = {"name": name, "files": digests, "multiply_accumulates": size, "best_peer": best}
        report["networks"].append({**network, "contenders": results})
        print(f"\n{name}, {int8.side} x {int8.side}, {size / 1e6:.0f} million products; best peer: {best}\n")
        print(table(results), flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
