//! Capture time, GPS position and lens from EXIF.

use std::io::{BufRead, Seek};

use exif::{DateTime, Error, Exif, Field, In, Reader, Tag, Value};
use log::debug;

use crate::frame::{Lens, Position, Tags};

/// Reads a raw EXIF block, which begins with a TIFF header, of a picture of `size` (width, height), and says how
/// wide the camera saw.
pub(super) fn read_block(
    name: &str,
    block: Vec<u8>,
    size: (u32, u32),
    tags: &mut Tags,
) -> Option<Lens> {
    let mut reader = Reader::new();
    let exif = reader.continue_on_error(true).read_raw(block);
    fill(name, exif, size, tags)
}

/// [`read_block`] for the EXIF directories of a TIFF file.
pub(super) fn read_tiff(
    name: &str,
    file: &mut (impl BufRead + Seek),
    size: (u32, u32),
    tags: &mut Tags,
) -> Option<Lens> {
    let mut reader = Reader::new();
    let exif = reader.continue_on_error(true).read_from_container(file);
    fill(name, exif, size, tags)
}

fn fill(name: &str, exif: Result<Exif, Error>, size: (u32, u32), tags: &mut Tags) -> Option<Lens> {
    let whole_or_part = exif.or_else(|error| {
        error.distill_partial_result(|errors| {
            debug!("{name}: {} malformed EXIF entries left out", errors.len());
        })
    });
    match whole_or_part {
        Ok(exif) => {
            tags.captured = captured(&exif);
            tags.position = position(&exif);
            lens(&exif, size)
        }
        Err(error) => {
            debug!("{name}: no EXIF tags: {error}");
            None
        }
    }
}

/// Diagonal in millimetres of 36 x 24 mm of film, by which equivalent focal lengths are told (CIPA DCG-001).
const FILM: f64 = 43.266_615;

/// The lens, if the picture shows what it saw: one that was cropped or resized since has another width than it
/// says, and a digital zoom shows less than the whole sensor.
fn lens(exif: &Exif, (width, height): (u32, u32)) -> Option<Lens> {
    let whole = |tag| field(exif, tag)?.value.get_uint(0);
    let number = |tag| positive(exif, tag);
    let zoomed = number(Tag::DigitalZoomRatio).is_some_and(|ratio| ratio > 1.0);
    if zoomed || whole(Tag::PixelXDimension) != Some(width) {
        return None;
    }
    let unit = match whole(Tag::FocalPlaneResolutionUnit) {
        None | Some(2) => Some(25.4),
        Some(3) => Some(10.0),
        Some(_) => None,
    };
    let (width, height) = (f64::from(width), f64::from(height));
    let sensor_width = number(Tag::FocalPlaneXResolution)
        .zip(unit)
        .map(|(pixels, unit)| width * unit / pixels)
        // Some cameras write the resolution of a print.
        .filter(|width| (1.0..=100.0).contains(width));
    let equivalent = || {
        let focal_length = f64::from(whole(Tag::FocalLengthIn35mmFilm).filter(|&mm| mm > 0)?);
        Some((focal_length, FILM * width / width.hypot(height)))
    };
    let (focal_length, sensor_width) = number(Tag::FocalLength)
        .zip(sensor_width)
        .or_else(equivalent)?;
    Some(Lens::Sensor {
        focal_length,
        sensor_width,
    })
}

fn positive(exif: &Exif, tag: Tag) -> Option<f64> {
    let Value::Rational(parts) = &field(exif, tag)?.value else {
        return None;
    };
    let value = parts.first()?.to_f64();
    (value.is_finite() && value > 0.0).then_some(value)
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

    const SIZE: (u32, u32) = (5472, 3648);

    fn block_of(fields: &[Field]) -> Vec<u8> {
        let mut writer = Writer::new();
        fields.iter().for_each(|field| writer.push_field(field));
        let mut block = std::io::Cursor::new(Vec::new());
        writer.write(&mut block, false).expect("writes");
        block.into_inner()
    }

    fn tags_of(fields: &[Field]) -> Tags {
        let mut tags = Tags::default();
        read_block("test", block_of(fields), SIZE, &mut tags);
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

    fn short(tag: Tag, value: u16) -> Field {
        Field {
            tag,
            ifd_num: In::PRIMARY,
            value: Value::Short(vec![value]),
        }
    }

    /// Millimetres of focal length and sensor.
    fn lens_of(fields: &[Field]) -> Option<(f64, f64)> {
        match read_block("test", block_of(fields), SIZE, &mut Tags::default())? {
            Lens::Sensor {
                focal_length,
                sensor_width,
            } => Some((focal_length, sensor_width)),
            Lens::FieldOfView(_) => None,
        }
    }

    #[test]
    fn the_sensor_is_known_by_its_resolution_or_by_the_film() {
        let width = || short(Tag::PixelXDimension, 5472);
        let focal = || ratios(Tag::FocalLength, &[(88, 10)]);
        // 5472 pixels on 13.2 mm are 5472 * 25.4 / 13.2 = 10529.4545 to the inch, 4145.4545 to the centimetre.
        let inch = || ratios(Tag::FocalPlaneXResolution, &[(115_824, 11)]);
        let close = |lens: Option<(f64, f64)>, focal_length: f64, sensor_width: f64| {
            let (focal, sensor) = lens.expect("a lens");
            assert!((focal - focal_length).abs() < 1e-9, "{focal}");
            assert!((sensor - sensor_width).abs() < 1e-3, "{sensor}");
        };
        close(lens_of(&[width(), focal(), inch()]), 8.8, 13.2);
        let centimetre = [
            ratios(Tag::FocalPlaneXResolution, &[(45_600, 11)]),
            short(Tag::FocalPlaneResolutionUnit, 3),
            width(),
            focal(),
        ];
        close(lens_of(&centimetre), 8.8, 13.2);
        // A picture of 3:2 is as wide as the film; the lens of 8.8 mm then is one of 24 mm.
        let film = || short(Tag::FocalLengthIn35mmFilm, 24);
        close(lens_of(&[width(), film()]), 24.0, 36.0);
        // What a print would have is no sensor's.
        let print = ratios(Tag::FocalPlaneXResolution, &[(72, 1)]);
        close(lens_of(&[width(), focal(), film(), print]), 24.0, 36.0);

        assert_eq!(lens_of(&[width(), focal()]), None);
        assert_eq!(lens_of(&[focal(), inch(), film()]), None, "a width untold");
        let cropped = short(Tag::PixelXDimension, 4000);
        assert_eq!(lens_of(&[cropped, focal(), inch(), film()]), None);
        let zoom = ratios(Tag::DigitalZoomRatio, &[(2, 1)]);
        assert_eq!(lens_of(&[width(), focal(), inch(), zoom]), None);
        let zero = ratios(Tag::FocalLength, &[(0, 1)]);
        assert_eq!(lens_of(&[width(), zero, inch()]), None);
    }

    #[test]
    fn rubbish_is_no_exif() {
        let mut tags = Tags::default();
        for rubbish in [b"II*\0\xFF\xFF\xFF\xFF".to_vec(), Vec::new()] {
            assert_eq!(read_block("test", rubbish, SIZE, &mut tags), None);
        }
        assert_eq!(tags, Tags::default());
    }
}
