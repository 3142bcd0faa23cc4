//! What differs between training the gate and training the U-Net.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use shipwatch::metrics;

use crate::config::Losses;
use crate::data::Tile;
use crate::loss;
use crate::nn::{FusedOps, Gate, Mode, UNet, features};
use crate::stop::{Stop, Stopped};
use crate::tensors;

/// Tiles judged at once.
const BATCH: usize = 32;

/// Share of the tiles with ships that must pass the gate when it is judged by what it stops.
const GATE_RECALL: f64 = 0.98;

/// Quality on tiles that were not trained on; higher is better.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Score {
    /// What weights are chosen by: the mean of the two that the network has.
    pub(crate) combined: f64,
    /// The gate's area under the ROC curve.
    pub(crate) auc: Option<f64>,
    /// Share of the empty tiles that the gate stops when 98 % of those with ships pass.
    pub(crate) rejected: Option<f64>,
    /// The U-Net's mean Dice of tiles with ships.
    pub(crate) dice_ships: Option<f64>,
    /// The U-Net's mean Dice of all tiles.
    pub(crate) dice_all: Option<f64>,
}

/// A network that the training loop can train.
pub(crate) trait Task<B: FusedOps>: AutodiffModule<Autodiff<B>> {
    /// The loss of a batch; the encoder's first `frozen_blocks` blocks get no gradient.
    fn loss(
        &self,
        tiles: &[Tile],
        frozen_blocks: usize,
        losses: &Losses,
        device: &B::Device,
    ) -> Tensor<Autodiff<B>, 1>;

    /// Judges by tiles of both kinds.
    ///
    /// # Errors
    /// If the user asks to stop meanwhile.
    fn judge(
        model: &Self::InnerModule,
        tiles: &[Tile],
        device: &B::Device,
        stop: &Stop,
    ) -> Result<Score, Stopped>;

    /// How strongly the network fires on each of some ship-free tiles.
    fn false_alarms(model: &Self::InnerModule, tiles: &[Tile], device: &B::Device) -> Vec<f32>;
}

impl<B: FusedOps> Task<B> for Gate<Autodiff<B>> {
    fn loss(
        &self,
        tiles: &[Tile],
        frozen_blocks: usize,
        losses: &Losses,
        device: &B::Device,
    ) -> Tensor<Autodiff<B>, 1> {
        let features = features(&self.encoder, tensors::pixels(tiles, device), frozen_blocks);
        let logits = self.classify(features, Mode::Train);
        let truth = tensors::labels(tiles, device);
        loss::gate(logits, truth, losses.label_smoothing)
    }

    fn judge(
        model: &Gate<B>,
        tiles: &[Tile],
        device: &B::Device,
        stop: &Stop,
    ) -> Result<Score, Stopped> {
        judge_gate(tiles, stop, |tiles| {
            model.forward(tensors::pixels(tiles, device))
        })
    }

    /// The ship probability.
    fn false_alarms(model: &Gate<B>, tiles: &[Tile], device: &B::Device) -> Vec<f32> {
        read(sigmoid(model.forward(tensors::pixels(tiles, device))))
    }
}

impl<B: FusedOps> Task<B> for UNet<Autodiff<B>> {
    fn loss(
        &self,
        tiles: &[Tile],
        frozen_blocks: usize,
        losses: &Losses,
        device: &B::Device,
    ) -> Tensor<Autodiff<B>, 1> {
        let features = features(&self.encoder, tensors::pixels(tiles, device), frozen_blocks);
        let outputs = self.decode(features, Mode::Train);
        unet_loss(outputs.ships, outputs.centrality, tiles, losses)
    }

    fn judge(
        model: &UNet<B>,
        tiles: &[Tile],
        device: &B::Device,
        stop: &Stop,
    ) -> Result<Score, Stopped> {
        judge_unet(tiles, stop, |tiles| {
            model.forward(tensors::pixels(tiles, device))
        })
    }

    /// The sum of the squared probabilities, in pixels: a thin haze over a whole tile does not add
    /// up to a ship.
    fn false_alarms(model: &UNet<B>, tiles: &[Tile], device: &B::Device) -> Vec<f32> {
        haze(model.forward(tensors::pixels(tiles, device)))
    }
}

/// The U-Net's loss, by the logits of its outputs.
pub(crate) fn unet_loss<B: FusedOps>(
    ships: Tensor<Autodiff<B>, 4>,
    centrality: Option<Tensor<Autodiff<B>, 4>>,
    tiles: &[Tile],
    losses: &Losses,
) -> Tensor<Autodiff<B>, 1> {
    let device = &ships.device();
    let loss = loss::unet(ships, tensors::masks(tiles, device), losses);
    match centrality {
        None => loss,
        Some(logits) => {
            let [truth, weight] = tensors::centralities(tiles, device);
            loss + loss::weighted(logits, truth, weight)
        }
    }
}

/// Judges a gate by the logits `[N]` that it gives tiles.
pub(crate) fn judge_gate<B: FusedOps>(
    tiles: &[Tile],
    stop: &Stop,
    logits: impl Fn(&[Tile]) -> Tensor<B, 1>,
) -> Result<Score, Stopped> {
    let logits = by_batch(tiles, stop, |tiles| read(logits(tiles)))?;
    let ships = tiles.iter().map(Tile::has_ship);
    let scored: Vec<(f32, bool)> = logits.into_iter().zip(ships).collect();
    let auc = metrics::auc(&scored).unwrap_or(0.0);
    let rejected = metrics::stopped_at_recall(&scored, GATE_RECALL).unwrap_or(0.0);
    Ok(Score {
        combined: (auc + rejected) / 2.0,
        auc: Some(auc),
        rejected: Some(rejected),
        ..Score::default()
    })
}

/// Judges a U-Net by the logits `[N, 1, S, S]` that it gives tiles.
pub(crate) fn judge_unet<B: FusedOps>(
    tiles: &[Tile],
    stop: &Stop,
    logits: impl Fn(&[Tile]) -> Tensor<B, 4>,
) -> Result<Score, Stopped> {
    let dice = by_batch(tiles, stop, |tiles| {
        let found = sigmoid(logits(tiles)).greater_elem(0.5).float();
        let truth = tensors::masks::<B>(tiles, &found.device());
        let both = per_tile(found.clone() * truth.clone());
        read((both * 2.0 + 1.0) / (per_tile(found) + per_tile(truth) + 1.0))
    })?;
    let mean = |keep: fn(&Tile) -> bool| {
        let kept = dice.iter().zip(tiles).filter(|(_, tile)| keep(tile));
        metrics::mean(kept.map(|(dice, _)| f64::from(*dice))).unwrap_or(0.0)
    };
    let (ships, all) = (mean(Tile::has_ship), mean(|_| true));
    Ok(Score {
        combined: (ships + all) / 2.0,
        dice_ships: Some(ships),
        dice_all: Some(all),
        ..Score::default()
    })
}

/// Sum of the squared probabilities of each tile, by its logits `[N, 1, S, S]`.
pub(crate) fn haze<B: FusedOps>(logits: Tensor<B, 4>) -> Vec<f32> {
    let p = sigmoid(logits);
    read(per_tile(p.clone() * p))
}

fn by_batch(
    tiles: &[Tile],
    stop: &Stop,
    work: impl Fn(&[Tile]) -> Vec<f32>,
) -> Result<Vec<f32>, Stopped> {
    let mut all = Vec::with_capacity(tiles.len());
    for tiles in tiles.chunks(BATCH) {
        stop.check()?;
        all.extend(work(tiles));
    }
    Ok(all)
}

/// `[N, 1, S, S] -> [N]`, summed.
fn per_tile<B: FusedOps>(t: Tensor<B, 4>) -> Tensor<B, 1> {
    let [n, ..] = t.dims();
    t.reshape([n as i32, -1]).sum_dim(1).reshape([n])
}

pub(crate) fn read<B: FusedOps>(t: Tensor<B, 1>) -> Vec<f32> {
    t.into_data().convert::<f32>().iter::<f32>().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use image::{GrayImage, RgbImage};

    use super::*;

    #[test]
    fn judging_ends_with_the_batch_in_which_the_user_asks_to_stop() {
        let tile = || Tile {
            pixels: RgbImage::new(1, 1),
            mask: GrayImage::new(1, 1),
            doubtful: false,
        };
        let tiles: Vec<Tile> = (0..3 * BATCH).map(|_| tile()).collect();
        let (stop, judged) = (Stop::new(), Cell::new(0));
        let judge = |tiles: &[Tile]| {
            judged.set(judged.get() + tiles.len());
            vec![0.0; tiles.len()]
        };
        let all = by_batch(&tiles, &stop, judge).expect("nobody asks");
        assert_eq!((all.len(), judged.take()), (tiles.len(), tiles.len()));
        let asked = |tiles: &[Tile]| {
            stop.ask();
            judge(tiles)
        };
        by_batch(&tiles, &stop, asked).expect_err("asked");
        assert_eq!(judged.get(), BATCH);
    }
}
