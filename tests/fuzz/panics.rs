//! Panics of shipwatch's own code, which it turns into errors as it does those of decoders and of tract.

use std::panic;
use std::sync::Mutex;

static OWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps panics of shipwatch's own code, and shows those of its tests.
pub fn watch() {
    panic::set_hook(Box::new(|panic| {
        let file = panic.location().map_or("", |place| place.file());
        let own = ["src/engine/", "src/frame/", "src/inference/", "src/source/"];
        if own.iter().any(|own| file.contains(own)) && !file.contains("registry") {
            OWN.lock().expect("no panic").push(panic.to_string());
        } else if file.contains("tests/") || file.contains("fuzz_targets/") {
            eprintln!("{panic}");
        }
    }));
}

/// # Panics
/// If shipwatch's own code did.
pub fn check() {
    let own = OWN.lock().expect("no panic");
    assert!(own.is_empty(), "{own:?}");
}
