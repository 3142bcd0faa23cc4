//! Capture time and GPS position from EXIF.

use std::io::{BufRead, Seek};

use exif::{DateTime, Error, Exif, Field, In, Reader, Tag, Value};
use log::debug;

use crate::frame::{Position, Tags};

/// Reads a raw EXIF block, which begins with a TIFF header.
pub(super) fn read_block(name: &str, block: Vec<u8>, tags: &mut Tags) {
    let mut reader = Reader::new();
    fill(name, reader.continue_on_error(true).read_raw(block), tags);
}

/// Reads the EXIF directories of a TIFF file.
pub(super) fn read_tiff(name: &str, file: &mut (impl BufRead + Seek), tags: &mut Tags) {
    let mut reader = Reader::new();
    fill(
        name,
        reader.continue_on_error(true).read_from_container(file),
        tags,
    );
}

fn fill(name: &str, exif: Result<Exif, Error>, tags: &mut Tags) {
    let whole_or_part = exif.or_else(|error| {
        error.distill_partial_result(|errors| {
            debug!("{name}: {} malformed EXIF entries left out", errors.len());
        })
    });
    match whole_or_part {
        Ok(exif) => {
            tags.captured = captured(&exif);
            tags.position = position(&exif);
        }
        Err(error) => debug!("{name}: no EXIF tags: {error}"),
    }
}

/// Capture time in RFC 3339, without an offset where the camera wrote none.
fn captured(exif: &Exif) -> Option<String> {
    [
        (
            Tag::DateTimeOriginal,
            Tag::SubSecTimeOriginal,
            Tag::OffsetTimeOriginal,
        ),
        (
            Tag::DateTimeDigitized,
            Tag::SubSecTimeDigitized,
            Tag::OffsetTimeDigitized,
        ),
    ]
    .into_iter()
    .find_map(|(time, fraction, offset)| {
        let mut parsed = DateTime::from_ascii(ascii(exif, time)?).ok()?;
        // Blank or malformed fractions and offsets leave the time itself standing.
        if let Some(text) = ascii(exif, fraction) {
            let _ = parsed.parse_subsec(text);
        }
        if let Some(text) = ascii(exif, offset) {
            let _ = parsed.parse_offset(text);
        }
        rfc3339(&parsed)
    })
}

/// `None` for fields out of range: the EXIF crate checks digits, not the calendar.
fn rfc3339(time: &DateTime) -> Option<String> {
    let civil = jiff::civil::DateTime::new(
        time.year.try_into().ok()?,
        time.month.try_into().ok()?,
        time.day.try_into().ok()?,
        time.hour.try_into().ok()?,
        time.minute.try_into().ok()?,
        time.second.try_into().ok()?,
        time.nanosecond.unwrap_or(0).try_into().ok()?,
    )
    .ok()?;
    let offset = match time.offset {
        Some(minutes) if minutes.unsigned_abs() < 24 * 60 => {
            let sign = if minutes < 0 { '-' } else { '+' };
            let minutes = minutes.unsigned_abs();
            format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        }
        _ => String::new(),
    };
    Some(format!("{civil}{offset}"))
}

fn position(exif: &Exif) -> Option<Position> {
    if ascii(exif, Tag::GPSStatus).is_some_and(|status| status.starts_with(b"V")) {
        // The receiver had no fix.
        return None;
    }
    let latitude = angle(
        exif,
        Tag::GPSLatitude,
        (Tag::GPSLatitudeRef, b'N', b'S'),
        90.0,
    )?;
    let longitude = angle(
        exif,
        Tag::GPSLongitude,
        (Tag::GPSLongitudeRef, b'E', b'W'),
        180.0,
    )?;
    Some(Position {
        latitude,
        longitude,
        altitude: altitude(exif),
    })
}

/// Degrees from degrees, minutes and seconds; the sign stands in a tag of its own.
fn angle(
    exif: &Exif,
    tag: Tag,
    (sign_tag, positive, negative): (Tag, u8, u8),
    limit: f64,
) -> Option<f64> {
    let Value::Rational(parts) = &field(exif, tag)?.value else {
        return None;
    };
    let degrees: f64 = parts
        .iter()
        .zip([1.0, 60.0, 3600.0])
        .map(|(part, unit)| part.to_f64() / unit)
        .sum();
    let sign = match ascii(exif, sign_tag)?.first()? {
        letter if *letter == positive => 1.0,
        letter if *letter == negative => -1.0,
        _ => return None,
    };
    (!parts.is_empty() && degrees <= limit).then_some(sign * degrees)
}

fn altitude(exif: &Exif) -> Option<f64> {
    let Value::Rational(parts) = &field(exif, Tag::GPSAltitude)?.value else {
        return None;
    };
    let metres = parts.first()?.to_f64();
    let below_sea_level =
        field(exif, Tag::GPSAltitudeRef).and_then(|f| f.value.get_uint(0)) == Some(1);
    metres
        .is_finite()
        .then_some(if below_sea_level { -metres } else { metres })
}

fn ascii(exif: &Exif, tag: Tag) -> Option<&[u8]> {
    match &field(exif, tag)?.value {
        Value::Ascii(lines) => lines.first().map(Vec::as_slice),
        _ => None,
    }
}

fn field(exif: &Exif, tag: Tag) -> Option<&Field> {
    exif.get_field(tag, In::PRIMARY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exif::Rational;
    use exif::experimental::Writer;

    fn tags_of(fields: &[Field]) -> Tags {
        let mut writer = Writer::new();
        fields.iter().for_each(|field| writer.push_field(field));
        let mut block = std::io::Cursor::new(Vec::new());
        writer.write(&mut block, false).expect("writes");
        let mut tags = Tags::default();
        read_block("test", block.into_inner(), &mut tags);
        tags
    }

    fn text(tag: Tag, text: &str) -> Field {
        Field {
            tag,
            ifd_num: In::PRIMARY,
            value: Value::Ascii(vec![text.as_bytes().to_vec()]),
        }
    }

    fn ratios(tag: Tag, ratios: &[(u32, u32)]) -> Field {
        let value = ratios
            .iter()
            .map(|&(num, denom)| Rational { num, denom })
            .collect();
        Field {
            tag,
            ifd_num: In::PRIMARY,
            value: Value::Rational(value),
        }
    }

    #[test]
    fn time_with_fraction_and_offset() {
        let tags = tags_of(&[
            text(Tag::DateTimeOriginal, "2023:05:01 10:20:30"),
            text(Tag::SubSecTimeOriginal, "25"),
            text(Tag::OffsetTimeOriginal, "-03:30"),
        ]);
        assert_eq!(
            tags.captured.as_deref(),
            Some("2023-05-01T10:20:30.25-03:30")
        );
        let tags = tags_of(&[text(Tag::DateTimeOriginal, "2023:05:01 10:20:30")]);
        assert_eq!(tags.captured.as_deref(), Some("2023-05-01T10:20:30"));
    }

    #[test]
    fn impossible_times_are_left_out() {
        for bad in [
            "2023:13:01 10:20:30",
            "0000:00:00 00:00:00",
            "    :  :     :  :  ",
            "soon",
        ] {
            assert_eq!(
                tags_of(&[text(Tag::DateTimeOriginal, bad)]).captured,
                None,
                "{bad}"
            );
        }
    }

    #[test]
    fn position_south_west_below_the_sea() {
        let altitude_ref = Field {
            tag: Tag::GPSAltitudeRef,
            ifd_num: In::PRIMARY,
            value: Value::Byte(vec![1]),
        };
        let tags = tags_of(&[
            text(Tag::GPSLatitudeRef, "S"),
            ratios(Tag::GPSLatitude, &[(36, 1), (30, 1), (1800, 100)]),
            text(Tag::GPSLongitudeRef, "W"),
            ratios(Tag::GPSLongitude, &[(3, 1), (15, 1), (0, 1)]),
            ratios(Tag::GPSAltitude, &[(25, 10)]),
            altitude_ref,
        ]);
        let position = tags.position.expect("position");
        assert!((position.latitude - -36.505).abs() < 1e-12);
        assert!((position.longitude - -3.25).abs() < 1e-12);
        assert_eq!(position.altitude, Some(-2.5));
    }

    #[test]
    fn positions_that_cannot_be_are_left_out() {
        let longitude = [
            text(Tag::GPSLongitudeRef, "E"),
            ratios(Tag::GPSLongitude, &[(3, 1)]),
        ];
        let north = || text(Tag::GPSLatitudeRef, "N");
        for latitude in [
            vec![north(), ratios(Tag::GPSLatitude, &[(91, 1)])],
            vec![north(), ratios(Tag::GPSLatitude, &[(1, 0)])],
            vec![north(), ratios(Tag::GPSLatitude, &[(0, 0)])],
            vec![ratios(Tag::GPSLatitude, &[(45, 1)])],
            vec![
                north(),
                ratios(Tag::GPSLatitude, &[(45, 1)]),
                text(Tag::GPSStatus, "V"),
            ],
        ] {
            let fields: Vec<Field> = latitude.into_iter().chain(longitude.clone()).collect();
            assert_eq!(tags_of(&fields).position, None);
        }
    }

    #[test]
    fn rubbish_is_no_exif() {
        let mut tags = Tags::default();
        read_block("test", b"II*\0\xFF\xFF\xFF\xFF".to_vec(), &mut tags);
        read_block("test", Vec::new(), &mut tags);
        assert_eq!(tags, Tags::default());
    }
}
