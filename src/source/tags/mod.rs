//! What a file says of its picture. Tags are a bonus: a malformed one is logged at debug level and
//! left out, and never costs a frame.

mod drone;
mod exif;
mod geotiff;

use std::io::{BufRead, Seek};

use log::debug;

use crate::frame::{Lens, Tags};

/// Tags of a raw EXIF block and an XMP packet, as JPEG, PNG and WebP files carry them; `size` is the picture's
/// width and height.
pub(super) fn of_blocks(
    name: &str,
    exif: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
    size: (u32, u32),
) -> Tags {
    let mut tags = Tags::default();
    let lens = exif.and_then(|block| exif::read_block(name, block, size, &mut tags));
    tags.gsd = ground_resolution(lens, xmp, size.0);
    tags
}

/// Tags of a TIFF file: its EXIF directory, its XMP packet and its GeoTIFF keys.
///
/// `reader` may stand anywhere; `size` is the picture's width and height. The EXIF directory is left out unless
/// the `whole` file may be taken into memory.
pub(super) fn of_tiff(
    name: &str,
    mut reader: impl BufRead + Seek,
    xmp: Option<Vec<u8>>,
    size: (u32, u32),
    whole: bool,
) -> Tags {
    let mut tags = Tags::default();
    let mut lens = None;
    let read = reader.rewind().and_then(|()| {
        if whole {
            lens = exif::read_tiff(name, &mut reader, size, &mut tags);
        }
        reader.rewind()
    });
    match read {
        Ok(()) => geotiff::read(name, reader, size, &mut tags),
        Err(error) => debug!("{name}: no GeoTIFF tags: {error}"),
    }
    // A picture with a grid was laid out on the ground: it is no longer what the camera saw.
    if tags.geotransform.is_none() {
        tags.gsd = ground_resolution(lens, xmp, size.0);
    }
    tags
}

/// Metres per pixel of a picture that a drone took of the ground below it.
fn ground_resolution(lens: Option<Lens>, xmp: Option<Vec<u8>>, width: u32) -> Option<f64> {
    let gsd = lens?.swath(drone::height(&xmp?)?) / f64::from(width);
    (gsd.is_finite() && gsd > 0.0).then_some(gsd)
}
