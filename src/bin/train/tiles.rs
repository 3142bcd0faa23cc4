//! `train tiles`: contact sheets of what training sees.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{Rgb, RgbImage, imageops};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::config::{Config, PhaseName};
use crate::data::{Pool, Sampler, Split, Tile};
use crate::run_folder::RunFolder;

/// Tiles on a sheet, across and down.
const SHEET: (u32, u32) = (6, 4);

/// Pixels between tiles.
const GAP: u32 = 2;

/// Writes tiles as PNG sheets.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What would be trained on what (TOML).
    #[arg(long)]
    config: PathBuf,
    /// Folder for the sheets.
    #[arg(long)]
    out: PathBuf,
    /// Tiles with ships, and as many without.
    #[arg(long, default_value_t = 48)]
    count: usize,
    /// A run of this config: the scenes without ships that its networks fire on are written, too.
    #[arg(long)]
    run: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { out, count, .. } = args;
    let config = Config::load(&args.config)?;
    let pool = Pool::open(&config.data, config.cache_mib)?;
    let sampler = Sampler::new(&pool, Split::Train, config.tile, Some(config.augment))?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let mut rng = StdRng::seed_from_u64(config.seed);
    for (name, ship) in [("ship", true), ("no-ship", false)] {
        let tiles: Vec<Tile> = (0..*count)
            .map(|_| sampler.draw(ship, rng.random(), rng.random()))
            .collect::<Result<_>>()?;
        save(out, name, &tiles, config.tile)?;
    }
    if let Some(run) = &args.run {
        let folder = RunFolder::open(run)?;
        for phase in PhaseName::ALL {
            let Some(state) = folder.state(phase)? else {
                continue;
            };
            let tiles: Vec<Tile> = (state.mined.scenes.iter())
                .map(|&scene| sampler.draw(false, scene, scene))
                .collect::<Result<_>>()?;
            save(out, &format!("mined-{}", phase.name()), &tiles, config.tile)?;
        }
    }
    log::info!("wrote {}", out.display());
    Ok(())
}

fn save(out: &Path, name: &str, tiles: &[Tile], side: u32) -> Result<()> {
    for (number, tiles) in tiles.chunks((SHEET.0 * SHEET.1) as usize).enumerate() {
        let path = out.join(format!("{name}-{number:02}.png"));
        sheet(tiles, side)
            .save(&path)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Tiles side by side, their ships outlined.
fn sheet(tiles: &[Tile], side: u32) -> RgbImage {
    let pitch = side + GAP;
    let rows = (tiles.len() as u32).div_ceil(SHEET.0);
    let mut sheet = RgbImage::new(SHEET.0 * pitch, rows * pitch);
    for (number, tile) in (0..).zip(tiles) {
        let (column, row) = (number % SHEET.0, number / SHEET.0);
        imageops::replace(
            &mut sheet,
            &outlined(tile),
            i64::from(column * pitch),
            i64::from(row * pitch),
        );
    }
    sheet
}

/// Inks the pixels around each ship in a colour of its own, so that the ship itself stays visible.
fn outlined(tile: &Tile) -> RgbImage {
    const INKS: [Rgb<u8>; 3] = [Rgb([255, 0, 255]), Rgb([255, 220, 0]), Rgb([0, 255, 80])];
    let mut out = tile.pixels.clone();
    let (width, height) = tile.mask.dimensions();
    for (x, y, mask) in tile.mask.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 0) {
        let around = |at: u32, size: u32| at.saturating_sub(1)..(at + 2).min(size);
        for (x, y) in around(y, height).flat_map(|y| around(x, width).map(move |x| (x, y))) {
            if tile.mask.get_pixel(x, y).0[0] == 0 {
                out.put_pixel(x, y, INKS[usize::from(mask.0[0]) % INKS.len()]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma};

    #[test]
    fn ships_are_outlined_and_stay_visible() {
        let ship = |x, y| (3..6).contains(&x) && (2..4).contains(&y);
        let tile = Tile {
            pixels: RgbImage::from_pixel(10, 8, Rgb([9; 3])),
            mask: GrayImage::from_fn(10, 8, |x, y| Luma([u8::from(ship(x, y))])),
            doubtful: false,
        };
        let out = sheet(&[tile], 10);
        assert_eq!(out.dimensions(), (6 * 12, 12));
        for (x, y) in (0..10).flat_map(|x| (0..8).map(move |y| (x, y))) {
            let near = (2..7).contains(&x) && (1..5).contains(&y);
            let inked = out.get_pixel(x, y).0 != [9; 3];
            assert_eq!(inked, near && !ship(x, y), "({x}, {y})");
        }
    }
}
