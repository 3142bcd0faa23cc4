//! What decoders do not do for a JPEG. They fill the missing rest of a cut file with grey and say
//! nothing, and refuse a frame of Motion JPEG, whose Huffman tables are left out.

use std::borrow::Cow;
use std::io::{self, BufRead, ErrorKind, Read};

const START_OF_IMAGE: [u8; 2] = [0xFF, 0xD8];
const HUFFMAN_TABLES: u8 = 0xC4;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

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

/// The image with the tables of ISO/IEC 10918-1, K.3, where it has none before its first scan:
/// frames of Motion JPEG leave them out. `None` if it does not begin as a JPEG, or ends before a scan.
pub(super) fn with_huffman_tables(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut rest = bytes.strip_prefix(&START_OF_IMAGE)?;
    let behind_start = rest;
    loop {
        match next_marker(&mut rest).ok()? {
            HUFFMAN_TABLES => return Some(Cow::Borrowed(bytes)),
            START_OF_SCAN => break,
            END_OF_IMAGE => return None,
            marker if has_segment(marker) => {
                let length = segment(&mut rest).ok()?;
                skip(&mut rest, length).ok()?;
            }
            _ => {}
        }
    }
    let mut whole = Vec::with_capacity(bytes.len() + 424);
    whole.extend(START_OF_IMAGE);
    for (class_and_slot, counts, values) in [
        (0x00, &DC_LUMINANCE, &DC_VALUES[..]),
        (0x10, &AC_LUMINANCE, &AC_LUMINANCE_VALUES),
        (0x01, &DC_CHROMINANCE, &DC_VALUES),
        (0x11, &AC_CHROMINANCE, &AC_CHROMINANCE_VALUES),
    ] {
        let length = (2 + 1 + counts.len() + values.len()) as u16;
        whole.extend([0xFF, HUFFMAN_TABLES]);
        whole.extend(length.to_be_bytes());
        whole.push(class_and_slot);
        whole.extend(counts);
        whole.extend(values);
    }
    whole.extend(behind_start);
    Some(Cow::Owned(whole))
}

/// How many codes have 1, 2, ... 16 bits.
const DC_LUMINANCE: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_CHROMINANCE: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
const AC_LUMINANCE: [u8; 16] = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D];
const AC_CHROMINANCE: [u8; 16] = [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77];

const DC_VALUES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
#[rustfmt::skip]
const AC_LUMINANCE_VALUES: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2A, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7,
    0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3, 0xC4, 0xC5,
    0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
    0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
    0xF9, 0xFA,
];
#[rustfmt::skip]
const AC_CHROMINANCE_VALUES: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0,
    0x15, 0x62, 0x72, 0xD1, 0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26,
    0x27, 0x28, 0x29, 0x2A, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5,
    0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
    0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
    0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
    0xF9, 0xFA,
];

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

    /// Without its Huffman tables, as cameras send it.
    fn bare(jpeg: &[u8]) -> Vec<u8> {
        let mut bare = START_OF_IMAGE.to_vec();
        let mut rest = &jpeg[2..];
        while rest[1] != START_OF_SCAN {
            let end = 2 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            if rest[1] != HUFFMAN_TABLES {
                bare.extend(&rest[..end]);
            }
            rest = &rest[end..];
        }
        bare.extend(rest);
        bare
    }

    #[test]
    fn frames_of_motion_jpeg_get_the_tables_of_the_standard() {
        // The encoder uses the tables of the standard and says so in each file.
        let jpeg = encoded();
        let bare = bare(&jpeg);
        assert!(bare.len() + 400 < jpeg.len(), "tables taken out");
        let whole = with_huffman_tables(&bare).expect("a JPEG");
        let pixels = |bytes: &[u8]| image::load_from_memory(bytes).expect("decodes").to_rgb8();
        assert_eq!(pixels(&whole), pixels(&jpeg));
        assert!(is_whole(&whole[..]).expect("reads"));

        let kept = with_huffman_tables(&jpeg).expect("a JPEG");
        assert!(matches!(kept, Cow::Borrowed(bytes) if bytes == jpeg));
    }

    #[test]
    fn what_has_no_scan_gets_no_tables() {
        let jpeg = encoded();
        let bare = bare(&jpeg);
        let scan = bare
            .windows(2)
            .rposition(|pair| pair == [0xFF, START_OF_SCAN])
            .expect("a scan");
        for end in 0..scan + 2 {
            assert_eq!(with_huffman_tables(&bare[..end]), None, "cut at {end}");
        }
        assert_eq!(with_huffman_tables(&jpeg[1..]), None, "no start");
        assert_eq!(with_huffman_tables(b"\xff\xd8\xff\xd9"), None);
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
