//! The built-in models on the sample scene: the same ships as when they were released, by every kernel.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use shipwatch::engine::kernels;
use shipwatch::mask::{Mask, Rle};
use shipwatch::metrics::iou;

const SCENE: &str = "tests/data/sentinel2-ports/images/algiers.jpg";
const GOLDEN: &str = "tests/fixtures/golden/algiers.csv";
const ROADS: &str = "tests/data/sentinel2-ports/images/algiers-roads.png";
const ROADS_GOLDEN: &str = "tests/fixtures/golden/algiers-roads.csv";
const SIZE: (u32, u32) = (1351, 1126);

/// Decoders of JPEG differ between processors by a step here and there, and masks by a pixel.
const LEAST_IOU: f64 = 0.95;

/// Ships of a file in the challenge's form, each as a mask.
fn ships(csv: &str) -> Vec<Mask> {
    csv.lines()
        .skip(1)
        .filter_map(|line| line.split_once(',').map(|(_, runs)| runs))
        .map(|runs| {
            let rle: Rle = runs.parse().expect("run lengths");
            rle.to_mask(SIZE.0, SIZE.1).expect("within the scene")
        })
        .collect()
}

/// What `shipwatch detect` says of the scene with a kernel of the engine.
fn detect(kernel: &str, threads: usize) -> Output {
    detect_in(SCENE, kernel, threads)
}

fn detect_in(image: &str, kernel: &str, threads: usize) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(env!("CARGO_BIN_EXE_shipwatch"))
        .args(["detect", "--format", "csv", "--gsd", "10"])
        .args(["--threads", &threads.to_string()])
        .arg(root.join(image))
        .env("SHIPWATCH_KERNEL", kernel)
        .output()
        .expect("the binary starts")
}

#[test]
fn the_sample_scene_has_the_ships_it_had() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = detect(kernels()[0], 1);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found = ships(&String::from_utf8(output.stdout).expect("UTF-8"));
    let golden = ships(&fs::read_to_string(root.join(GOLDEN)).expect("golden file"));
    assert!(!golden.is_empty());
    assert_eq!(found.len(), golden.len(), "ships found");
    for (index, ship) in golden.iter().enumerate() {
        let best = found
            .iter()
            .map(|other| iou(ship, other))
            .fold(0.0, f64::max);
        assert!(
            best >= LEAST_IOU,
            "ship {index} of {GOLDEN}: best IoU {best}"
        );
    }
}

#[test]
fn each_kernel_finds_the_same_ships() {
    let [fastest, others @ ..] = &kernels()[..] else {
        panic!("there is always a kernel");
    };
    let wanted = detect(fastest, 1);
    // Without a name the fastest is taken.
    for kernel in others.iter().copied().chain([""]) {
        let found = detect(kernel, 1);
        assert!(found.status.success(), "{kernel}");
        assert!(found.stdout == wanted.stdout, "{kernel}");
    }
}

/// What `tests/cross/check` holds other processors to.
#[test]
fn a_lossless_image_has_the_very_same_pixels() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = fs::read(root.join(ROADS_GOLDEN)).expect("golden file");
    for kernel in kernels() {
        let found = detect_in(ROADS, kernel, 1);
        assert!(found.status.success(), "{kernel}");
        assert!(found.stdout == golden, "{kernel}");
    }
}

/// Tiles of the scene, and rows of a tile once fewer tiles are left than there are threads.
#[test]
fn any_number_of_threads_finds_the_same_ships() {
    let kernel = kernels()[0];
    let wanted = detect(kernel, 1);
    for threads in [2, 3, 7] {
        let found = detect(kernel, threads);
        assert!(found.status.success(), "{threads}");
        assert!(found.stdout == wanted.stdout, "{threads}");
    }
}

#[test]
fn a_kernel_that_there_is_not_is_a_clear_error() {
    let output = detect("abacus", 1);
    assert_eq!(output.status.code(), Some(78));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("SHIPWATCH_KERNEL is `abacus`"),
        "{message}"
    );
    assert!(message.contains("portable"), "{message}");
}
