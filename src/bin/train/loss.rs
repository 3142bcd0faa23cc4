//! What training lowers.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use rayon::prelude::*;

use crate::config::{Losses, Reduction};

/// The gate's loss of logits `[N]`: binary cross-entropy, with truth drawn to the middle by
/// `smoothing` (Szegedy et al. 2016, section 7).
pub(crate) fn gate<B: Backend>(
    logits: Tensor<B, 1>,
    truth: Tensor<B, 1>,
    smoothing: f64,
) -> Tensor<B, 1> {
    let truth = truth * (1.0 - smoothing) + smoothing / 2.0;
    cross_entropy(logits, truth).mean()
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

/// The U-Net's loss of logits `[N, 1, S, S]`: the weighted sum of the losses that the config asks
/// for.
pub(crate) fn unet<B: Backend>(
    logits: Tensor<B, 4>,
    truth: Tensor<B, 4>,
    losses: &Losses,
) -> Tensor<B, 1> {
    let [n, _, height, width] = logits.dims();
    let flat = |t: Tensor<B, 4>| t.reshape([n, height * width]);
    let (logits, truth) = (flat(logits), flat(truth));
    let terms: [(f64, &dyn Fn() -> Tensor<B, 1>); 5] = [
        (losses.bce, &|| {
            cross_entropy(logits.clone(), truth.clone()).mean()
        }),
        (losses.dice, &|| {
            tversky(logits.clone(), truth.clone(), [0.5, 0.5], losses.overlap_of)
        }),
        (losses.focal, &|| {
            focal(logits.clone(), truth.clone(), losses.focal_gamma)
        }),
        (losses.tversky, &|| {
            let costs = [losses.tversky_alpha, losses.tversky_beta];
            tversky(logits.clone(), truth.clone(), costs, losses.overlap_of)
        }),
        (losses.lovasz, &|| {
            lovasz_hinge(logits.clone(), truth.clone())
        }),
    ];
    terms
        .into_iter()
        .filter(|(weight, _)| *weight > 0.0)
        .map(|(weight, loss)| loss() * weight)
        .reduce(|sum, term| sum + term)
        .expect("the config sees to it that a weight is positive")
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

/// Mean of `(1 - q)^gamma * -ln(q)`, where q is the probability given to the truth (Lin et al. 2017,
/// equation 4).
fn focal<B: Backend>(logits: Tensor<B, 2>, truth: Tensor<B, 2>, gamma: f64) -> Tensor<B, 1> {
    let entropy = cross_entropy(logits.clone(), truth.clone());
    // 1 - q is sigmoid(-x) where the truth is 1, and sigmoid(x) where it is 0.
    let wrong = sigmoid(logits * (truth.neg() * 2.0 + 1.0));
    (wrong.powf_scalar(gamma) * entropy).mean()
}

/// `1 - Tversky index` of probabilities (Salehi et al. 2017, equation 3), with the 1 that the Dice
/// of this project has in numerator and denominator: with half a cost for a false alarm and half
/// for a miss it is `1 - Dice`, as then
/// `(2 TP + 1) / (2 TP + FP + FN + 1) = (2 TP + 1) / (|P| + |T| + 1)`.
fn tversky<B: Backend>(
    logits: Tensor<B, 2>,
    truth: Tensor<B, 2>,
    [alarm, miss]: [f64; 2],
    of: Reduction,
) -> Tensor<B, 1> {
    let n = logits.dims()[0];
    let p = sigmoid(logits);
    let sum = |t: Tensor<B, 2>| -> Tensor<B, 1> {
        match of {
            Reduction::Batch => t.sum(),
            Reduction::Tiles | Reduction::Ships => t.sum_dim(1).reshape([n]),
        }
    };
    let both = sum(p.clone() * truth.clone());
    let (found, ships) = (sum(p), sum(truth));
    let costs =
        (found - both.clone()) * (2.0 * alarm) + (ships.clone() - both.clone()) * (2.0 * miss);
    let twice = both * 2.0 + 1.0;
    let loss = (twice.clone() / (twice + costs)).neg() + 1.0;
    match of {
        Reduction::Batch | Reduction::Tiles => loss.mean(),
        Reduction::Ships => {
            let with_ship = ships.greater_elem(0.0).float();
            let count = with_ship.clone().sum().clamp_min(1.0);
            (loss * with_ship).sum() / count
        }
    }
}

/// The Lovász hinge of each tile, averaged: a convex stand-in for `1 - IoU` (Berman et al. 2018,
/// section 3.1 and algorithm 1). The order of the errors, and with it the weight of each, is found
/// on the CPU; it is constant where the loss is differentiable.
fn lovasz_hinge<B: Backend>(logits: Tensor<B, 2>, truth: Tensor<B, 2>) -> Tensor<B, 1> {
    let [n, pixels] = logits.dims();
    let errors = (logits * (truth.clone() * 2.0 - 1.0)).neg() + 1.0;
    let data = |t: &Tensor<B, 2>| -> Vec<f32> {
        let data = t.clone().into_data().convert::<f32>();
        data.iter::<f32>().collect()
    };
    let (values, labels) = (data(&errors), data(&truth));
    let weights: Vec<f32> = values
        .par_chunks(pixels)
        .zip(labels.par_chunks(pixels))
        .flat_map_iter(|(errors, labels)| jaccard_weights(errors, labels))
        .collect();
    let weights = Tensor::from_data(TensorData::new(weights, [n, pixels]), &errors.device());
    (errors.clamp_min(0.0) * weights).sum() / n as f64
}

/// How much each error adds to the Jaccard loss when the errors are set right from the largest
/// down.
fn jaccard_weights(errors: &[f32], labels: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..errors.len()).collect();
    order.sort_unstable_by(|&a, &b| errors[b].total_cmp(&errors[a]).then(a.cmp(&b)));
    let ships = labels.iter().filter(|&&label| label > 0.5).count() as f64;
    let (mut kept, mut union, mut before) = (ships, ships, 0.0);
    let mut weights = vec![0.0; errors.len()];
    for index in order {
        if labels[index] > 0.5 {
            kept -= 1.0;
        } else {
            union += 1.0;
        }
        let loss = 1.0 - kept / union;
        weights[index] = (loss - before) as f32;
        before = loss;
    }
    weights
}

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;
    use burn_flex::{Flex, FlexDevice};

    use super::*;

    fn tensor<const N: usize>(rows: [[f32; N]; 2]) -> Tensor<Flex, 2> {
        Tensor::from_floats(rows, &FlexDevice)
    }

    fn assert_loss(loss: Tensor<Flex, 1>, want: f32) {
        let got = loss.into_scalar();
        assert!((got - want).abs() < 1e-5, "{got} is not {want}");
    }

    #[test]
    fn cross_entropy_by_hand() {
        let loss = |x: f32, t: f32, smoothing: f64| {
            let tensor = |v| Tensor::<Flex, 1>::from_floats([v], &FlexDevice);
            gate(tensor(x), tensor(t), smoothing)
        };
        assert_loss(loss(0.0, 1.0, 0.0), 2f32.ln());
        // -ln(sigmoid(2)) = 0.126928, -ln(sigmoid(-2)) = 2.126928
        assert_loss(loss(2.0, 1.0, 0.0), 0.126_928);
        assert_loss(loss(500.0, 0.0, 0.0), 500.0);
        assert_loss(loss(-500.0, 0.0, 0.0), 0.0);
        // Truth 0.95: 0.95 * 0.126928 + 0.05 * 2.126928
        assert_loss(loss(2.0, 1.0, 0.1), 0.226_928);
    }

    #[test]
    fn focal_by_hand() {
        // Probabilities 0.8 of the truth and 0.25 of it: 0.04 * -ln 0.8 and 0.5625 * -ln 0.25.
        let logits = tensor([[4f32.ln()], [3f32.ln()]]);
        let truth = tensor([[1.0], [0.0]]);
        let want = (0.04 * -(0.8f32.ln()) + 0.5625 * -(0.25f32.ln())) / 2.0;
        assert_loss(focal(logits.clone(), truth.clone(), 2.0), want);
        let plain = cross_entropy(logits.clone(), truth.clone())
            .mean()
            .into_scalar();
        assert_loss(focal(logits, truth, 0.0), plain);
    }

    /// Sure and right about one pixel of two in the first tile, sure of one pixel too many in the
    /// second, which is empty.
    fn sure() -> (Tensor<Flex, 2>, Tensor<Flex, 2>) {
        (
            tensor([[50.0, 50.0, -50.0, -50.0], [50.0, -50.0, -50.0, -50.0]]),
            tensor([[1.0, 0.0, 1.0, 0.0], [0.0; 4]]),
        )
    }

    #[test]
    fn pixels_count_by_their_weight() {
        let tensor =
            |v: [f32; 3]| Tensor::<Flex, 1>::from_floats(v, &FlexDevice).reshape([1, 1, 1, 3]);
        let loss = |weight| {
            let (logits, truth) = (tensor([0.0, 2.0, 9.0]), tensor([0.5, 1.0, 0.0]));
            weighted(logits, truth, tensor(weight)).into_scalar()
        };
        // (3 ln 2 + 0.126928) / 4
        assert!((loss([3.0, 1.0, 0.0]) - 0.551_592).abs() < 1e-5);
        assert_eq!(loss([0.0; 3]), 0.0);
    }

    #[test]
    fn dice_by_hand() {
        let dice = |of| {
            let (logits, truth) = sure();
            tversky(logits, truth, [0.5, 0.5], of)
        };
        // 1 - (2 + 1) / (2 + 2 + 1), and 1 - 1 / (1 + 1).
        assert_loss(dice(Reduction::Tiles), (0.4 + 0.5) / 2.0);
        assert_loss(dice(Reduction::Ships), 0.4);
        // 1 - (2 + 1) / (3 + 2 + 1).
        assert_loss(dice(Reduction::Batch), 0.5);
        let (_, truth) = sure();
        let perfect = (truth.clone() - 0.5) * 100.0;
        assert_loss(tversky(perfect, truth, [0.5, 0.5], Reduction::Tiles), 0.0);
        let none = tensor([[-50.0; 4]; 2]);
        let empty = none.zeros_like();
        assert_loss(tversky(none, empty, [0.5, 0.5], Reduction::Ships), 0.0);
    }

    #[test]
    fn tversky_by_hand() {
        let (logits, truth) = sure();
        // TP 1, FP 1, FN 1: 1 - 3 / (3 + 2 * 0.3 + 2 * 0.7); FP 1: 1 - 1 / (1 + 2 * 0.3).
        let loss = tversky(logits, truth, [0.3, 0.7], Reduction::Tiles);
        assert_loss(loss, (0.4 + 0.375) / 2.0);
    }

    #[test]
    fn lovasz_hinge_by_hand() {
        // Errors 0.5, 2, 0, 1.5 of labels 1, 0, 1, 0. From the largest down, the Jaccard loss after
        // each is 1 - 2/3, 1 - 2/4, 1 - 1/4, 1 - 0/4; so the weights are 1/3, 1/6, 1/4, 1/4.
        let weights = jaccard_weights(&[0.5, 2.0, 0.0, 1.5], &[1.0, 0.0, 1.0, 0.0]);
        for (got, want) in weights.iter().zip([0.25, 1.0 / 3.0, 0.25, 1.0 / 6.0]) {
            assert!((got - want).abs() < 1e-6, "{weights:?}");
        }
        // The second tile is empty: only its largest error counts, max(1 + x) = 1.2.
        let logits = tensor([[0.5, 1.0, 1.0, 0.5], [0.2, -3.0, 0.1, -1.0]]);
        let truth = tensor([[1.0, 0.0, 1.0, 0.0], [0.0; 4]]);
        let first = 2.0 / 3.0 + 1.5 / 6.0 + 0.5 / 4.0;
        assert_loss(lovasz_hinge(logits, truth), (first + 1.2) / 2.0);
    }

    #[test]
    fn lovasz_hinge_of_hard_masks_is_the_jaccard_loss() {
        // Logits of 1 and -1 have errors 0 where right and 2 where wrong: twice 1 - IoU, IoU 1/3.
        let logits = tensor([[1.0, 1.0, -1.0, -1.0]; 2]);
        let truth = tensor([[1.0, 0.0, 1.0, 0.0]; 2]);
        assert_loss(lovasz_hinge(logits, truth), 2.0 * (1.0 - 1.0 / 3.0));
    }

    #[test]
    fn every_loss_falls_along_its_gradient() {
        type Ad = Autodiff<Flex>;
        let truth = Tensor::<Ad, 2>::from_floats([[1.0, 0.0, 1.0, 0.0]], &FlexDevice);
        let none = Losses {
            bce: 0.0,
            dice: 0.0,
            ..Losses::default()
        };
        for losses in [
            Losses { bce: 1.0, ..none },
            Losses { dice: 1.0, ..none },
            Losses { focal: 1.0, ..none },
            Losses {
                tversky: 1.0,
                ..none
            },
            Losses {
                lovasz: 1.0,
                ..none
            },
            Losses::default(),
        ] {
            let loss = |x: Tensor<Ad, 2>| {
                let tile = |t: Tensor<Ad, 2>| t.reshape([1, 1, 2, 2]);
                unet(tile(x), tile(truth.clone()), &losses)
            };
            let x =
                Tensor::<Ad, 2>::from_floats([[0.3, 0.6, -0.2, -0.9]], &FlexDevice).require_grad();
            let before = loss(x.clone());
            let gradient = x.grad(&before.backward()).expect("a leaf");
            let after = loss(Tensor::from_inner(x.inner() - gradient * 0.1));
            assert!(after.into_scalar() < before.into_scalar(), "{losses:?}");
        }
    }

    #[test]
    fn weights_add_up() {
        let (logits, truth) = sure();
        let tiles = |t: Tensor<Flex, 2>| t.reshape([2, 1, 2, 2]);
        let losses = Losses {
            bce: 0.0,
            dice: 2.0,
            tversky: 1.0,
            ..Losses::default()
        };
        let loss = unet(tiles(logits), tiles(truth), &losses);
        assert_loss(loss, 2.0 * 0.45 + (0.4 + 0.375) / 2.0);
    }
}
