"""The training step of `train bench` in plain PyTorch, as a yardstick for its speed and memory.

    pip install torch numpy        # any build
    python benches/pytorch_step.py --net unet --width 0.35 --batch 16

The networks, padding, losses and optimiser are those of src/bin/train; tensors are channels_last.
Machines throttle and share: run both programs in turn, several times, and compare medians. Where
other programs run, OMP_WAIT_POLICY=passive keeps waiting threads from being counted as work.
"""

import argparse
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
TAPS = [0, 2, 5, 12, 16]
LIGHT = [96, 48, 32, 16]
SEED = [224, 112, 56, 28]


def channels(base, width):
    exact = base * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


class ConvBn(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, groups=1, relu6=True):
        super().__init__()
        # TensorFlow's "SAME": on even sides, stride 2 pads behind only.
        self.pad = kernel == 3 and stride == 2
        padding = 1 if kernel == 3 and stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.05)
        self.act = nn.ReLU6(inplace=True) if relu6 else nn.Identity()

    def forward(self, x):
        if self.pad:
            x = F.pad(x, (0, 1, 0, 1))
        return self.act(self.bn(self.conv(x)))


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, expansion, stride):
        super().__init__()
        hidden = inputs * expansion
        layers = [ConvBn(inputs, hidden, 1)] if expansion > 1 else []
        layers += [ConvBn(hidden, hidden, 3, stride, hidden), ConvBn(hidden, outputs, 1, relu6=False)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = self.layers(x)
        return x + y if self.residual else y


class Encoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        inputs = channels(32, width)
        self.stem = ConvBn(3, inputs, 3, 2)
        blocks = []
        for expansion, base, repeats, first in STAGES:
            outputs = channels(base, width)
            for repeat in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, expansion, first if repeat == 0 else 1))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.taps = [blocks[tap].layers[-1].conv.out_channels for tap in TAPS]

    def forward(self, x):
        x, taps = self.stem(x), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPS:
                taps.append(x)
        return taps


class Gate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.encoder = Encoder(width)
        features = channels(1280, max(width, 1.0))
        self.head = ConvBn(self.encoder.taps[-1], features, 1)
        self.classifier = nn.Linear(features, 1)

    def forward(self, x):
        return self.classifier(self.head(self.encoder(x)[-1]).mean((2, 3))).flatten()


class LightStage(nn.Module):
    def __init__(self, inputs, skip, outputs):
        super().__init__()
        self.reduce = ConvBn(inputs, outputs, 1, relu6=False)
        self.lateral = ConvBn(skip, outputs, 1, relu6=False)
        self.refine = nn.Sequential(ConvBn(outputs, outputs, 3, 1, outputs), ConvBn(outputs, outputs, 1))

    def forward(self, x, skip):
        return self.refine(F.interpolate(self.reduce(x), scale_factor=2, mode="nearest") + self.lateral(skip))


class SeedStage(nn.Module):
    def __init__(self, inputs, skip, outputs):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        self.first = ConvBn(outputs + skip, outputs, 3)
        self.second = ConvBn(outputs, outputs, 3)

    def forward(self, x, skip):
        return self.second(self.first(torch.cat([self.up(x), skip], 1)))


class UNet(nn.Module):
    def __init__(self, width, decoder):
        super().__init__()
        self.encoder = Encoder(width)
        stage, outputs = (LightStage, LIGHT) if decoder == "light" else (SeedStage, SEED)
        inputs = [self.encoder.taps[-1], *outputs[:3]]
        self.stages = nn.ModuleList(map(stage, inputs, self.encoder.taps[-2::-1], outputs))
        self.head = nn.ConvTranspose2d(outputs[-1], 1, 2, 2)

    def forward(self, x):
        *skips, x = self.encoder(x)
        for stage, skip in zip(self.stages, reversed(skips)):
            x = stage(x, skip)
        return self.head(x)


def unet_loss(logits, truth):
    p = torch.sigmoid(logits)
    dice = (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, truth) + 1 - dice


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=["gate", "unet"], default="unet")
    parser.add_argument("--width", type=float, default=0.35)
    parser.add_argument("--decoder", choices=["light", "seed"], default="light")
    parser.add_argument("--tile", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--forward", action="store_true", help="evaluation mode instead of training")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--nchw", action="store_true", help="PyTorch's default layout")
    args = parser.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device(args.device)
    gate = args.net == "gate"
    layout = torch.contiguous_format if args.nchw else torch.channels_last
    model = Gate(args.width) if gate else UNet(args.width, args.decoder)
    model = model.to(device, memory_format=layout).train(not args.forward)
    loss = F.binary_cross_entropy_with_logits if gate else unet_loss
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)
    pixels = torch.randint(0, 256, (args.batch, args.tile, args.tile, 3), dtype=torch.uint8)
    truth = torch.zeros(args.batch, 1, args.tile, args.tile)
    truth[::2, :, : args.tile // 4, : args.tile // 4] = 1
    truth = (truth.amax((1, 2, 3)) if gate else truth).to(device)

    def step():
        x = (pixels.to(device).permute(0, 3, 1, 2).to(torch.float32) - 127.5) / 127.5
        x = x.contiguous(memory_format=layout)
        if args.forward:
            with torch.no_grad():
                model(x).sum().item()
            return
        optimiser.zero_grad()
        value = loss(model(x), truth)
        value.backward()
        optimiser.step()
        value.item()

    step()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(args.steps):
        step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    images = args.steps * args.batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{images / wall:.1f} images/s; {1e3 * wall / images:.2f} ms wall and "
        f"{1e3 * cpu / images:.2f} ms CPU per image; peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
