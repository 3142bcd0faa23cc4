//! Whether a JPEG is whole. Decoders fill the missing rest of a cut file with grey and say nothing.

use std::io::{self, BufRead, ErrorKind, Read};

const END_OF_IMAGE: u8 = 0xD9;

/// Follows the marker segments from the start of the file to the end-of-image marker.
///
/// Looking at the last two bytes would not do: cameras append data behind the marker, and the
/// thumbnail inside of EXIF has an end marker of its own.
///
/// # Errors
/// Only what the reader itself reports; running out of bytes is `Ok(false)`.
pub(super) fn is_whole(reader: impl BufRead) -> io::Result<bool> {
    match follow_markers(reader) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn follow_markers(mut reader: impl BufRead) -> io::Result<()> {
    let mut marker = next_marker(&mut reader)?;
    while marker != END_OF_IMAGE {
        if has_segment(marker) {
            let mut length = [0; 2];
            reader.read_exact(&mut length)?;
            // The length counts its own two bytes.
            skip(
                &mut reader,
                u16::from_be_bytes(length).saturating_sub(2).into(),
            )?;
        }
        marker = next_marker(&mut reader)?;
    }
    Ok(())
}

/// Goes to the next marker. Behind a scan header that passes over the entropy-coded data, in which
/// 0xFF is followed by 0.
fn next_marker(reader: &mut impl BufRead) -> io::Result<u8> {
    loop {
        if reader.skip_until(0xFF)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut code = [0xFF];
        while code == [0xFF] {
            reader.read_exact(&mut code)?;
        }
        if code != [0] {
            return Ok(code[0]);
        }
    }
}

/// Markers without a segment: TEM, restart 0 to 7 and start of image.
fn has_segment(marker: u8) -> bool {
    !matches!(marker, 0x01 | 0xD0..=0xD8)
}

fn skip(reader: &mut impl BufRead, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut reader.by_ref().take(bytes), &mut io::sink())?;
    if skipped == bytes {
        Ok(())
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;

    fn encoded() -> Vec<u8> {
        let noise = image::RgbImage::from_fn(64, 64, |x, y| {
            image::Rgb([(x * y) as u8, (x * 31) as u8, (y * 17) as u8])
        });
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 95)
            .encode_image(&noise)
            .expect("encodes");
        bytes
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = encoded();
        assert!(is_whole(&whole[..]).expect("reads"));
        for end in 0..whole.len() {
            assert!(
                !is_whole(&whole[..end]).expect("reads"),
                "cut at {end} of {}",
                whole.len()
            );
        }
    }

    #[test]
    fn trailing_bytes_are_allowed_and_a_thumbnail_is_not_the_end() {
        let plain = encoded();
        let trailing = [&plain[..], b"maker data"].concat();
        assert!(is_whole(&trailing[..]).expect("reads"));

        // An APP1 segment that holds a whole JPEG of its own, then a cut main image.
        let mut with_thumbnail = vec![0xFF, 0xD8, 0xFF, 0xE1];
        with_thumbnail.extend((plain.len() as u16 + 2).to_be_bytes());
        with_thumbnail.extend(&plain);
        with_thumbnail.extend(&plain[2..]);
        assert!(is_whole(&with_thumbnail[..]).expect("reads"));
        assert!(!is_whole(&with_thumbnail[..with_thumbnail.len() - 2]).expect("reads"));
    }
}
