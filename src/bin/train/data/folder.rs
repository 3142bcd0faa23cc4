//! What can be told of folders of images before any is decoded.

use std::path::Path;

use anyhow::{Result, bail};
use rayon::prelude::*;
use shipwatch::dataset::{Dataset, DatasetError};
use shipwatch::source::decode::read_size;

use crate::data::pool::{Pool, PoolImage};
use crate::progress::count;
use crate::stop::Stop;

/// Of many images with one fault so many are named.
const NAMED: usize = 5;

/// Opens a folder in the challenge's layout, and says which images are missing.
///
/// # Errors
/// As [`Dataset::open`].
pub(crate) fn open(root: &Path) -> Result<Dataset, DatasetError> {
    let data = Dataset::open(root)?;
    if !data.missing.is_empty() {
        log::warn!("{}: {}", root.display(), missing(&data));
    }
    Ok(data)
}

fn missing(data: &Dataset) -> String {
    let all = data.missing.len();
    let more = if all > NAMED { ", ..." } else { "" };
    format!(
        "{all} of the {} images that the CSV names are not there: {}{more}",
        all + data.images.len(),
        data.missing[..all.min(NAMED)].join(", ")
    )
}

/// Checks that the masks of all images lie on them, by the headers alone; images without a readable one
/// are reported and left out.
///
/// # Errors
/// If masks are of other images, for then others are wrong as well; the message names how many, and the
/// file and line of the first few. Or if the user asks to stop.
pub(crate) fn check_masks(pool: &Pool, stop: &Stop) -> Result<()> {
    let images: Vec<&PoolImage> = pool.sources.iter().flat_map(|s| &s.images).collect();
    let counter = count("checking masks", images.len());
    let fault = |image: &&PoolImage| -> Result<Option<DatasetError>> {
        stop.check()?;
        let fault = match read_size(&image.labelled.path) {
            Ok((width, height)) => image.labelled.check(width, height).err(),
            Err(error) => {
                counter.suspend(|| image.leave_out(&error));
                None
            }
        };
        counter.inc(1);
        Ok(fault)
    };
    let faults: Result<Vec<Option<DatasetError>>> = images.par_iter().map(fault).collect();
    counter.finish_and_clear();
    let faults: Vec<DatasetError> = faults?.into_iter().flatten().collect();
    if faults.is_empty() {
        return Ok(());
    }
    let first: Vec<String> = faults.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if faults.len() > NAMED { "\n..." } else { "" };
    bail!(
        "{} of {} images do not fit their masks: correct the CSV, or put back the images\n{}{more}",
        faults.len(),
        images.len(),
        first.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::fixtures;
    use crate::stop::Stopped;

    #[test]
    fn of_many_missing_images_the_first_few_are_named() {
        let dir = tempfile::tempdir().expect("folder");
        fixtures::pool(dir.path());
        let csv = dir.path().join("ship_segmentations.csv");
        let text = fs::read_to_string(&csv).expect("csv");
        let gone =
            |count: u32| -> String { (0..count).map(|i| format!("gone{i}.png,\n")).collect() };
        let said = |count| {
            fs::write(&csv, format!("{text}{}", gone(count))).expect("csv");
            missing(&open(dir.path()).expect("opens"))
        };
        assert_eq!(
            said(2),
            "2 of the 4 images that the CSV names are not there: gone0.png, gone1.png"
        );
        let many = said(9);
        assert!(many.starts_with("9 of the 11 images"), "{many}");
        assert!(many.ends_with("gone0.png, gone1.png, gone2.png, gone3.png, gone4.png, ..."));
    }

    #[test]
    fn masks_that_leave_their_image_are_found_by_headers() {
        let dir = tempfile::tempdir().expect("folder");
        let mut pool = fixtures::pool(dir.path());
        check_masks(&pool, &Stop::new()).expect("masks of these images");
        // A mask that ends beyond 40x50 pixels.
        pool.sources[0].images[1].labelled.ships = vec!["1999 3".parse().expect("one run")];
        let error = check_masks(&pool, &Stop::new()).expect_err("pixel 2001 of 2000");
        let error = error.to_string();
        assert!(error.starts_with("1 of 2 images"), "{error}");
        let wanted = "ship_segmentations.csv:3: a mask reaches pixel 2001 of b.png";
        assert!(error.contains(wanted), "{error}");

        let stop = Stop::new();
        stop.ask();
        let error = check_masks(&pool, &stop).expect_err("asked to stop");
        assert!(error.is::<Stopped>());
    }

    #[test]
    fn an_image_without_header_is_left_out() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let image = &pool.sources[0].images[0];
        let whole = fs::read(&image.labelled.path).expect("reads");
        fs::write(&image.labelled.path, "no picture").expect("writes");
        check_masks(&pool, &Stop::new()).expect("as if it were not there");
        // It stays out: what a run sees must not depend on when it looks.
        fs::write(&image.labelled.path, whole).expect("writes");
        let seen = pool.with_pixels(image, |pixels| pixels.dimensions());
        assert_eq!(seen.expect("masks fit"), None);
    }
}
