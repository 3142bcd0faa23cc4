//! Any bytes as an image file and as a camera's buffer: refused, or a frame.

#![no_main]

#[path = "../../tests/fuzz/frame.rs"]
mod frame;
#[path = "../../tests/fuzz/panics.rs"]
mod panics;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(init: panics::watch(), |bytes: &[u8]| {
    frame::look(bytes);
});

// What begins as no image becomes one.
fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    let images = frame::images();
    let file = &images[seed as usize % images.len()];
    let known = images.iter().any(|image| data[..size].starts_with(&image[..2]));
    if known && seed % 1024 != 0 || file.len() > most {
        return fuzzer_mutate(data, size, most);
    }
    data[..file.len()].copy_from_slice(file);
    file.len()
});
