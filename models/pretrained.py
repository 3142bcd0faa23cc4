"""Writes Keras's ImageNet weights of MobileNetV2 in the form that `train run --pretrained` reads.

    pip install tensorflow-cpu safetensors
    python models/pretrained.py 0.35 mobilenetv2_035_imagenet.safetensors

Keras downloads the weights (Apache-2.0, Google) on first use. Names are Keras's layer names;
convolutions become OIHW, depthwise ones [C, 1, 3, 3].
"""

import sys

import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file


def tensors(model):
    """Names and arrays of every layer that has weights."""
    for layer in model.layers:
        weights = layer.get_weights()
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            names = ("weight", "bias", "running_mean", "running_var")
            yield from ((f"{layer.name}.{name}", w) for name, w in zip(names, weights))
        elif isinstance(layer, tf.keras.layers.DepthwiseConv2D):
            yield f"{layer.name}.weight", weights[0].transpose(2, 3, 0, 1)
        elif isinstance(layer, tf.keras.layers.Conv2D):
            yield f"{layer.name}.weight", weights[0].transpose(3, 2, 0, 1)


def network(alpha, weights="imagenet"):
    return tf.keras.applications.MobileNetV2(
        input_shape=(224, 224, 3), alpha=alpha, include_top=False, weights=weights
    )


if __name__ == "__main__":
    alpha, path = float(sys.argv[1]), sys.argv[2]
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors(network(alpha))}
    save_file(arrays, path)
