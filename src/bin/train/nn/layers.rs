//! Convolutions with batch norm, and the blocks made of them.

use burn::module::{Initializer, Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, backend::Backend};

use super::fused::{FusedOps, affine_relu6, depthwise, norm_relu6, pad_same, pointwise};

/// Added to the variance, as in Keras's MobileNetV2.
pub(crate) const BATCH_NORM_EPSILON: f64 = 1e-3;

/// Weight of a new batch in the running statistics.
const BATCH_NORM_MOMENTUM: f64 = 0.05;

/// Which statistics batch norm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The batch's own; the running ones follow.
    Train,
    /// The running ones.
    Eval,
    /// The running ones, which the batch's own then replace.
    Measure,
    /// The batch's own, which replace the running ones.
    Recalibrate,
}

/// A convolution without bias, batch norm, and ReLU6 unless it is a linear projection.
#[derive(Module, Debug)]
pub(crate) struct ConvBn<B: Backend> {
    /// `[O, I / groups, K, K]`.
    pub(crate) weight: Param<Tensor<B, 4>>,
    pub(crate) bn: BatchNorm<B>,
    pub(crate) stride: usize,
    pub(crate) relu6: bool,
}

impl<B: Backend> ConvBn<B> {
    /// A dense `kernel` x `kernel` convolution from `inputs` to `outputs` channels.
    pub(crate) fn dense(
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        device: &B::Device,
    ) -> Self {
        Self::new([outputs, inputs, kernel, kernel], stride, true, device)
    }

    /// A 3x3 convolution of each channel by itself.
    pub(crate) fn depthwise(channels: usize, stride: usize, device: &B::Device) -> Self {
        Self::new([channels, 1, 3, 3], stride, true, device)
    }

    /// A 1x1 convolution without activation.
    pub(crate) fn linear([inputs, outputs]: [usize; 2], device: &B::Device) -> Self {
        Self::new([outputs, inputs, 1, 1], 1, false, device)
    }

    fn new(shape: [usize; 4], stride: usize, relu6: bool, device: &B::Device) -> Self {
        let fan_in = shape[1..].iter().product();
        let he = Initializer::KaimingNormal {
            gain: 2f64.sqrt(),
            fan_out_only: false,
        };
        Self {
            weight: he.init_with(shape, Some(fan_in), None, device),
            bn: BatchNormConfig::new(shape[0])
                .with_epsilon(BATCH_NORM_EPSILON)
                .with_momentum(BATCH_NORM_MOMENTUM)
                .init(device),
            stride,
            relu6,
        }
    }

    /// Whether each channel has a filter of its own.
    pub(crate) fn is_depthwise(&self) -> bool {
        let [_, inputs, kernel, _] = self.weight.dims();
        inputs == 1 && kernel == 3
    }
}

impl<B: FusedOps> ConvBn<B> {
    /// `[N, I, H, W] -> [N, O, ceil(H / stride), ceil(W / stride)]`, TensorFlow's "SAME" padding.
    pub(crate) fn forward(&self, x: Tensor<B, 4>, mode: Mode) -> Tensor<B, 4> {
        let weight = self.weight.val();
        let x = if self.is_depthwise() {
            depthwise(x, weight, self.stride)
        } else if weight.dims()[2] == 1 {
            pointwise(x, weight)
        } else {
            let options = ConvOptions::new([self.stride; 2], [0, 0], [1, 1], 1);
            conv2d(pad_same(x, self.stride), weight, None, options)
        };
        match mode {
            Mode::Train => self.normalise_by_batch(x),
            Mode::Eval => self.normalise_by_history(x),
            Mode::Measure => {
                let y = self.normalise_by_history(x.clone());
                self.replace_history(x);
                y
            }
            Mode::Recalibrate => {
                self.replace_history(x.clone());
                self.normalise_by_history(x)
            }
        }
    }

    fn replace_history(&self, x: Tensor<B, 4>) {
        let channels = x.dims()[1];
        let mean = |x: Tensor<B, 4>| x.mean_dim(0).mean_dim(2).mean_dim(3);
        let centre = mean(x.clone());
        let variance = mean((x - centre.clone()).powi_scalar(2));
        let bn = &self.bn;
        for (state, new) in [(&bn.running_mean, centre), (&bn.running_var, variance)] {
            state.update(new.reshape([channels]));
            state.value_sync();
        }
    }

    fn normalise_by_batch(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let bn = &self.bn;
        let (gamma, beta) = (bn.gamma.val(), bn.beta.val());
        let (y, mean, inv_std) = norm_relu6(x, gamma, beta, bn.epsilon as f32, self.relu6);
        let variance = inv_std.powi_scalar(-2) - bn.epsilon;
        for (state, new) in [(&bn.running_mean, mean), (&bn.running_var, variance)] {
            let old = state.value_sync();
            state.update((old * (1.0 - bn.momentum) + new * bn.momentum).detach());
        }
        y
    }

    fn normalise_by_history(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let bn = &self.bn;
        let scale = bn.gamma.val() / (bn.running_var.value_sync() + bn.epsilon).sqrt();
        let shift = bn.beta.val() - bn.running_mean.value_sync() * scale.clone();
        affine_relu6(x, scale, shift, self.relu6)
    }
}

/// MobileNetV2's block: expand, filter each channel, project; added to its input where shapes
/// allow (Sandler et al. 2018, section 3.3).
#[derive(Module, Debug)]
pub(crate) struct InvertedResidual<B: Backend> {
    pub(crate) expand: Option<ConvBn<B>>,
    pub(crate) depthwise: ConvBn<B>,
    pub(crate) project: ConvBn<B>,
    pub(crate) residual: bool,
}

impl<B: Backend> InvertedResidual<B> {
    pub(crate) fn new(
        [inputs, outputs]: [usize; 2],
        expansion: usize,
        stride: usize,
        device: &B::Device,
    ) -> Self {
        let hidden = inputs * expansion;
        Self {
            expand: (expansion > 1).then(|| ConvBn::dense([inputs, hidden], 1, 1, device)),
            depthwise: ConvBn::depthwise(hidden, stride, device),
            project: ConvBn::linear([hidden, outputs], device),
            residual: stride == 1 && inputs == outputs,
        }
    }
}

impl<B: FusedOps> InvertedResidual<B> {
    pub(crate) fn forward(&self, x: Tensor<B, 4>, mode: Mode) -> Tensor<B, 4> {
        let hidden = match &self.expand {
            Some(expand) => expand.forward(x.clone(), mode),
            None => x.clone(),
        };
        let y = self
            .project
            .forward(self.depthwise.forward(hidden, mode), mode);
        if self.residual { x + y } else { y }
    }
}

/// Depthwise 3x3, then pointwise, each with ReLU6.
#[derive(Module, Debug)]
pub(crate) struct SeparableConv<B: Backend> {
    pub(crate) depthwise: ConvBn<B>,
    pub(crate) pointwise: ConvBn<B>,
}

impl<B: Backend> SeparableConv<B> {
    pub(crate) fn new([inputs, outputs]: [usize; 2], device: &B::Device) -> Self {
        Self {
            depthwise: ConvBn::depthwise(inputs, 1, device),
            pointwise: ConvBn::dense([inputs, outputs], 1, 1, device),
        }
    }
}

impl<B: FusedOps> SeparableConv<B> {
    pub(crate) fn forward(&self, x: Tensor<B, 4>, mode: Mode) -> Tensor<B, 4> {
        self.pointwise
            .forward(self.depthwise.forward(x, mode), mode)
    }
}
