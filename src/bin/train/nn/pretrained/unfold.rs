//! Batch norms for convolutions into which theirs were folded.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::tensor::backend::Backend;

use crate::nn::layers::BATCH_NORM_EPSILON;
use crate::nn::params::{Params, apply, collect};

/// Gives a network the batch norms that it would have had before they were folded, by measuring a
/// batch of images: it computes the same as before, and its statistics are the batch's.
///
/// `norms` are those of the network whose scale is 1, whose statistics are 0 and 1, and whose shift
/// is the folded bias; the others stay. `measure` runs the network over the batch in
/// [`Mode::Measure`](crate::nn::Mode::Measure).
///
/// With mean m and variance v of a convolution's output, a scale of `sqrt(v + eps)` and a shift of
/// `folded bias + m` undo the normalisation.
pub(super) fn unfold<B: Backend, M: Module<B>>(
    network: &M,
    norms: &BTreeSet<String>,
    measure: impl FnOnce(&M),
) -> Params {
    let mut params = collect(network);
    let mut identity = params.clone();
    let epsilon = BATCH_NORM_EPSILON as f32;
    for norm in norms {
        identity.set(&format!("{norm}.gamma"), |_, gamma| {
            *gamma = (1.0 + epsilon).sqrt()
        });
    }
    let network = apply(network.clone(), &identity).expect("the network's own tensors");
    measure(&network);

    let mut measured = collect(&network);
    for norm in norms {
        let statistics = ["running_mean", "running_var"].map(|name| format!("{norm}.{name}"));
        let [mean, variance] = statistics.each_ref().map(|name| measured.values(name));
        params.set(&format!("{norm}.gamma"), |i, gamma| {
            *gamma = (variance[i] + epsilon).sqrt()
        });
        params.set(&format!("{norm}.beta"), |i, beta| *beta += mean[i]);
        for name in statistics {
            let data = measured.0.remove(&name).expect("just read");
            params.0.insert(name, data);
        }
    }
    params
}
