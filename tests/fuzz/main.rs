//! Mangled images, which are refused or are frames, and mangled models: each is refused with an error or is a network that runs, and what the engine of bytes
//! runs of it is what tract makes of the same model alone. `fuzz/` does the same for as long as one likes.

#![expect(unreachable_pub, reason = "modules that fuzz/ shares")]

mod frame;
mod mangle;
mod network;
mod panics;
mod trial;

use std::collections::BTreeMap;

use frame::Sight;
use mangle::Noise;
use network::networks;
use prost::Message;
use tract_onnx::pb::ModelProto;
use trial::{Outcome, trial};

const SHIPPED: [&[u8]; 2] = [
    include_bytes!("../../models/base-int8/gate.onnx"),
    include_bytes!("../../models/base-int8/unet.onnx"),
];

/// Changes bytes of a file, loses some or repeats some.
fn change_bytes(file: &mut Vec<u8>, noise: &mut Noise) {
    for _ in 0..1 + noise.below(3) {
        let (at, to) = (noise.below(file.len()), noise.below(file.len()));
        let span = at.min(to)..at.max(to).min(at.min(to) + 64);
        match noise.below(6) {
            0 => file.truncate(at),
            1 => drop(file.drain(span)),
            2 => {
                let piece = file[span].to_vec();
                file.splice(at..at, piece);
            }
            3 => file.insert(at, noise.byte()),
            _ => {
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= 1 << noise.below(8);
                }
            }
        }
    }
}

/// Mangles one of some files for each seed, and counts what becomes of them.
fn try_all(files: &[Vec<u8>], seeds: std::ops::Range<u64>) -> BTreeMap<Outcome, usize> {
    panics::watch();
    let decode = |file: &Vec<u8>| ModelProto::decode(&file[..]).expect("a model");
    let models: Vec<ModelProto> = files.iter().map(decode).collect();
    let mut outcomes = BTreeMap::new();
    for seed in seeds {
        let mut noise = Noise::new(seed);
        let which = noise.below(files.len());
        let file = match noise.below(4) {
            0 => {
                let mut file = files[which].clone();
                change_bytes(&mut file, &mut noise);
                file
            }
            _ => {
                let mut model = models[which].clone();
                mangle::structure(&mut model, &mut noise);
                model.encode_to_vec()
            }
        };
        *outcomes.entry(trial(&file, seed)).or_default() += 1;
    }
    println!("{outcomes:?}");
    outcomes
}

#[test]
fn mangled_images_are_refused_or_frames() {
    panics::watch();
    let (mut frames, mut refused) = (0, 0);
    for file in frame::images() {
        assert_eq!(frame::look(&file), Sight::Frame);
        for seed in 0..500 {
            let mut noise = Noise::new(seed);
            let mut file = file.clone();
            change_bytes(&mut file, &mut noise);
            match frame::look(&file) {
                Sight::Frame => frames += 1,
                Sight::Refused => refused += 1,
            }
        }
    }
    println!("{frames} frames, {refused} refused");
    // Of PNG, whose chunks have checksums, few are left.
    assert!(frames > 1000 && refused > 1000);
}

#[test]
fn mangled_networks_are_refused_or_run_as_tract_runs_them() {
    let files = networks();
    for file in &files {
        assert_eq!(trial(file, 0), Outcome::Agreed);
    }
    let outcomes = try_all(&files, 0..2000);
    for outcome in [Outcome::Refused, Outcome::Ran, Outcome::Agreed] {
        assert!(outcomes[&outcome] > 100, "{outcomes:?}");
    }
}

#[test]
fn mangled_shipped_models_are_refused_or_load() {
    let outcomes = try_all(&SHIPPED.map(<[u8]>::to_vec), 0..16);
    assert!(outcomes[&Outcome::Refused] > 2, "{outcomes:?}");
    assert!(outcomes[&Outcome::Loaded] > 2, "{outcomes:?}");
}
