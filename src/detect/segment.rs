//! Which tiles are segmented: those the gate lets through, and those a ship reaches into.

use image::{GrayImage, RgbImage};
use rayon::prelude::*;

use super::{Maps, TileNetworks};
use crate::inference::InferenceError;
use crate::tile::{Region, TilePlan};

/// What the segmenter says of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentation {
    /// What the segmenter says of each pixel; 0 where no tile was segmented.
    pub maps: Maps,
    /// Tiles that were segmented.
    pub segmented: usize,
}

/// Segments the tiles that `passed`, then those that a pixel of at least `threshold` reaches into,
/// until a ship reaches into no tile that was left out.
///
/// So a ship is not cut at a seam because the gate saw too little of it on one side.
pub(super) fn segment(
    networks: &dyn TileNetworks,
    plan: &TilePlan,
    pixels: &RgbImage,
    passed: &[bool],
    threshold: u8,
) -> Result<Segmentation, InferenceError> {
    assert_eq!(passed.len(), plan.count(), "one entry per tile");
    let mut tiles: Vec<Option<GrayImage>> = vec![None; plan.count()];
    let mut centralities: Vec<Option<GrayImage>> = vec![None; plan.count()];
    let mut queue: Vec<usize> = (0..plan.count()).filter(|&index| passed[index]).collect();
    while !queue.is_empty() {
        let maps: Vec<Maps> = queue
            .par_iter()
            .map(|&index| networks.segment(&plan.cut(pixels, index)))
            .collect::<Result<_, _>>()?;
        for (&index, map) in queue.iter().zip(maps) {
            tiles[index] = Some(map.probabilities);
            centralities[index] = map.centrality;
        }
        let mut reached: Vec<usize> = queue
            .iter()
            .flat_map(|&index| reached_from(plan, &tiles, index, threshold))
            .collect();
        reached.sort_unstable();
        reached.dedup();
        queue = reached;
    }
    let tells = centralities.iter().any(Option::is_some);
    Ok(Segmentation {
        maps: Maps {
            probabilities: plan.merge(&tiles),
            centrality: tells.then(|| plan.merge(&centralities)),
        },
        segmented: tiles.iter().flatten().count(),
    })
}

/// Tiles not yet segmented into which a ship of tile `index` reaches.
fn reached_from(
    plan: &TilePlan,
    tiles: &[Option<GrayImage>],
    index: usize,
    threshold: u8,
) -> Vec<usize> {
    let Some(map) = &tiles[index] else {
        return Vec::new();
    };
    let own = plan.region(index);
    // A ship may end a little before the border and yet go on: probabilities fade where a network
    // sees no surroundings.
    let margin = plan.overlap().div_ceil(2);
    plan.neighbours(index)
        .filter(|&other| tiles[other].is_none())
        .filter(|&other| {
            let other = plan.region(other);
            map.enumerate_pixels().any(|(x, y, probability)| {
                probability.0[0] >= threshold
                    && other.contains(own.x + x, own.y + y)
                    && leads_out(own, other, x, y, margin)
            })
        })
        .collect()
}

/// Whether pixel (`x`, `y`) of tile `own` lies within `margin` of a border that `other` crosses.
fn leads_out(own: Region, other: Region, x: u32, y: u32, margin: u32) -> bool {
    let near_start = |at: u32| at < margin;
    let near_end = |at: u32| own.side - 1 - at < margin;
    (other.x < own.x && near_start(x))
        || (other.x > own.x && near_end(x))
        || (other.y < own.y && near_start(y))
        || (other.y > own.y && near_end(y))
}
