//! Convolutions with batch norm, and the blocks made of them.

use burn::module::{Initializer, Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{Tensor, backend::Backend};

use super::ops::{Chain, ConvNorm, FusedOps, chain, chain_eval, primitive};

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
    /// The batch's own, which then are the running ones.
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
}

/// Layers one after the other, `[N, H, W, I] -> [N, .., O]` in TensorFlow's "SAME" padding; added to
/// their input if `residual`.
pub(crate) fn forward_all<B: FusedOps, const L: usize>(
    layers: [&ConvBn<B>; L],
    residual: bool,
    x: Tensor<B, 4>,
    mode: Mode,
) -> Tensor<B, 4> {
    match mode {
        Mode::Train => {
            let layers = layers.as_slice();
            let parts = Chain {
                layers: layers.iter().map(|layer| layer.by_batch()).collect(),
                residual,
            };
            let (y, statistics) = chain(x, &parts);
            for (layer, [mean, inv_std]) in layers.iter().zip(statistics) {
                layer.follow(mean, inv_std);
            }
            y
        }
        Mode::Eval => {
            let layers = layers.iter().map(|layer| layer.by_history()).collect();
            chain_eval(x, &Chain { layers, residual })
        }
        Mode::Measure | Mode::Recalibrate => {
            let y = layers.iter().fold(x.clone(), |x, layer| {
                let by_history = || layer.forward(x.clone(), Mode::Eval);
                let before = (mode == Mode::Measure).then(by_history);
                layer.replace_history(x.clone());
                before.unwrap_or_else(by_history)
            });
            if residual { x + y } else { y }
        }
    }
}

impl<B: FusedOps> ConvBn<B> {
    /// `[N, H, W, I] -> [N, ceil(H / stride), ceil(W / stride), O]`, TensorFlow's "SAME" padding.
    pub(crate) fn forward(&self, x: Tensor<B, 4>, mode: Mode) -> Tensor<B, 4> {
        forward_all([self], false, x, mode)
    }

    /// With batch norm by the batch's own statistics.
    fn by_batch(&self) -> ConvNorm<B> {
        self.normed_by(self.bn.gamma.val(), self.bn.beta.val())
    }

    /// With batch norm by the running statistics.
    fn by_history(&self) -> ConvNorm<B> {
        let bn = &self.bn;
        let scale = bn.gamma.val() / (bn.running_var.value_sync() + bn.epsilon).sqrt();
        let shift = bn.beta.val() - bn.running_mean.value_sync() * scale.clone();
        self.normed_by(scale, shift)
    }

    fn normed_by(&self, scale: Tensor<B, 1>, shift: Tensor<B, 1>) -> ConvNorm<B> {
        ConvNorm {
            weight: primitive(self.weight.val()),
            scale: primitive(scale),
            shift: primitive(shift),
            epsilon: self.bn.epsilon as f32,
            stride: self.stride,
            relu6: self.relu6,
        }
    }

    /// Moves the running statistics towards a batch's.
    fn follow(&self, mean: Tensor<B, 1>, inv_std: Tensor<B, 1>) {
        let bn = &self.bn;
        let variance = inv_std.powi_scalar(-2) - bn.epsilon;
        for (state, new) in [(&bn.running_mean, mean), (&bn.running_var, variance)] {
            let old = state.value_sync();
            state.update((old * (1.0 - bn.momentum) + new * bn.momentum).detach());
        }
    }

    /// Sets the running statistics to those of the output for `x`.
    fn replace_history(&self, x: Tensor<B, 4>) {
        let own = Chain {
            layers: vec![self.by_batch()],
            residual: false,
        };
        let (_, mut statistics) = chain(x, &own);
        let [mean, inv_std] = statistics.remove(0);
        let variance = inv_std.powi_scalar(-2) - self.bn.epsilon;
        let bn = &self.bn;
        for (state, new) in [(&bn.running_mean, mean), (&bn.running_var, variance)] {
            state.update(new);
            state.value_sync();
        }
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
        let (depthwise, project) = (&self.depthwise, &self.project);
        match &self.expand {
            Some(expand) => forward_all([expand, depthwise, project], self.residual, x, mode),
            None => forward_all([depthwise, project], self.residual, x, mode),
        }
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
        forward_all([&self.depthwise, &self.pointwise], false, x, mode)
    }
}
