//! What differs between training the gate and training the U-Net.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use shipwatch::metrics;

use crate::data::Tile;
use crate::loss::{binary_cross_entropy, soft_dice, weighted};
use crate::nn::{FusedOps, Gate, Mode, UNet, features};
use crate::tensors;

/// Tiles judged at once when tuning.
const TUNE_BATCH: usize = 32;

/// A network that the training loop can train.
pub(crate) trait Task<B: FusedOps>: AutodiffModule<Autodiff<B>> {
    /// Stem of the run folder's files.
    const NAME: &str;

    /// What [`Task::score`] measures.
    const SCORE: &str;

    /// The loss of a batch; an encoder in [`Mode::Eval`] gets no gradient.
    fn loss(&self, tiles: &[Tile], encoder: Mode, device: &B::Device) -> Tensor<Autodiff<B>, 1>;

    /// Quality on tiles that were not trained on; higher is better.
    fn score(model: &Self::InnerModule, tiles: &[Tile], device: &B::Device) -> f64;
}

impl<B: FusedOps> Task<B> for Gate<Autodiff<B>> {
    const NAME: &str = "gate";
    const SCORE: &str = "AUC";

    fn loss(&self, tiles: &[Tile], encoder: Mode, device: &B::Device) -> Tensor<Autodiff<B>, 1> {
        let features = features(&self.encoder, tensors::pixels(tiles, device), encoder);
        let logits = self.classify(features, Mode::Train);
        binary_cross_entropy(logits, tensors::labels(tiles, device))
    }

    fn score(model: &Gate<B>, tiles: &[Tile], device: &B::Device) -> f64 {
        let mut scored = Vec::with_capacity(tiles.len());
        for tiles in tiles.chunks(TUNE_BATCH) {
            let logits = model.forward(tensors::pixels(tiles, device));
            let logits = logits.into_data().convert::<f32>();
            scored.extend(logits.iter::<f32>().zip(tiles.iter().map(Tile::has_ship)));
        }
        metrics::auc(&scored).unwrap_or(0.0)
    }
}

impl<B: FusedOps> Task<B> for UNet<Autodiff<B>> {
    const NAME: &str = "unet";
    const SCORE: &str = "Dice";

    fn loss(&self, tiles: &[Tile], encoder: Mode, device: &B::Device) -> Tensor<Autodiff<B>, 1> {
        let features = features(&self.encoder, tensors::pixels(tiles, device), encoder);
        let outputs = self.decode(features, Mode::Train);
        let (logits, truth) = (outputs.ships, tensors::masks(tiles, device));
        let loss = binary_cross_entropy(logits.clone(), truth.clone()) + soft_dice(logits, truth);
        match outputs.centrality {
            None => loss,
            Some(logits) => {
                let [truth, weight] = tensors::centralities(tiles, device);
                loss + weighted(logits, truth, weight)
            }
        }
    }

    fn score(model: &UNet<B>, tiles: &[Tile], device: &B::Device) -> f64 {
        let mut sum = 0.0;
        for tiles in tiles.chunks(TUNE_BATCH) {
            let n = tiles.len();
            let logits = model.forward(tensors::pixels(tiles, device));
            let found = sigmoid(logits).greater_elem(0.5).float();
            let truth = tensors::masks::<B>(tiles, device);
            let total = |t: Tensor<B, 4>| t.reshape([n as i32, -1]).sum_dim(1);
            let both = total(found.clone() * truth.clone());
            let dice = (both * 2.0 + 1.0) / (total(found) + total(truth) + 1.0);
            sum += dice
                .into_data()
                .convert::<f32>()
                .iter::<f32>()
                .map(f64::from)
                .sum::<f64>();
        }
        sum / tiles.len() as f64
    }
}
