//! What a file says of its picture. Tags are a bonus: a malformed one is logged at debug level and
//! left out, and never costs a frame.

mod exif;
mod geotiff;

use std::io::{BufRead, Seek};

use log::debug;

use crate::frame::Tags;

/// Tags of a raw EXIF block, as JPEG, PNG and WebP files carry it.
pub(super) fn of_exif_block(name: &str, block: Vec<u8>) -> Tags {
    let mut tags = Tags::default();
    exif::read_block(name, block, &mut tags);
    tags
}

/// Tags of a TIFF file: its EXIF directory and its GeoTIFF keys.
///
/// `reader` may stand anywhere; `size` is the picture's width and height. The EXIF directory is left out unless
/// the `whole` file may be taken into memory.
pub(super) fn of_tiff(
    name: &str,
    mut reader: impl BufRead + Seek,
    size: (u32, u32),
    whole: bool,
) -> Tags {
    let mut tags = Tags::default();
    let read = reader.rewind().and_then(|()| {
        if whole {
            exif::read_tiff(name, &mut reader, &mut tags);
        }
        reader.rewind()
    });
    match read {
        Ok(()) => geotiff::read(name, reader, size, &mut tags),
        Err(error) => debug!("{name}: no GeoTIFF tags: {error}"),
    }
    tags
}
