//! Judging frames as files, in the challenge's layout.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::FrameBuilder;
use crate::config::Config;
use crate::data::{Pool, Split};
use crate::files::replace;
use crate::progress::count;
use crate::stop::Stop;

/// Writes judging frames.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A config that names the data.
    #[arg(long)]
    config: PathBuf,
    /// Which images they are made of.
    #[arg(long, value_enum)]
    split: Split,
    /// Folder for the frames.
    #[arg(long)]
    out: PathBuf,
}

/// Builds the frames of a split and writes them below `out`: `images/`, `ship_segmentations.csv`, and
/// `kinds.csv` with `ImageId,kind,images`, the last being what a frame is made of, set apart by `;`.
pub(crate) fn run(Args { config, split, out }: &Args) -> Result<()> {
    let config = Config::load(config)?;
    let split = *split;
    ensure!(
        split != Split::Train,
        "models are judged by what they were not trained on: --split tune or test"
    );
    let pool = Pool::open(&config.data, config.cache_mib)?;
    let builder = FrameBuilder::new(&pool, split, config.judge, &Stop::new())?;
    ensure!(
        builder.count() > 0,
        "no image of the {split} split can go into a frame: give folders a `frame-scale` under [[data]]"
    );
    let images = out.join("images");
    fs::create_dir_all(&images).with_context(|| images.display().to_string())?;
    let bar = count("frames", builder.count());
    let rows: Vec<(String, &str, String, Vec<String>)> = (0..builder.count())
        .into_par_iter()
        .map(|index| {
            let frame = builder.frame(index);
            let path = images.join(&frame.id);
            frame
                .pixels
                .save(&path)
                .with_context(|| path.display().to_string())?;
            bar.inc(1);
            let ships = frame.ships.iter().map(ToString::to_string).collect();
            Ok((frame.id, frame.kind, frame.images.join(";"), ships))
        })
        .collect::<Result<_>>()?;
    bar.finish_and_clear();
    let (mut masks, mut kinds) = (
        "ImageId,EncodedPixels\n".to_owned(),
        "ImageId,kind,images\n".to_owned(),
    );
    for (id, kind, images, ships) in rows {
        kinds += &format!("{id},\"{kind}\",\"{images}\"\n");
        match ships.is_empty() {
            true => masks += &format!("{id},\n"),
            false => ships
                .iter()
                .for_each(|ship| masks += &format!("{id},{ship}\n")),
        }
    }
    for (name, text) in [("ship_segmentations.csv", masks), ("kinds.csv", kinds)] {
        let path = out.join(name);
        replace(&path, text.as_bytes()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
