//! The tiles by which weights are compared while they are trained: as the judging frames are.

use anyhow::{Result, ensure};
use image::{GrayImage, Luma, imageops};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use super::frames::{FrameBuilder, JudgingFrame};
use crate::config::Config;
use crate::data::{Pool, Sampler, Split, Tile};
use crate::stop::Stop;

/// Tells the draws of plain images from those of training.
const PLAIN: u64 = 0x7e57 << 32;

/// `count` tiles of the tune images, half of them with ships: one half crops of judging frames, the
/// other of plain images; all of plain images where these go into no frame. They follow from the seed
/// of `[judge]`.
///
/// # Errors
/// If all are of one kind, for then no score would tell good weights from bad; or the user asks to
/// stop.
pub(crate) fn tune_tiles(
    pool: &Pool,
    config: &Config,
    count: usize,
    stop: &Stop,
) -> Result<Vec<Tile>> {
    let sampler = Sampler::new(pool, Split::Tune, config.tile, None)?;
    let frames = FrameBuilder::new(pool, Split::Tune, config.judge, stop)?;
    let framed = (0..frames.count())
        .into_par_iter()
        .map(|index| -> Result<Vec<Tile>> {
            stop.check()?;
            let key = config.judge.seed ^ (index as u64) << 8;
            Ok(crops(
                &frames.frame(index),
                config.tile,
                &mut StdRng::seed_from_u64(key),
            ))
        });
    let (ships, empty): (Vec<Tile>, Vec<Tile>) = framed
        .collect::<Result<Vec<Vec<Tile>>>>()?
        .into_iter()
        .flatten()
        .partition(Tile::has_ship);
    let quarter = count / 4;
    let mut tiles = every_nth(ships, quarter);
    tiles.extend(every_nth(empty, quarter));
    let plain = (0..(count - tiles.len()) as u64)
        .into_par_iter()
        .map(|nth| {
            stop.check()?;
            let key = PLAIN ^ config.judge.seed << 16 ^ nth;
            sampler.draw(nth % 2 == 0, key, key)
        });
    tiles.extend(plain.collect::<Result<Vec<Tile>>>()?);
    for (ship, lack) in [(true, "a ship large enough"), (false, "open water or land")] {
        ensure!(
            tiles.iter().any(|tile| tile.has_ship() == ship),
            "the images for tuning show no tile with {lack}: name others as `tune` under [[data]]"
        );
    }
    Ok(tiles)
}

/// Two random tiles of a frame; around one of its ships each where it has some. A tile that shows but a
/// scrap of a ship is none.
fn crops(frame: &JudgingFrame, side: u32, rng: &mut StdRng) -> Vec<Tile> {
    let (width, height) = frame.pixels.dimensions();
    let side = side.min(width).min(height);
    let mut mask = GrayImage::new(width, height);
    for (x, y) in frame.ships.iter().flat_map(|ship| ship.pixels(height)) {
        mask.put_pixel(x, y, Luma([255]));
    }
    let mut corner = |near: Option<u32>, length: u32| match near {
        Some(at) => rng.random_range((at + 1).saturating_sub(side)..=at.min(length - side)),
        None => rng.random_range(0..=length - side),
    };
    let mut tiles = Vec::new();
    for nth in 0..2 {
        let ship = frame.ships.get(nth * frame.ships.len() / 2);
        let near = ship.and_then(|ship| ship.pixels(height).nth(ship.area() as usize / 2));
        let x = corner(near.map(|at| at.0), width);
        let y = corner(near.map(|at| at.1), height);
        let tile = Tile {
            pixels: imageops::crop_imm(&frame.pixels, x, y, side, side).to_image(),
            mask: imageops::crop_imm(&mask, x, y, side, side).to_image(),
            doubtful: false,
        };
        if tile.has_ship() || tile.ship_pixels() == 0 {
            tiles.push(tile);
        }
    }
    tiles
}

/// `count` of the tiles, evenly spread over them; all where they are fewer.
fn every_nth(tiles: Vec<Tile>, count: usize) -> Vec<Tile> {
    let all = tiles.len();
    let chosen = |index: usize| (index + 1) * count / all > index * count / all;
    let numbered = tiles.into_iter().enumerate();
    numbered
        .filter(|(index, _)| all <= count || chosen(*index))
        .map(|(_, tile)| tile)
        .collect()
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use shipwatch::mask::Mask;

    use super::*;

    #[test]
    fn crops_of_a_ship_frame_show_its_ships_where_the_mask_says() {
        let mut mask = Mask::new(300, 200);
        for (x, y) in (250..270).flat_map(|x| (20..30).map(move |y| (x, y))) {
            mask.set(x, y, true);
        }
        let level = |x, y| Rgb([if mask.get(x, y) { 255 } else { 0 }; 3]);
        let mut frame = JudgingFrame {
            id: String::new(),
            kind: "ships",
            images: Vec::new(),
            complete: true,
            pixels: RgbImage::from_fn(300, 200, level),
            ships: vec![mask.to_rle()],
        };
        for seed in 0..20 {
            for tile in crops(&frame, 64, &mut StdRng::seed_from_u64(seed)) {
                assert_eq!(tile.pixels.dimensions(), (64, 64));
                for (pixel, mask) in tile.pixels.pixels().zip(tile.mask.pixels()) {
                    assert_eq!(pixel.0[0], mask.0[0]);
                }
            }
        }
        frame.ships.clear();
        let tiles = crops(&frame, 64, &mut StdRng::seed_from_u64(1));
        assert!(tiles.len() == 2 && tiles.iter().all(|tile| !tile.has_ship()));
    }

    #[test]
    fn as_many_as_asked_and_evenly_spread() {
        let tiles = |count: u8| -> Vec<Tile> {
            (0..count)
                .map(|i| Tile {
                    pixels: RgbImage::from_pixel(1, 1, Rgb([i; 3])),
                    mask: GrayImage::new(1, 1),
                    doubtful: false,
                })
                .collect()
        };
        let chosen = |all, count| -> Vec<u8> {
            every_nth(tiles(all), count)
                .iter()
                .map(|tile| tile.pixels.get_pixel(0, 0).0[0])
                .collect()
        };
        assert_eq!(chosen(10, 5), [1, 3, 5, 7, 9]);
        assert_eq!(chosen(7, 3), [2, 4, 6]);
        assert_eq!(chosen(3, 5), [0, 1, 2]);
        assert_eq!(chosen(0, 5), [0u8; 0]);
    }
}
