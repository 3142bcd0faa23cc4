//! What training lowers.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Tensor, backend::Backend};

/// Mean binary cross-entropy of logits.
pub(crate) fn binary_cross_entropy<B: Backend, const D: usize>(
    logits: Tensor<B, D>,
    truth: Tensor<B, D>,
) -> Tensor<B, 1> {
    cross_entropy(logits, truth).mean()
}

/// Binary cross-entropy of each logit, in the form that does not overflow:
/// `max(x, 0) - x t + ln(1 + exp(-|x|))`.
fn cross_entropy<B: Backend, const D: usize>(
    logits: Tensor<B, D>,
    truth: Tensor<B, D>,
) -> Tensor<B, D> {
    let tail = (logits.clone().abs().neg().exp() + 1.0).log();
    logits.clone().clamp_min(0.0) - logits * truth + tail
}

/// Mean cross-entropy of logits with truth from 0 to 1, where each pixel counts by its weight; 0
/// where none counts.
pub(crate) fn weighted<B: Backend>(
    logits: Tensor<B, 4>,
    truth: Tensor<B, 4>,
    weight: Tensor<B, 4>,
) -> Tensor<B, 1> {
    let total = weight.clone().sum().clamp_min(1.0);
    (cross_entropy(logits, truth) * weight).sum() / total
}

/// `1 - Dice` of probabilities over the whole batch, so that an empty tile weighs by its false
/// alarms alone.
pub(crate) fn soft_dice<B: Backend>(logits: Tensor<B, 4>, truth: Tensor<B, 4>) -> Tensor<B, 1> {
    let p = sigmoid(logits);
    let both = (p.clone() * truth.clone()).sum();
    let sizes = p.sum() + truth.sum();
    (both * 2.0 + 1.0).div(sizes + 1.0).neg() + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    fn scalar(t: Tensor<Flex, 1>) -> f32 {
        t.into_scalar()
    }

    #[test]
    fn cross_entropy_by_hand() {
        let loss = |x: f32, t: f32| {
            let tensor = |v| Tensor::<Flex, 1>::from_floats([v], &FlexDevice);
            scalar(binary_cross_entropy(tensor(x), tensor(t)))
        };
        assert!((loss(0.0, 1.0) - 2f32.ln()).abs() < 1e-6);
        // -ln(sigmoid(2)) = 0.126928
        assert!((loss(2.0, 1.0) - 0.126_928).abs() < 1e-5);
        assert!((loss(500.0, 0.0) - 500.0).abs() < 1e-3);
        assert!(loss(-500.0, 0.0).abs() < 1e-6);
    }

    #[test]
    fn pixels_count_by_their_weight() {
        let tensor =
            |v: [f32; 3]| Tensor::<Flex, 1>::from_floats(v, &FlexDevice).reshape([1, 1, 1, 3]);
        let loss = |weight| {
            let (logits, truth) = (tensor([0.0, 2.0, 9.0]), tensor([0.5, 1.0, 0.0]));
            scalar(weighted(logits, truth, tensor(weight)))
        };
        // (3 ln 2 + 0.126928) / 4
        assert!((loss([3.0, 1.0, 0.0]) - 0.551_592).abs() < 1e-5);
        assert_eq!(loss([0.0; 3]), 0.0);
    }

    #[test]
    fn dice_by_hand() {
        let tensor =
            |v: [f32; 4]| Tensor::<Flex, 1>::from_floats(v, &FlexDevice).reshape([1, 1, 2, 2]);
        // Sure and right about two pixels of two.
        let sure = tensor([50.0, 50.0, -50.0, -50.0]);
        let loss = scalar(soft_dice(sure.clone(), tensor([1.0, 1.0, 0.0, 0.0])));
        assert!(loss.abs() < 1e-6);
        // One pixel of two in common: 1 - (2 + 1) / (4 + 1).
        let loss = scalar(soft_dice(sure, tensor([1.0, 0.0, 1.0, 0.0])));
        assert!((loss - 0.4).abs() < 1e-6);
    }
}
