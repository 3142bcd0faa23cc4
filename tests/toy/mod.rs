//! A small data set, and the training binary as a process.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use image::{Rgb, RgbImage};
use shipwatch::mask::Mask;

/// Twelve pictures of a dark sea, half of them with a bright ship, and one file that is no picture.
pub(crate) fn write_data(root: &Path) {
    fs::create_dir_all(root.join("images")).expect("folder");
    let mut csv = "ImageId,EncodedPixels\n".to_owned();
    for i in 0..12u32 {
        let mut mask = Mask::new(96, 96);
        if i % 2 == 0 {
            for (x, y) in (30..60).flat_map(|x| (20..30).map(move |y| (x + i, y + 2 * i))) {
                mask.set(x, y, true);
            }
        }
        let level = |x, y| {
            if mask.get(x, y) {
                220
            } else {
                30 + ((x * 7 + y * 3) % 11) as u8
            }
        };
        let image = RgbImage::from_fn(96, 96, |x, y| Rgb([level(x, y); 3]));
        image
            .save(root.join(format!("images/{i:02}.png")))
            .expect("image");
        csv += &format!("{i:02}.png,{}\n", mask.to_rle());
    }
    fs::write(root.join("images/broken.jpg"), b"\xff\xd8\xff\xe0 cut off").expect("file");
    csv += "broken.jpg,1 5\n";
    fs::write(root.join("ship_segmentations.csv"), csv).expect("csv");
}

pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command
        .args(args)
        .current_dir(dir)
        .env_remove("RUST_BACKTRACE")
        .stderr(Stdio::null());
    command
}

pub(crate) fn train(dir: &Path, args: &[&str]) -> Output {
    command(dir, args)
        .stderr(Stdio::piped())
        .output()
        .expect("train starts")
}

pub(crate) fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
