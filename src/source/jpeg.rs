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

/// Width and height, by the first frame header: what comes behind it is not read.
///
/// # Errors
/// What the reader itself reports; [`ErrorKind::UnexpectedEof`] if there is no such header.
pub(super) fn size(mut reader: impl BufRead) -> io::Result<(u32, u32)> {
    loop {
        let marker = next_marker(&mut reader)?;
        if marker == END_OF_IMAGE {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if !has_segment(marker) {
            continue;
        }
        let length = segment(&mut reader)?;
        if is_frame(marker) {
            // Bits per sample, height and width.
            let mut frame = [0; 5];
            reader.read_exact(&mut frame)?;
            let [_, h1, h0, w1, w0] = frame;
            return Ok((
                u16::from_be_bytes([w1, w0]).into(),
                u16::from_be_bytes([h1, h0]).into(),
            ));
        }
        skip(&mut reader, length)?;
    }
}

fn follow_markers(mut reader: impl BufRead) -> io::Result<()> {
    let mut marker = next_marker(&mut reader)?;
    while marker != END_OF_IMAGE {
        if has_segment(marker) {
            let length = segment(&mut reader)?;
            skip(&mut reader, length)?;
        }
        marker = next_marker(&mut reader)?;
    }
    Ok(())
}

/// Bytes of a segment behind its length, which counts its own two bytes.
fn segment(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut length = [0; 2];
    reader.read_exact(&mut length)?;
    Ok(u16::from_be_bytes(length).saturating_sub(2).into())
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

/// Start of frame 0 to 15, among which lie those of Huffman tables, arithmetic conditioning and one
/// that is reserved.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
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
    fn the_size_stands_in_the_header() {
        let image = image::RgbImage::new(300, 70);
        let mut bytes = Vec::new();
        JpegEncoder::new(&mut bytes)
            .encode_image(&image)
            .expect("encodes");
        assert_eq!(size(&bytes[..]).expect("a header"), (300, 70));
        // A thumbnail's size is not the image's, and pixels need not be there.
        let mut with_thumbnail = vec![0xFF, 0xD8, 0xFF, 0xE1];
        let thumbnail = encoded();
        with_thumbnail.extend((thumbnail.len() as u16 + 2).to_be_bytes());
        with_thumbnail.extend(&thumbnail);
        with_thumbnail.extend(&bytes[2..bytes.len() / 2]);
        assert_eq!(size(&with_thumbnail[..]).expect("a header"), (300, 70));
        size(&bytes[..20]).expect_err("no header");
        size(&b"\xff\xd8\xff\xd9"[..]).expect_err("nothing but an end");
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
