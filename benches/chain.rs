//! How long the built-in models take on this machine: `cargo bench --bench chain`.
//!
//! Prints the median of many runs. Machines throttle: compare figures of one call only.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use shipwatch::clock::MonotonicClock;
use shipwatch::detect::{Detector, Options};
use shipwatch::model::Bundle;
use shipwatch::source::decode::{DecodeOptions, decode_file};

const SCENE: &str = "tests/data/sentinel2-ports/images/algiers.jpg";

fn main() {
    let bundle = Bundle::embedded().expect("the built-in models load");
    let side = bundle.manifest.tile as usize;
    let image = vec![140; 3 * side * side];
    report("gate, one tile, one thread", 100, || {
        bundle.gate.run(&image).expect("the gate runs");
    });
    report("U-Net, one tile, one thread", 100, || {
        bundle.unet.run(&image).expect("the U-Net runs");
    });

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCENE);
    let decode = || decode_file(&path, &DecodeOptions::default()).expect("the scene decodes");
    report("decoding the sample scene", 10, || {
        black_box(decode());
    });
    let (frame, clock) = (decode(), MonotonicClock::new());
    let detector = Detector::new(bundle);
    report("the sample scene, all threads", 10, || {
        let record = detector.detect(&frame, &Options::default(), &clock);
        black_box(record.expect("the scene is looked at"));
    });
}

/// Runs `work` a few times unmeasured and `runs` times measured.
fn report(name: &str, runs: usize, mut work: impl FnMut()) {
    for _ in 0..runs.div_ceil(5) {
        work();
    }
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let (median, fastest) = (times[runs / 2], times[0]);
    println!(
        "{name:<32} median {:8.2} ms, fastest {:8.2} ms of {runs}",
        milliseconds(median),
        milliseconds(fastest)
    );
}
