"""Quantized models of one operator each, and what ONNX Runtime makes of them.

    python tests/operators.py FOLDER

For each operator FOLDER then holds NAME.onnx, whose input is an image of 12 x 12 pixels, and NAME.f32: its outputs
for the images of `images.u8`, `[N, 12, 12, 3]` bytes, of which each stands for (byte - 128) / 128. All numbers are
little-endian. Each name goes to standard output, with what a step of its output is worth.

The operator reads maps that a convolution makes by copying the image's channels, which no rounding changes: so
whoever runs the model feeds it the same bytes.
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIDE, IMAGES = 12, 24
STEP = 1 / 128
# Scales of outputs are no short fractions: sums of these lie on a tie now and then, of which each makes its own.


class Model:
    """A graph under way. A map is its name in floats, its channels, and its scale and zero point."""

    def __init__(self, noise):
        self.noise, self.nodes, self.tensors, self.count = noise, [], [], 0

    def name(self):
        self.count += 1
        return f"v{self.count}"

    def tensor(self, value, kind):
        name = self.name()
        self.tensors.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def node(self, kind, inputs, **attributes):
        name = self.name()
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def map(self, value, channels, scale, zero):
        """The value in bytes and back."""
        parts = [self.tensor(scale, np.float32), self.tensor(zero, np.uint8)]
        quantized = self.node("QuantizeLinear", [value, *parts])
        return self.node("DequantizeLinear", [quantized, *parts]), channels, scale, zero

    def filters(self, weight, scales, axis=0):
        parts = [self.tensor(weight, np.int8), self.tensor(scales, np.float32), self.tensor(0 * scales, np.int8)]
        return self.node("DequantizeLinear", parts, axis=axis)

    def bias(self, outputs, scales):
        parts = [
            self.tensor(self.noise.integers(-3000, 3000, outputs), np.int32),
            self.tensor(scales, np.float32),
            self.tensor(np.zeros(outputs), np.int32),
        ]
        return self.node("DequantizeLinear", parts, axis=0)

    def image(self):
        return self.map("image", 3, STEP, 128)

    def copies(self, channels):
        """A map whose channels are those of the image, again and again."""
        image, _, scale, zero = self.image()
        weight = np.zeros((channels, 3, 1, 1))
        weight[np.arange(channels), np.arange(channels) % 3] = 127
        filters = self.filters(weight, np.full(channels, 1 / 127))
        return self.map(self.node("Conv", [image, filters]), channels, scale, zero)

    def random(self, shape, outputs):
        """Weights, and scales by which outputs spread over the bytes."""
        weight = self.noise.integers(-127, 128, shape)
        depth = np.prod(shape) / outputs
        return weight, self.noise.uniform(0.5, 1.5, outputs) / 60 / np.sqrt(depth)

    def convolution(self, x, outputs, size, group=1, **attributes):
        value, channels, scale, _ = x
        weight, scales = self.random((outputs, channels // group, size, size), outputs)
        inputs = [value, self.filters(weight, scales), self.bias(outputs, np.float32(scale) * scales.astype(np.float32))]
        return self.map(self.node("Conv", inputs, group=group, **attributes), outputs, 0.0213719, 117)

    def bytes(self, x):
        value = x[0]
        graph = helper.make_graph(
            self.nodes,
            "operator",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def window(stride, pads):
    return {"strides": [stride, stride], "pads": pads}


def operators(noise):
    """Name and model of each operator."""
    symmetric, tensorflow = [1, 1, 1, 1], [0, 0, 1, 1]
    for channels, outputs in [(8, 16), (19, 33), (52, 7)]:
        model = Model(noise)
        yield f"pointwise-{channels}-{outputs}", model, model.convolution(model.copies(channels), outputs, 1)
    for name, attributes in {
        "stride-1": window(1, symmetric),
        "stride-2": window(2, symmetric),
        "stride-2-tensorflow": window(2, tensorflow),
    }.items():
        model = Model(noise)
        yield f"full-{name}", model, model.convolution(model.copies(21), 18, 3, **attributes)
        model = Model(noise)
        yield f"depthwise-{name}", model, model.convolution(model.copies(37), 37, 3, 37, **attributes)
    model = Model(noise)
    yield "stem", model, model.convolution(model.image(), 24, 3, **window(2, tensorflow))

    model = Model(noise)
    x, y = model.copies(11), model.convolution(model.copies(11), 11, 1)
    yield "add", model, model.map(model.node("Add", [x[0], y[0]]), 11, 0.0317431, 101)

    model = Model(noise)
    x = model.copies(9)
    scales = model.tensor([1, 1, 2, 2], np.float32)
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    yield "upsample", model, model.map(model.node("Resize", [x[0], "", scales], **nearest), 9, *x[2:])

    model = Model(noise)
    x = model.copies(14)
    weight, scales = model.random((14, 10, 2, 2), 10)
    inputs = [x[0], model.filters(weight, scales, 1), model.bias(10, np.float32(x[2]) * scales.astype(np.float32))]
    doubled = model.node("ConvTranspose", inputs, strides=[2, 2], kernel_shape=[2, 2])
    yield "transposed", model, model.map(doubled, 10, 0.0203171, 130)

    model = Model(noise)
    x, y = model.copies(6), model.copies(13)
    yield "concatenate", model, model.map(model.node("Concat", [x[0], y[0]], axis=1), 19, *x[2:])

    model = Model(noise)
    x = model.copies(10)
    yield "pool", model, model.map(model.node("GlobalAveragePool", [x[0]]), 10, 0.0030713, 90)

    model = Model(noise)
    x = model.convolution(model.copies(10), 5, 1)
    yield "sigmoid", model, model.map(model.node("Sigmoid", [x[0]]), 5, 1 / 256, 0)


def main():
    folder = pathlib.Path(sys.argv[1])
    noise = np.random.default_rng(7)
    images = noise.integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    # Dark and bright ones, that sums leave the middle.
    images[:4] = np.clip(images[:4].astype(int) - 100, 0, 255)
    images[4:8] = np.clip(images[4:8].astype(int) + 100, 0, 255)
    images.tofile(folder / "images.u8")
    options = ort.SessionOptions()
    # x86 without VNNI adds pairs of 8-bit products in 16 bits, which overflow: exact sums instead.
    options.add_session_config_entry("session.x64quantprecision", "1")
    for name, model, output in operators(noise):
        data = model.bytes(output)
        (folder / f"{name}.onnx").write_bytes(data)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        values = (images.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 128
        found = [session.run(None, {"image": np.ascontiguousarray(value[None])})[0] for value in values]
        np.stack(found).astype("<f4").tofile(folder / f"{name}.f32")
        print(name, output[2])


if __name__ == "__main__":
    main()
