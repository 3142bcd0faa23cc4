//! Grid and ground resolution from GeoTIFF keys (OGC 19-008r4).

use std::io::{Read, Seek};

use log::debug;
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use crate::frame::{GeoTransform, Tags};

/// Reads a TIFF file of `size` (width, height).
pub(super) fn read(name: &str, reader: impl Read + Seek, size: (u32, u32), tags: &mut Tags) {
    let mut decoder = match Decoder::new(reader) {
        Ok(decoder) => decoder,
        Err(error) => {
            debug!("{name}: no GeoTIFF tags: {error}");
            return;
        }
    };
    let Ok(directory) = decoder.get_tag_u16_vec(Tag::GeoKeyDirectoryTag) else {
        return;
    };
    let keys = Keys {
        directory: &directory,
    };
    let scale = decoder
        .get_tag_f64_vec(Tag::ModelPixelScaleTag)
        .unwrap_or_default();
    let tiepoint = decoder
        .get_tag_f64_vec(Tag::ModelTiepointTag)
        .unwrap_or_default();
    match geotransform(&keys, &scale, &tiepoint) {
        Some(grid) => {
            tags.gsd = ground_resolution(&keys, &grid, size);
            if tags.gsd.is_none() {
                debug!("{name}: GeoTIFF without a known unit of length; name it by --gsd");
            }
            tags.geotransform = Some(grid);
        }
        None => {
            debug!("{name}: the GeoTIFF grid is not given as north-up pixel scale and tiepoint")
        }
    }
}

/// A view of GeoKeyDirectoryTag: a header of four values, then `key, location, count, value` each.
struct Keys<'a> {
    directory: &'a [u16],
}

impl Keys<'_> {
    const MODEL_TYPE: u16 = 1024;
    const RASTER_TYPE: u16 = 1025;
    const GEODETIC_CRS: u16 = 2048;
    const ANGULAR_UNITS: u16 = 2054;
    const PROJECTED_CRS: u16 = 3072;
    const LINEAR_UNITS: u16 = 3076;

    /// A key whose value stands in the directory itself (location 0).
    fn short(&self, key: u16) -> Option<u16> {
        let entries = self.directory.get(4..)?.chunks_exact(4);
        entries
            .into_iter()
            .find(|entry| entry[..2] == [key, 0])
            .map(|entry| entry[3])
    }

    fn model(&self) -> Option<Model> {
        match self.short(Self::MODEL_TYPE)? {
            1 => Some(Model::Projected),
            2 => Some(Model::Geographic),
            _ => None,
        }
    }

    /// `None` also for 32767, "user-defined".
    fn epsg(&self) -> Option<u16> {
        let key = match self.model()? {
            Model::Projected => Self::PROJECTED_CRS,
            Model::Geographic => Self::GEODETIC_CRS,
        };
        self.short(key).filter(|code| (1024..32767).contains(code))
    }
}

#[derive(Clone, Copy)]
enum Model {
    Projected,
    Geographic,
}

fn geotransform(keys: &Keys, scale: &[f64], tiepoint: &[f64]) -> Option<GeoTransform> {
    let (&[width, height, ..], &[column, row, _, x, y, _]) = (scale, tiepoint) else {
        return None;
    };
    let positive = |size: f64| size.is_finite() && size > 0.0;
    if !positive(width) || !positive(height) {
        return None;
    }
    // "Pixel is point" ties the pixel's centre, and an origin is a corner.
    let centre = if keys.short(Keys::RASTER_TYPE) == Some(2) {
        0.5
    } else {
        0.0
    };
    let origin = [x - (column + centre) * width, y + (row + centre) * height];
    origin.iter().all(|o| o.is_finite()).then(|| GeoTransform {
        origin,
        pixel_size: [width, height],
        epsg: keys.epsg(),
    })
}

/// Metres per pixel in the middle of the picture: the geometric mean of both axes, so that areas
/// come out right where they differ.
fn ground_resolution(keys: &Keys, grid: &GeoTransform, (_, rows): (u32, u32)) -> Option<f64> {
    let [width, height] = grid.pixel_size;
    let middle = grid.origin[1] - height * f64::from(rows) / 2.0;
    let metres = match keys.model()? {
        Model::Projected => {
            let unit = metres_per_unit(keys, grid.epsg)?;
            let on_map = unit * (width * height).sqrt();
            if grid.epsg == Some(WEB_MERCATOR) {
                // Web Mercator stretches the ground by 1 / cos(latitude).
                on_map / (middle / EARTH_RADIUS).cosh()
            } else {
                on_map
            }
        }
        Model::Geographic => {
            let degrees = matches!(keys.short(Keys::ANGULAR_UNITS), None | Some(9102));
            if !degrees || middle.abs() > 90.0 {
                return None;
            }
            let [east, north] = metres_per_degree(middle.to_radians());
            (width * east * height * north).sqrt()
        }
    };
    (metres.is_finite() && metres > 0.0).then_some(metres)
}

const WEB_MERCATOR: u16 = 3857;
/// Of the sphere that Web Mercator uses, in metres.
const EARTH_RADIUS: f64 = 6_378_137.0;

/// The unit that the file names, or the metre of well-known reference systems.
fn metres_per_unit(keys: &Keys, epsg: Option<u16>) -> Option<f64> {
    match keys.short(Keys::LINEAR_UNITS) {
        Some(9001) => Some(1.0),
        Some(9002) => Some(0.3048),
        Some(9003) => Some(1200.0 / 3937.0),
        Some(_) => None,
        // Web Mercator, and UTM on WGS 84 (north, south), ETRS89 and NAD83.
        None => {
            matches!(epsg?, WEB_MERCATOR | 32601..=32660 | 32701..=32760 | 25828..=25838 | 26901..=26923)
                .then_some(1.0)
        }
    }
}

/// Length of a degree east and north on the WGS 84 ellipsoid at a latitude in radians.
fn metres_per_degree(latitude: f64) -> [f64; 2] {
    const A: f64 = 6_378_137.0;
    const E2: f64 = 0.006_694_379_990_14;
    let w2 = 1.0 - E2 * latitude.sin().powi(2);
    let prime_vertical = A / w2.sqrt();
    let meridian = A * (1.0 - E2) / w2.powf(1.5);
    [
        (prime_vertical * latitude.cos()).to_radians(),
        meridian.to_radians(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use tiff::encoder::{TiffEncoder, colortype::Gray8};

    /// `keys` are pairs of key and value; `grid` is pixel scale and tiepoint.
    fn tags_of(keys: &[(u16, u16)], grid: ([f64; 2], [f64; 6])) -> Tags {
        let mut file = Cursor::new(Vec::new());
        let mut tiff = TiffEncoder::new(&mut file).expect("header");
        let mut image = tiff.new_image::<Gray8>(4, 4).expect("image");
        let ([width, height], tiepoint) = grid;
        let mut directory = vec![1, 1, 0, keys.len() as u16];
        directory.extend(keys.iter().flat_map(|&(key, value)| [key, 0, 1, value]));
        let out = image.encoder();
        out.write_tag(Tag::GeoKeyDirectoryTag, &directory[..])
            .expect("keys");
        out.write_tag(Tag::ModelPixelScaleTag, &[width, height, 0.0][..])
            .expect("scale");
        out.write_tag(Tag::ModelTiepointTag, &tiepoint[..])
            .expect("tiepoint");
        image.write_data(&[0; 16]).expect("pixels");
        let mut tags = Tags::default();
        read("test", Cursor::new(file.into_inner()), (4, 4), &mut tags);
        tags
    }

    const UTM: [(u16, u16); 3] = [(1024, 1), (1025, 1), (3072, 32631)];

    #[test]
    fn utm_scene_with_and_without_a_unit_key() {
        let grid = ([10.0, 10.0], [0.0, 0.0, 0.0, 500_000.0, 4_070_000.0, 0.0]);
        let expected = GeoTransform {
            origin: [500_000.0, 4_070_000.0],
            pixel_size: [10.0, 10.0],
            epsg: Some(32631),
        };
        for unit in [&[][..], &[(3076, 9001)]] {
            let tags = tags_of(&[&UTM[..], unit].concat(), grid);
            assert_eq!(tags.gsd, Some(10.0));
            assert_eq!(tags.geotransform, Some(expected));
        }
    }

    #[test]
    fn point_rasters_and_inner_tiepoints_move_the_origin() {
        let keys = [(1024, 1), (1025, 2), (3072, 32631)];
        let tags = tags_of(&keys, ([2.0, 4.0], [1.0, 2.0, 0.0, 100.0, 200.0, 0.0]));
        assert_eq!(tags.geotransform.map(|g| g.origin), Some([97.0, 210.0]));
        assert_eq!(tags.gsd, Some(8.0_f64.sqrt()));
    }

    #[test]
    fn feet_are_converted_and_unknown_units_give_no_resolution() {
        let grid = ([10.0, 10.0], [0.0; 6]);
        let with = |unit| tags_of(&[(1024, 1), (3072, 2263), (3076, unit)], grid).gsd;
        assert_eq!(with(9002), Some(3.048));
        assert!((with(9003).expect("survey feet") - 3.048_006_1).abs() < 1e-6);
        assert_eq!(with(9036), None, "kilometres are not read");
        assert_eq!(tags_of(&[(1024, 1), (3072, 2263)], grid).gsd, None);
    }

    #[test]
    fn degrees_shrink_with_latitude() {
        // Known lengths of a degree: 111.320 km east and 110.574 km north on the equator, 55.800
        // and 111.412 km at 60 degrees.
        for (latitude, east, north) in [(0.0, 111_320.0, 110_574.0), (60.0, 55_800.0, 111_412.0)] {
            let size = 1e-4;
            let top = latitude + 2.0 * size;
            let keys = [(1024, 2), (2048, 4326), (2054, 9102)];
            let tags = tags_of(&keys, ([size, size], [0.0, 0.0, 0.0, 3.0, top, 0.0]));
            let expected = size * f64::sqrt(east * north);
            let gsd = tags.gsd.expect("resolution");
            assert!(
                (gsd - expected).abs() < 1e-5 * expected,
                "{gsd} for {expected}"
            );
            assert_eq!(tags.geotransform.and_then(|g| g.epsg), Some(4326));
        }
    }

    #[test]
    fn web_mercator_metres_are_not_ground_metres() {
        // y = 8399737.89 is 60 degrees north, where the map is stretched twofold.
        let tags = tags_of(
            &[(1024, 1), (3072, 3857)],
            ([1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 8_399_739.89, 0.0]),
        );
        assert!((tags.gsd.expect("resolution") - 0.5).abs() < 1e-6);
    }

    #[test]
    fn impossible_grids_are_left_out() {
        for scale in [[0.0, 1.0], [-1.0, 1.0], [f64::NAN, 1.0]] {
            assert_eq!(tags_of(&UTM, (scale, [0.0; 6])), Tags::default());
        }
        let mut tags = Tags::default();
        read("test", Cursor::new(b"no TIFF"), (1, 1), &mut tags);
        assert_eq!(tags, Tags::default());
    }
}
