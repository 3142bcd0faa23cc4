//! The chain on networks whose truth is known: a pixel is ship when it is bright.

use std::collections::BTreeMap;

use image::{GrayImage, Luma, Rgb, RgbImage};
use proptest::prelude::*;

use super::*;
use crate::model::{NetworkFile, Normalisation, Thresholds};

const TILE: u32 = 32;

/// The segmenter marks bright pixels; the gate passes a tile with at least `gate_pixels` of them.
struct Bright {
    gate_pixels: usize,
    /// Whether the red channel alone is the probability, and the green one the centrality.
    tells_centrality: bool,
}

impl TileNetworks for Bright {
    fn gate(&self, tile: &RgbImage) -> Result<f32, InferenceError> {
        let bright = tile.pixels().filter(|p| p.0[0] >= 128).count();
        Ok(if bright >= self.gate_pixels { 0.9 } else { 0.1 })
    }

    fn segment(&self, tile: &RgbImage) -> Result<Maps, InferenceError> {
        let (width, height) = tile.dimensions();
        let channel =
            |c: usize| GrayImage::from_fn(width, height, |x, y| Luma([tile.get_pixel(x, y).0[c]]));
        Ok(Maps {
            probabilities: channel(0),
            centrality: self.tells_centrality.then(|| channel(1)),
        })
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

fn detector(gate_pixels: usize) -> Detector {
    let file = NetworkFile {
        file: String::new(),
        sha256: String::new(),
    };
    let manifest = Manifest {
        schema: Manifest::SCHEMA,
        name: "bright".into(),
        version: "1".into(),
        licence: String::new(),
        tile: TILE,
        overlap: 8,
        normalisation: Normalisation {
            mean: 0.0,
            std: 1.0,
        },
        gsd: [0.5, 2.0],
        thresholds: Thresholds {
            gate: 0.5,
            classify: 0.5,
            mask: 0.5,
            min_area: 1,
            valley: None,
        },
        gate: file.clone(),
        unet: file,
        training: Vec::new(),
        run: None,
        scores: BTreeMap::new(),
    };
    let networks = Bright {
        gate_pixels,
        tells_centrality: false,
    };
    Detector::with_networks(manifest, Box::new(networks))
}

/// A detector that parts ships where the green channel falls by half.
fn parting_detector() -> Detector {
    let mut manifest = detector(1).manifest;
    manifest.thresholds.valley = Some(0.5);
    let networks = Bright {
        gate_pixels: 1,
        tells_centrality: true,
    };
    Detector::with_networks(manifest, Box::new(networks))
}

fn dark(width: u32, height: u32) -> RgbImage {
    RgbImage::new(width, height)
}

fn draw(image: &mut RgbImage, pixels: impl IntoIterator<Item = (u32, u32)>) -> Vec<(u32, u32)> {
    let mut pixels: Vec<_> = pixels.into_iter().collect();
    for &(x, y) in &pixels {
        image.put_pixel(x, y, Rgb([255; 3]));
    }
    pixels.sort_unstable();
    pixels
}

fn rectangle(x: u32, y: u32, width: u32, height: u32) -> impl Iterator<Item = (u32, u32)> {
    (x..x + width).flat_map(move |x| (y..y + height).map(move |y| (x, y)))
}

fn detect(detector: &Detector, pixels: RgbImage, options: Options) -> FrameRecord {
    let frame = Frame {
        name: "test".into(),
        pixels,
        tags: Tags::default(),
    };
    detector
        .detect(&frame, &options, &Still)
        .expect("the chain runs")
}

/// The pixels of the record's only ship.
fn only_ship(record: &FrameRecord) -> Vec<(u32, u32)> {
    let [ship] = &record.ships[..] else {
        panic!("{} ships", record.ships.len())
    };
    ship.rle.pixels(record.height).collect()
}

#[test]
fn a_ship_across_a_seam_is_one_ship() {
    let mut image = dark(56, 32);
    // Tiles cover columns 0 to 31 and 24 to 55.
    let drawn = draw(&mut image, rectangle(20, 10, 16, 4));
    let record = detect(&detector(1), image, Options::default());
    assert_eq!(record.gate.tiles, 2);
    assert_eq!(only_ship(&record), drawn);
}

#[test]
fn a_ship_across_the_corner_of_four_tiles_is_one_ship() {
    let mut image = dark(56, 56);
    let drawn = draw(&mut image, (18..40).flat_map(|i| [(i, i), (i + 1, i)]));
    let record = detect(&detector(1), image, Options::default());
    assert_eq!(record.gate.tiles, 4);
    assert_eq!(only_ship(&record), drawn);
}

#[test]
fn a_ship_longer_than_a_tile_is_one_ship() {
    let mut image = dark(160, 40);
    let drawn = draw(&mut image, rectangle(5, 12, 150, 5));
    let record = detect(&detector(1), image, Options::default());
    assert_eq!(only_ship(&record), drawn);
    let ship = &record.ships[0];
    assert_eq!((ship.length, ship.width, ship.angle), (150.0, 5.0, 0.0));
    assert_eq!((ship.score, ship.area), (1.0, 750));
}

#[test]
fn a_frame_smaller_than_a_tile_works() {
    for (width, height) in [(1, 1), (1, 50), (7, 3), (31, 32)] {
        let mut image = dark(width, height);
        let drawn = draw(&mut image, [(0, 0)]);
        let record = detect(&detector(1), image, Options::default());
        assert_eq!(only_ship(&record), drawn);
        assert_eq!((record.width, record.height), (width, height));
    }
}

#[test]
fn a_rejected_tile_is_segmented_where_a_ship_reaches_into_it() {
    // Three tiles from column 0, 24 and 48; the gate wants 40 bright pixels, which only the first
    // tile has. The ship ends in the second, so the third stays out.
    let mut image = dark(80, 32);
    let drawn = draw(&mut image, rectangle(16, 10, 18, 3));
    let record = detect(&detector(40), image, Options::default());
    assert_eq!(
        (record.gate.tiles, record.gate.passed, record.gate.segmented),
        (3, 1, 2)
    );
    assert_eq!(only_ship(&record), drawn);
}

#[test]
fn a_thin_ship_is_followed_from_tile_to_tile() {
    // A blob that passes the gate, and a long thin hull behind it that alone would not.
    let mut image = dark(200, 32);
    let drawn = draw(
        &mut image,
        rectangle(2, 4, 10, 10).chain(rectangle(12, 8, 180, 1)),
    );
    let record = detect(&detector(50), image, Options::default());
    assert_eq!(record.gate.passed, 1);
    assert_eq!(record.gate.segmented, record.gate.tiles);
    assert_eq!(only_ship(&record), drawn);
}

#[test]
fn a_ship_clear_of_the_border_segments_no_neighbour() {
    // In the overlap, but four pixels and more from the border of the tile that holds all of it.
    let mut image = dark(56, 32);
    let drawn = draw(&mut image, rectangle(10, 4, 18, 4));
    let record = detect(&detector(20), image, Options::default());
    assert_eq!((record.gate.passed, record.gate.segmented), (1, 1));
    assert_eq!(only_ship(&record), drawn);
}

#[test]
fn a_frame_that_the_gate_stops_has_no_ship() {
    let mut image = dark(100, 100);
    draw(&mut image, rectangle(10, 10, 5, 5));
    let record = detect(&detector(26), image, Options::default());
    assert_eq!((record.gate.passed, record.gate.segmented), (0, 0));
    assert_eq!(record.gate.score, 0.1);
    assert!(record.ships.is_empty());
}

#[test]
fn whether_a_frame_shows_a_ship_has_its_own_threshold() {
    let mut image = dark(40, 40);
    draw(&mut image, rectangle(4, 4, 3, 3));
    let mut detector = detector(1);
    for (classify, ship) in [(0.9, true), (0.91, false)] {
        detector.manifest.thresholds.classify = classify;
        let record = detect(&detector, image.clone(), Options::default());
        assert_eq!((record.gate.passed > 0, record.gate.ship), (true, ship));
    }
}

#[test]
fn options_override_the_manifest() {
    let mut image = dark(40, 40);
    draw(&mut image, rectangle(4, 4, 3, 3));
    image.put_pixel(20, 20, Rgb([150; 3]));
    let detector = detector(1);
    let ships = |options| detect(&detector, image.clone(), options).ships.len();
    assert_eq!(ships(Options::default()), 2);
    assert_eq!(
        ships(Options {
            min_area: Some(2),
            ..Options::default()
        }),
        1
    );
    assert_eq!(
        ships(Options {
            mask: Some(0.7),
            ..Options::default()
        }),
        1
    );
    assert_eq!(
        ships(Options {
            gate: Some(0.95),
            ..Options::default()
        }),
        0
    );
}

/// Two hulls of 60 x 12 pixels side by side, across several tiles.
fn moored_pair() -> RgbImage {
    let mut image = dark(80, 44);
    for (x, y) in rectangle(8, 10, 60, 24) {
        let row = (y - 10) % 12;
        let from_edge = row.min(11 - row) as u8;
        image.put_pixel(x, y, Rgb([255, 50 * from_edge, 0]));
    }
    image
}

#[test]
fn ships_moored_side_by_side_are_two_where_the_segmenter_tells() {
    for scale in [1.0, 0.5, 2.0] {
        let options = Options {
            scale: Some(scale),
            ..Options::default()
        };
        let record = detect(&parting_detector(), moored_pair(), options);
        let [a, b] = &record.ships[..] else {
            panic!("{} ships at {scale}", record.ships.len())
        };
        // Corners are lost where the map is resampled.
        assert!(a.area.min(b.area) >= 710, "at {scale}");
        let mut boxes = [a.bbox, b.bbox];
        boxes.sort_unstable_by_key(|bbox| bbox[1]);
        assert_eq!(boxes, [[8, 10, 60, 12], [8, 22, 60, 12]], "at {scale}");
    }
    // One that does not tell leaves them together.
    let record = detect(&detector(1), moored_pair(), Options::default());
    assert_eq!(only_ship(&record).len(), 1440);
}

#[test]
fn ships_come_by_falling_score() {
    let mut image = dark(40, 40);
    for (x, value) in [(4, 140), (14, 250), (24, 200)] {
        image.put_pixel(x, 4, Rgb([value; 3]));
    }
    let record = detect(&detector(1), image, Options::default());
    let columns: Vec<u32> = record.ships.iter().map(|ship| ship.bbox[0]).collect();
    assert_eq!(columns, [14, 24, 4]);
}

#[test]
fn a_resampled_frame_is_described_in_stored_pixels() {
    let mut image = dark(120, 90);
    draw(&mut image, rectangle(30, 20, 40, 10));
    for scale in [0.5, 2.0] {
        let options = Options {
            scale: Some(scale),
            ..Options::default()
        };
        let record = detect(&detector(1), image.clone(), options);
        assert_eq!(
            (record.width, record.height, record.scale),
            (120, 90, scale)
        );
        let [ship] = &record.ships[..] else {
            panic!("{} ships", record.ships.len())
        };
        assert_eq!(ship.bbox, [30, 20, 40, 10], "at {scale}");
        assert_eq!(ship.centroid, [50.0, 25.0]);
    }
}

#[test]
fn the_smallest_area_counts_at_the_networks_scale() {
    let mut image = dark(64, 64);
    draw(&mut image, rectangle(8, 8, 8, 8));
    let detector = detector(1);
    // 64 stored pixels are 16 at half scale.
    let ships = |min_area| {
        let options = Options {
            scale: Some(0.5),
            min_area: Some(min_area),
            ..Options::default()
        };
        detect(&detector, image.clone(), options).ships.len()
    };
    assert_eq!((ships(15), ships(18)), (1, 0));
}

#[test]
fn ground_resolution_sets_the_scale_and_gives_metres() {
    let mut image = dark(64, 64);
    draw(&mut image, rectangle(8, 8, 20, 6));
    let detector = detector(1);
    let frame = |gsd| Frame {
        name: "test".into(),
        pixels: image.clone(),
        tags: Tags {
            gsd,
            ..Tags::default()
        },
    };
    let run = |tag, gsd| {
        let options = Options {
            gsd,
            ..Options::default()
        };
        detector
            .detect(&frame(tag), &options, &Still)
            .expect("the chain runs")
    };
    // 0.25 m is finer than the 0.5 m the models know: shrunk by half.
    let tagged = run(Some(0.25), None);
    assert_eq!((tagged.scale, tagged.tags.gsd), (0.5, Some(0.25)));
    assert_eq!(
        (tagged.ships[0].length_m, tagged.ships[0].width_m),
        (Some(5.0), Some(1.5))
    );
    // What the caller says wins over the tag; 4 m is coarser than 2 m.
    let told = run(Some(0.25), Some(4.0));
    assert_eq!((told.scale, told.tags.gsd), (2.0, Some(4.0)));
    // So do 256 m of ground on 64 pixels, and a resolution over those.
    let swath = |gsd| {
        let options = Options {
            gsd,
            swath: Some(256.0),
            ..Options::default()
        };
        let record = detector.detect(&frame(Some(0.25)), &options, &Still);
        record.expect("the chain runs").tags.gsd
    };
    assert_eq!((swath(None), swath(Some(1.0))), (Some(4.0), Some(1.0)));
    // A tag that makes no sense is no tag.
    let senseless = run(Some(-1.0), None);
    assert_eq!((senseless.scale, senseless.tags.gsd), (1.0, None));
    assert_eq!(senseless.ships[0].length_m, None);
}

fn rectangular(left: f64, top: f64, right: f64, bottom: f64) -> Polygon {
    let corners = vec![[left, top], [right, top], [right, bottom], [left, bottom]];
    Polygon::try_from(corners).expect("a polygon")
}

fn looking_at(polygon: Polygon) -> Options {
    Options {
        regions: Regions {
            look: vec![polygon],
            ..Regions::default()
        },
        ..Options::default()
    }
}

fn ignoring(polygon: Polygon) -> Options {
    Options {
        regions: Regions {
            ignore: vec![polygon],
            ..Regions::default()
        },
        ..Options::default()
    }
}

#[test]
fn tiles_outside_of_the_regions_are_not_looked_at() {
    // Seven tiles from column 0, 24, 48 to 144, each with a ship of its own.
    let mut image = dark(176, 32);
    for tile in 0..7 {
        draw(&mut image, rectangle(12 + 24 * tile, 10, 6, 6));
    }
    let columns = |options: Options| {
        let record = detect(&detector(1), image.clone(), options);
        let mut columns: Vec<u32> = record.ships.iter().map(|ship| ship.bbox[0]).collect();
        columns.sort_unstable();
        (record.gate.tiles, record.gate.segmented, columns)
    };
    // Columns 32 to 47 belong to the second tile alone.
    let second = rectangular(32.0 / 176.0, 0.0, 48.0 / 176.0, 1.0);
    assert_eq!(columns(looking_at(second.clone())), (1, 1, vec![36]));
    // Tiles overlap by eight columns, so each ship but the first and the last lies in one tile alone.
    assert_eq!(columns(ignoring(second)).2, [12, 60, 84, 108, 132, 156]);
    let left = rectangular(0.0, 0.0, 96.0 / 176.0, 1.0);
    assert_eq!(columns(ignoring(left)), (4, 4, vec![108, 132, 156]));
}

#[test]
fn a_frame_of_which_all_is_ignored_shows_nothing() {
    let mut image = dark(60, 40);
    draw(&mut image, rectangle(10, 10, 5, 5));
    let mut detector = detector(1);
    detector.manifest.thresholds.classify = 0.0;
    let record = detect(&detector, image, ignoring(rectangular(0.0, 0.0, 1.0, 1.0)));
    let nothing = GateSummary {
        score: 0.0,
        ship: false,
        tiles: 0,
        passed: 0,
        segmented: 0,
    };
    assert_eq!((record.gate, record.ships), (nothing, Vec::new()));
}

#[test]
fn a_ship_across_a_regions_border_is_whole_or_none() {
    // The ship lies across two tiles, from column 18 to 37; its centroid is at 28.
    let mut image = dark(80, 32);
    let drawn = draw(&mut image, rectangle(18, 10, 20, 4));
    let looked = |right: f64| looking_at(rectangular(0.0, 0.0, right / 80.0, 1.0));
    // Columns from 24 on belong to the second tile, which shows no pixel that counts before column 24.
    let record = detect(&detector(1), image.clone(), looked(29.0));
    assert_eq!(only_ship(&record), drawn);
    let record = detect(&detector(1), image.clone(), looked(28.0));
    assert!(record.ships.is_empty());
    // A ship that reaches out of all tiles that are looked at is followed.
    let mut image = dark(80, 32);
    let drawn = draw(
        &mut image,
        rectangle(2, 8, 20, 8).chain(rectangle(22, 11, 40, 1)),
    );
    let record = detect(&detector(1), image, looked(24.0));
    assert_eq!((record.gate.tiles, record.gate.segmented), (1, 3));
    assert_eq!(only_ship(&record), drawn);
}

#[test]
fn regions_hold_for_a_resampled_frame() {
    let mut image = dark(240, 80);
    draw(&mut image, rectangle(20, 20, 20, 10));
    draw(&mut image, rectangle(180, 20, 20, 10));
    for scale in [0.5, 1.0, 2.0] {
        let options = Options {
            scale: Some(scale),
            ..ignoring(rectangular(0.0, 0.0, 0.5, 1.0))
        };
        let record = detect(&detector(1), image.clone(), options);
        let [ship] = &record.ships[..] else {
            panic!("{} ships at {scale}", record.ships.len())
        };
        assert_eq!(ship.bbox, [180, 20, 20, 10], "at {scale}");
    }
}

#[test]
fn a_frame_without_pixels_is_an_error() {
    let frame = Frame {
        name: "test".into(),
        pixels: dark(0, 5),
        tags: Tags::default(),
    };
    let result = detector(1).detect(&frame, &Options::default(), &Still);
    assert!(matches!(result, Err(DetectError::Empty)));
}

#[test]
fn time_is_split_by_stage() {
    /// Ten milliseconds pass between two looks.
    struct Ticking(std::sync::atomic::AtomicU64);

    impl Clock for Ticking {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.fetch_add(10, std::sync::atomic::Ordering::Relaxed))
        }
    }

    let frame = Frame {
        name: "test".into(),
        pixels: dark(9, 9),
        tags: Tags::default(),
    };
    let clock = Ticking(7.into());
    let record = detector(1)
        .detect(&frame, &Options::default(), &clock)
        .expect("runs");
    let stages = Millis {
        decode: 0.0,
        prepare: 10.0,
        gate: 10.0,
        segment: 10.0,
        extract: 10.0,
    };
    assert_eq!(record.millis, stages);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is drawn is what is found: each component once, no pixel twice.
    #[test]
    fn tiling_changes_nothing(
        width in 1u32..100,
        height in 1u32..100,
        strokes in prop::collection::vec((0u32..100, 0u32..100, 1u32..40, 1u32..5), 0..6),
    ) {
        let mut image = dark(width, height);
        for (x, y, w, h) in strokes {
            draw(&mut image, rectangle(x, y, w, h).filter(|&(x, y)| x < width && y < height));
        }
        let ideal = GrayImage::from_fn(width, height, |x, y| Luma([image.get_pixel(x, y).0[0]]));
        let expected = instances(&Mask::from_threshold(&ideal, 128), &ideal);
        let mut expected: Vec<_> = expected.iter().map(|i| i.to_rle(height).to_string()).collect();
        let record = detect(&detector(1), image, Options::default());
        let mut found: Vec<_> = record.ships.iter().map(|ship| ship.rle.to_string()).collect();
        expected.sort();
        found.sort();
        prop_assert_eq!(found, expected);
    }
}
