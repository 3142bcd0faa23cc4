//! What people and broken disks put into a watched folder: the daemon goes on, each good image has its line, and
//! each bad one is named, with what is wrong with it, and set aside.

#![cfg(unix)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use harness::{Dir, bright_models};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use shipwatch::record::FrameRecord;

/// What the daemon may take for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

const FORMATS: [(ImageFormat, &str); 5] = [
    (ImageFormat::Jpeg, "jpg"),
    (ImageFormat::Png, "png"),
    (ImageFormat::Tiff, "tif"),
    (ImageFormat::WebP, "webp"),
    (ImageFormat::Bmp, "bmp"),
];

/// Files move to `done` and `failed`, soon.
const CONFIG: &str = "\
[output]
detections = \"out.jsonl\"
[ledger]
commit-seconds = 0.02
[[source]]
folder = \"in\"
recursive = true
settle-seconds = 0.05
rescan-seconds = 0.1
finished = \"move\"
failed-folder = \"failed\"
";

/// A folder with a daemon's config and its folder `in`.
struct Field {
    dir: Dir,
}

/// A running daemon; killed if a test fails before it stopped.
struct Daemon<'a> {
    field: &'a Field,
    child: Child,
}

impl Field {
    fn new() -> Self {
        Self::with("")
    }

    /// The config goes on with these keys of its source.
    fn with(keys: &str) -> Self {
        let dir = Dir::new();
        dir.write("config.toml", format!("{CONFIG}{keys}\n"));
        fs::create_dir(dir.path("in")).expect("creates");
        Self { dir }
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.path(".").join(name.as_ref())
    }

    fn command(&self, args: &[&str]) -> Command {
        let models = bright_models();
        let run = ["run", "--models", &models, "--config", "config.toml"];
        self.dir.shipwatch(&[&run, args].concat())
    }

    fn start(&self) -> Daemon<'_> {
        self.spawn(&mut self.command(&[]))
    }

    fn spawn(&self, command: &mut Command) -> Daemon<'_> {
        let said = File::create(self.path("said")).expect("creates");
        let child = command.stderr(said).spawn().expect("the binary starts");
        Daemon { field: self, child }
    }

    /// Runs the daemon over what is there; its exit code.
    fn once(&self, args: &[&str]) -> Option<i32> {
        self.spawn(&mut self.command(&[&["--once"], args].concat()))
            .end()
    }

    fn said(&self) -> String {
        String::from_utf8(fs::read(self.path("said")).expect("reads")).expect("UTF-8")
    }

    fn lines(&self) -> String {
        let mut text = fs::read_to_string(self.path("out.jsonl")).unwrap_or_default();
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    fn records(&self) -> Vec<FrameRecord> {
        records(&self.lines())
    }

    fn areas(&self) -> BTreeMap<String, Vec<u32>> {
        areas(&self.lines())
    }

    /// Names of a folder's files.
    fn names(&self, folder: &str) -> BTreeSet<OsString> {
        let files = fs::read_dir(self.path(folder)).into_iter().flatten();
        files.map(|file| file.expect("is").file_name()).collect()
    }

    /// Why a file was set aside.
    fn reason(&self, name: &str) -> String {
        let note = self.path(format!("failed/{name}.reason.txt"));
        fs::read_to_string(&note).unwrap_or_else(|error| panic!("{}: {error}", note.display()))
    }
}

impl Daemon<'_> {
    fn wait(&mut self, what: &str, happens: impl Fn(&Field) -> bool) {
        let start = Instant::now();
        while !happens(self.field) {
            let alive = self.child.try_wait().expect("waits").is_none();
            let said = || self.field.said();
            assert!(alive, "ended before {what}: {}", said());
            assert!(start.elapsed() < PATIENCE, "no {what}: {}", said());
            sleep(Duration::from_millis(20));
        }
    }

    /// Drops a good image and waits for its line: all that lay there longer was seen by then.
    fn wait_for_another(&mut self, name: &str) {
        let whole = self.field.dir.image(name, (40, 40), &[]);
        let at = self.field.path("in").join(name);
        fs::rename(whole, at).expect("moves");
        self.wait(name, |field| field.areas().contains_key(name));
    }

    /// The most memory that the process ever had, in megabytes.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes
            .expect("kilobytes")
            .parse::<u64>()
            .expect("a number")
            / 1024
    }

    fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status();
        assert!(status.expect("kill starts").success());
        self.ended()
    }

    fn end(mut self) -> Option<i32> {
        self.ended()
    }

    fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status.code();
            }
            let said = || self.field.said();
            assert!(start.elapsed() < PATIENCE, "does not end: {}", said());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn records(lines: &str) -> Vec<FrameRecord> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect()
}

/// The areas of ships by frame; none may have two lines.
fn areas(lines: &str) -> BTreeMap<String, Vec<u32>> {
    let mut areas = BTreeMap::new();
    for record in records(lines) {
        let ships = record.ships.iter().map(|ship| ship.area as u32).collect();
        let before = areas.insert(record.frame.clone(), ships);
        assert!(before.is_none(), "{} has two lines", record.frame);
    }
    areas
}

/// A black image with a white box of 8 x 6 pixels, which is a ship.
fn good(format: ImageFormat) -> Vec<u8> {
    boxed(format, 8)
}

fn boxed(format: ImageFormat, width: u32) -> Vec<u8> {
    let within = |x, y| (16..16 + width).contains(&x) && (16..22).contains(&y);
    let image = RgbImage::from_fn(64, 48, |x, y| Rgb([if within(x, y) { 255 } else { 0 }; 3]));
    let mut file = Cursor::new(Vec::new());
    let image = DynamicImage::from(image);
    image.write_to(&mut file, format).expect("encodes");
    file.into_inner()
}

/// Numbers that look random and are the same in each run (Marsaglia's xorshift).
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

#[test]
fn damaged_files_of_each_format_are_set_aside_and_good_ones_among_them_have_their_lines() {
    let field = Field::new();
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let mut all = BTreeSet::new();
    let mut put = |name: String, bytes: &[u8]| {
        field.dir.write(&format!("in/{name}"), bytes);
        all.insert(name);
    };
    for (format, end) in FORMATS {
        let whole = good(format);
        put(format!("a-good.{end}"), &whole);
        put(format!("z-good.{end}"), &whole);
        put(format!("empty.{end}"), b"");
        put(format!("zeros.{end}"), &[0; 5000]);
        for nth in 0..12 {
            let length = 1 + noise.below(whole.len() - 1);
            put(format!("cut-{nth}.{end}"), &whole[..length]);
        }
        for nth in 0..30 {
            let mut bytes = whole.clone();
            // Half of them in the header.
            let among = if nth % 2 == 0 { 64 } else { bytes.len() };
            for _ in 0..1 + noise.below(4) {
                bytes[noise.below(among)] ^= 1 << noise.below(8);
            }
            put(format!("flipped-{nth}.{end}"), &bytes);
        }
    }
    let models = bright_models();
    let truth = field.dir.run(&["detect", "--models", &models, "in"]);
    assert_eq!(truth.code, Some(65), "{}", truth.stderr);
    assert_eq!(field.once(&[]), Some(65));
    let (areas, said) = (areas(&truth.stdout), field.said());
    assert_eq!(field.areas(), areas);
    for (format, end) in FORMATS {
        for name in ["a-good", "z-good"].map(|name| format!("{name}.{end}")) {
            let [area] = areas[&name][..] else {
                panic!("{name}: {:?}", areas[&name]);
            };
            // A JPEG has soft edges.
            assert!(
                area == 48 || format == ImageFormat::Jpeg && area.abs_diff(48) < 20,
                "{name}"
            );
        }
        assert!(field.reason(&format!("empty.{end}")).contains("is empty"));
        let zeros = field.reason(&format!("zeros.{end}"));
        assert!(zeros.contains("is not a JPEG, PNG"), "{zeros}");
    }
    assert_eq!(field.names("in"), BTreeSet::new());
    let (done, failed) = (field.names("done"), field.names("failed"));
    for name in &all {
        let is = |names: &BTreeSet<OsString>| names.contains(OsStr::new(name));
        assert!(is(&done) != is(&failed), "{name} is in one folder");
        assert_eq!(is(&done), areas.contains_key(name), "{name}");
        let told = said
            .lines()
            .filter(|line| line.contains(&format!("in/{name}: ")));
        // Lines alike are summed up.
        assert!(told.count() <= usize::from(is(&failed)), "{name} in {said}");
        if is(&failed) {
            assert!(field.reason(name).contains(&format!("in/{name}: ")));
        }
    }
    let broken = all.len() - done.len();
    assert!(broken > 100, "{broken} are broken");
    assert_eq!(failed.len(), 2 * broken, "a note each, and nothing else");
    assert!(said.contains(&format!("{broken} skipped")), "{said}");
    let more = |line: &str| -> usize {
        let count = line.split_once("(the last of ");
        count.map_or(1, |(_, rest)| {
            let count = rest.split(' ').next().expect("a count");
            count.parse().expect("a number")
        })
    };
    let told = said.lines().filter(|line| line.contains("; skipped"));
    assert_eq!(told.map(more).sum::<usize>(), broken, "{said}");
}

#[test]
fn any_name_is_a_name() {
    let mut longest = vec![b'n'; 251];
    longest.extend(b".png");
    let names: [&[u8]; 9] = [
        b"\xff\xfe.png",
        b"new\nline.png",
        b"\"quoted\" 'twice' \\.png",
        b"-rf.png",
        b" .png",
        "M\u{f6}we \u{1f6a2}.png".as_bytes(),
        b"esc\x1b[31m.png",
        b"a.jpg.png",
        &longest,
    ];
    let field = Field::new();
    let names = names.map(OsStr::from_bytes);
    for name in names {
        fs::write(field.path("in").join(name), good(ImageFormat::Png)).expect("writes");
        // In the way, so that each gets another name in `done`.
        fs::create_dir_all(field.path("done")).expect("creates");
        fs::write(field.path("done").join(name), "in the way").expect("writes");
    }
    assert_eq!(
        field.once(&["--overlay", "seen"]),
        Some(0),
        "{}",
        field.said()
    );
    let mut expected: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    let records = field.records();
    let mut found: Vec<_> = records.iter().map(|record| record.frame.as_str()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(records.iter().all(|record| record.ships.len() == 1));
    assert_eq!(field.names("in").len(), 0);
    assert_eq!(field.names("done").len(), 2 * names.len());
    assert_eq!(field.names("seen").len(), names.len());

    // The ledger knows them all by their bytes.
    for name in names {
        fs::write(field.path("in").join(name), good(ImageFormat::Png)).expect("writes");
    }
    assert_eq!(field.once(&[]), Some(0));
    let said = field.said();
    assert!(
        said.contains(&format!("{} done before", names.len())),
        "{said}"
    );
    assert_eq!(field.records().len(), names.len());
    assert_eq!(field.names("in").len(), 0, "moved to the same place");
    assert_eq!(field.names("done").len(), 2 * names.len());

    // And so it goes with what is no image.
    for name in names {
        fs::write(field.path("in").join(name), "no image").expect("writes");
    }
    assert_eq!(field.once(&[]), Some(65));
    assert_eq!(field.names("in").len(), 0, "{}", field.said());
    let failed = field.names("failed");
    assert_eq!(failed.len(), 2 * names.len(), "a note each");
    let notes = failed
        .iter()
        .filter(|name| name.as_bytes().ends_with(b".reason.txt"));
    for note in notes {
        let file = note
            .as_bytes()
            .strip_suffix(b".reason.txt")
            .expect("a note");
        assert!(
            failed.contains(OsStr::from_bytes(file)),
            "{}",
            note.display()
        );
    }
}

#[test]
fn links_are_followed_to_read_and_never_to_move_or_delete() {
    for finished in ["keep", "move", "delete"] {
        let field = Field::new();
        let config = CONFIG.replace("finished = \"move\"", &format!("finished = \"{finished}\""));
        field.dir.write("config.toml", config);
        let [far, bad] = ["far/good.png", "far/bad.png"].map(|name| field.dir.write(name, ""));
        fs::write(&far, good(ImageFormat::Png)).expect("writes");
        fs::write(&bad, "no image").expect("writes");
        symlink("../far/good.png", field.path("in/near.png")).expect("links");
        symlink(&far, field.path("in/straight.png")).expect("links");
        symlink("../far/bad.png", field.path("in/bad.png")).expect("links");
        symlink("../far", field.path("in/folder.png")).expect("links");
        symlink("nowhere.png", field.path("in/dangling.png")).expect("links");
        symlink("loop.png", field.path("in/loop.png")).expect("links");
        assert_eq!(field.once(&[]), Some(65));
        let said = field.said();
        let found = field.areas();
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["near.png", "straight.png"], "{said}");
        for name in ["dangling.png", "loop.png"] {
            assert!(
                said.contains(&format!("in/{name}: cannot be read")),
                "{said}"
            );
        }
        assert_eq!(fs::read(&far).expect("is there"), good(ImageFormat::Png));
        assert_eq!(fs::read(&bad).expect("is there"), b"no image");
        let at = |folder: &str, name: &str| field.path(folder).join(name);
        let failed = at("failed", "bad.png");
        assert!(failed.is_symlink());
        assert_eq!(fs::read(failed).expect("leads there"), b"no image");
        for name in ["near.png", "straight.png"] {
            assert_eq!(
                at("in", name).is_symlink(),
                finished == "keep",
                "{finished}"
            );
            let done = at("done", name);
            assert_eq!(done.is_symlink(), finished == "move", "{finished}");
            if finished == "move" {
                assert_eq!(fs::read(done).expect("leads there"), good(ImageFormat::Png));
            }
        }
        for name in ["folder.png", "dangling.png", "loop.png"] {
            assert!(at("in", name).is_symlink(), "{name} stays");
        }
    }
}

#[test]
fn what_is_no_file_holds_nobody_up_and_is_told_once() {
    let field = Field::new();
    let pipe = Command::new("mkfifo")
        .arg(field.path("in/pipe.png"))
        .status();
    assert!(pipe.expect("mkfifo starts").success());
    let _socket = UnixListener::bind(field.path("in/socket.png")).expect("binds");
    symlink("/dev/zero", field.path("in/device.png")).expect("links");
    fs::create_dir(field.path("in/folder.jpg")).expect("creates");
    field
        .dir
        .write("in/folder.jpg/below.png", good(ImageFormat::Png));
    symlink("../later.png", field.path("in/dangling.png")).expect("links");
    let mut daemon = field.start();
    daemon.wait_for_another("first.png");
    daemon.wait("below", |field| {
        field.areas().contains_key("folder.jpg/below.png")
    });
    let odd = ["pipe", "socket", "device", "dangling"].map(|name| format!("in/{name}.png: "));
    daemon.wait("the odd ones", |field| {
        odd.iter().all(|name| field.said().contains(name))
    });
    // Searched several times since.
    for name in ["second.png", "third.png", "fourth.png"] {
        daemon.wait_for_another(name);
    }
    let said = field.said();
    for name in &odd {
        assert_eq!(said.matches(name.as_str()).count(), 1, "{name} in {said}");
    }
    for name in &odd[..3] {
        assert!(
            said.contains(&format!("{name}is not a regular file")),
            "{said}"
        );
    }
    // What becomes a file is one.
    field.dir.write("later.png", good(ImageFormat::Png));
    field.dir.write("pipe.png", good(ImageFormat::Png));
    fs::rename(field.path("pipe.png"), field.path("in/pipe.png")).expect("moves");
    for name in ["dangling.png", "pipe.png"] {
        daemon.wait(name, |field| field.areas().contains_key(name));
    }
    assert_eq!(daemon.stop(), Some(0));
}

/// Root may read everything, so the daemon runs as somebody else.
#[test]
fn what_may_not_be_read_is_told_once_and_read_when_it_may() {
    let field = Field::new();
    let everybody = |path: &str, mode| {
        fs::set_permissions(field.path(path), Permissions::from_mode(mode)).expect("sets");
    };
    for (name, mode) in [("in/file.png", 0o000), ("in/below/far.png", 0o644)] {
        field.dir.write(name, good(ImageFormat::Png));
        everybody(name, mode);
    }
    // Where anybody may read and run them.
    let models = field.path("models");
    fs::create_dir(&models).expect("creates");
    for file in fs::read_dir(bright_models()).expect("lists") {
        let file = file.expect("is");
        fs::copy(file.path(), models.join(file.file_name())).expect("copies");
    }
    fs::copy(env!("CARGO_BIN_EXE_shipwatch"), field.path("shipwatch")).expect("copies");
    for path in [".", "in"] {
        everybody(path, 0o777);
    }
    everybody("in/below", 0o000);
    let run = [
        "./shipwatch",
        "run",
        "--models",
        "models",
        "--config",
        "config.toml",
    ];
    let me = Command::new("id")
        .arg("-u")
        .output()
        .expect("id starts")
        .stdout;
    let mut command = match &me[..] {
        b"0\n" => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.args(run);
            command
        }
        _ => {
            let mut command = Command::new(run[0]);
            command.args(&run[1..]);
            command
        }
    };
    command
        .current_dir(field.path("."))
        .env_remove("SHIPWATCH_LOG");
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIPPED: there is no setpriv here");
        return;
    }
    let mut daemon = field.spawn(&mut command);
    let denied = "in/file.png: cannot be read: Permission denied";
    let passed = "in/below: passed over until it can be read: Permission denied";
    daemon.wait("refusals", |field| {
        let said = field.said();
        said.contains(denied) && said.contains(passed)
    });
    for name in ["first.png", "second.png", "third.png", "fourth.png"] {
        daemon.wait_for_another(name);
    }
    let said = field.said();
    for told in [denied, passed] {
        assert_eq!(said.matches(told).count(), 1, "{said}");
    }
    assert!(field.path("in/file.png").exists());
    everybody("in/file.png", 0o644);
    daemon.wait("the file", |field| field.areas().contains_key("file.png"));
    everybody("in/below", 0o777);
    daemon.wait("the folder", |field| {
        field.areas().contains_key("below/far.png")
    });
    assert_eq!(daemon.stop(), Some(0));
    assert!(field.said().contains("6 frames"), "{}", field.said());
}

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))
            })
        })
    };
    let mut chunk = (content.len() as u32).to_be_bytes().to_vec();
    chunk.extend(kind);
    chunk.extend(content);
    chunk.extend(crc(&chunk[4..]).to_be_bytes());
    chunk
}

/// So many zeros as RFC 1950 and 1951 pack them: 13 bits for each 258.
fn packed_zeros(count: usize) -> Vec<u8> {
    let mut bits = Vec::new();
    // A block of fixed codes, the last: first a zero, then copies of 258 bytes from one byte before.
    bits.extend([1, 1, 0]);
    bits.extend([0, 0, 1, 1, 0, 0, 0, 0]);
    let copies = (count - 1) / 258;
    for _ in 0..copies {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1]);
        bits.extend([0; 5]);
    }
    bits.extend([0; 7]);
    let mut bytes = vec![0x78, 0x01];
    bytes.extend(bits.chunks(8).map(|bits| {
        let bits = bits.iter().enumerate();
        bits.fold(0, |byte, (nth, bit)| byte | bit << nth)
    }));
    // Adler-32 of zeros.
    let zeros = (1 + 258 * copies as u32) % 65521;
    bytes.extend((zeros << 16 | 1).to_be_bytes());
    bytes
}

/// A PNG of one pixel, with these chunks before it.
fn png_with(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(chunk(b"IHDR", b"\0\0\0\x01\0\0\0\x01\x08\0\0\0\0"));
    png.extend(chunks.iter().flatten());
    png.extend(chunk(
        b"IDAT",
        &[0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 0xff, 1, 0xff, 1, 0],
    ));
    png.extend(chunk(b"IEND", b""));
    png
}

/// A TIFF of tags: number, type, count and value.
fn tiff(tags: &[(u16, u16, u32, u32)]) -> Vec<u8> {
    let mut tiff = b"II*\0\x08\0\0\0".to_vec();
    tiff.extend((tags.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in tags {
        tiff.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        tiff.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    tiff.extend([0; 64]);
    tiff
}

/// Small files that promise large images or unpack to much, and large files that hold nothing.
#[test]
#[cfg(target_os = "linux")]
fn bombs_take_no_memory() {
    /// Megabytes: what a file may take beside its pixels, and the process itself.
    const MOST: u64 = 200;
    const HUGE: usize = 1 << 30;

    let field = Field::with("max-pixels = 1000000");
    let put = |name: &str, bytes: &[u8]| field.dir.write(&format!("in/{name}"), bytes);
    // Sizes that headers promise.
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(chunk(b"IHDR", b"\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0"));
    png.extend(chunk(b"IDAT", b""));
    put("size.png", &png);
    let mut jpeg = good(ImageFormat::Jpeg);
    let frame = jpeg
        .windows(2)
        .position(|two| two == [0xff, 0xc0])
        .expect("a frame");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    put("size.jpg", &jpeg);
    let mut bmp = good(ImageFormat::Bmp);
    for side in [18, 22] {
        bmp[side..side + 4].copy_from_slice(&60_000_u32.to_le_bytes());
    }
    put("size.bmp", &bmp);
    put(
        "size.tif",
        &tiff(&[
            (256, 4, 1, 60_000),
            (257, 4, 1, 60_000),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, 1, 8),
            (277, 3, 1, 1),
            (278, 4, 1, 60_000),
            (279, 4, 1, 64),
        ]),
    );
    put(
        "size.webp",
        b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xfe\xbf\xff\x0f\0\0\0\0\0\0\0\0\0",
    );
    let promised = ["size.png", "size.jpg", "size.bmp", "size.tif", "size.webp"];

    // One pixel of eight bits, in a tile of 4 billion, and by as many strips.
    let pixel = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
    ];
    let side = 65_536;
    let tiles = [
        (322, 4, 1, side),
        (323, 4, 1, side),
        (324, 4, 1, 8),
        (325, 4, 1, 64),
    ];
    put("tile.tif", &tiff(&[&pixel[..], &tiles].concat()));
    let strips = [(273, 4, 1 << 30, 8), (278, 4, 1, 1), (279, 4, 1 << 30, 8)];
    put("strips.tif", &tiff(&[&pixel[..], &strips].concat()));
    let text = [
        (270, 2, u32::MAX, 8),
        (34665, 4, 1 << 30, 8),
        (33550, 12, 1 << 29, 8),
    ];
    put("tags.tif", &tiff(&[&pixel[..], &text].concat()));

    // What unpacks to a gigabyte: a colour profile, and texts.
    let zeros = packed_zeros(HUGE);
    put(
        "profile.png",
        &png_with(&[chunk(b"iCCP", &[b"x\0\0", &zeros[..]].concat())]),
    );
    put(
        "text.png",
        &png_with(&[
            chunk(b"zTXt", &[b"x\0\0", &zeros[..]].concat()),
            chunk(
                b"iTXt",
                &[b"XML:com.adobe.xmp\0\x01\0\0\0", &zeros[..]].concat(),
            ),
        ]),
    );

    // Files of which most is a hole: within the bytes that an image may have, and beyond.
    let hole = |name: &str, bytes: &[u8], length: u64| {
        let path = put(name, bytes);
        let file = OpenOptions::new().write(true).open(path).expect("opens");
        file.set_len(length).expect("makes a hole");
    };
    let (near, far) = (80_000_000, 1 << 40);
    for (format, end) in FORMATS {
        hole(&format!("hole.{end}"), &good(format), near);
        hole(&format!("abyss.{end}"), &good(format), far);
    }
    // The canvas of 64 x 48 pixels, its picture, and an EXIF chunk up to the end.
    let canvas = b"VP8X\x0a\0\0\0\x08\0\0\0\x3f\0\0\x2f\0\0";
    let picture = &good(ImageFormat::WebP)[12..];
    let length = |before: usize| (near as u32 - before as u32 - 8).to_le_bytes();
    let before = 12 + canvas.len() + picture.len();
    let exif = [
        &[b"RIFF", &length(0)[..], b"WEBP", canvas].concat(),
        picture,
        b"EXIF",
        &length(before),
    ]
    .concat();
    hole("exif.webp", &exif, near);

    let mut daemon = field.start();
    daemon.wait_for_another("another.png");
    daemon.wait("an end of the folder", |field| {
        let left = field.names("in").len();
        left == promised.len() + FORMATS.len()
    });
    let peak = daemon.peak();
    println!("at most {peak} MB");
    assert!(peak < MOST, "{peak} MB: {}", field.said());
    assert_eq!(daemon.stop(), Some(0));
    let said = field.said();
    for name in promised {
        let told = said
            .lines()
            .find(|line| line.contains(&format!("in/{name}: ")));
        let told = told.unwrap_or_else(|| panic!("{name} in {said}"));
        assert!(
            told.contains("over the limit of 1000000; raise it by --max-pixels"),
            "{told}"
        );
    }
    for (_, end) in FORMATS {
        let told =
            format!("in/abyss.{end}: has {far} bytes, more than any image of 1000000 pixels");
        assert!(said.contains(&told), "{said}");
    }
}

/// Files are replaced, cut off, appended to and removed while they are read: whatever happens, what lies there in
/// the end is looked at.
#[test]
fn files_that_change_while_they_are_read_are_looked_at_as_they_are_in_the_end() {
    let field = Field::with("");
    let config = CONFIG
        .replace("finished = \"move\"", "finished = \"keep\"")
        .replace("failed-folder = \"failed\"\n", "")
        .replace("settle-seconds = 0.05", "settle-seconds = 0.02");
    field.dir.write("config.toml", config);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut daemon = field.start();
    let images: Vec<_> = (8..20)
        .map(|width| boxed(ImageFormat::Bmp, width))
        .collect();
    // What lies there, as far as it is written.
    let mut written: [Option<(&[u8], usize)>; 8] = [None; 8];
    for nth in 0..1000 {
        let name = noise.below(written.len());
        let path = field.path(format!("in/{name}.bmp"));
        let image = &images[noise.below(images.len())][..];
        let half = noise.below(image.len());
        match (noise.below(5), written[name]) {
            (0, _) => fs::write(&path, image).expect("writes"),
            (1, _) => {
                fs::write(field.path("new"), image).expect("writes");
                fs::rename(field.path("new"), &path).expect("moves");
            }
            (2, _) => {
                fs::write(&path, &image[..half]).expect("writes");
                written[name] = Some((image, half));
                continue;
            }
            (3, _) => drop(fs::remove_file(&path)),
            (_, None) => {}
            (_, Some((image, half))) => {
                let file = OpenOptions::new().append(true).open(&path);
                file.and_then(|mut file| file.write_all(&image[half..]))
                    .expect("writes");
            }
        }
        written[name] = None;
        if nth % 8 == 0 {
            // Some time for the daemon to begin with one.
            sleep(Duration::from_millis(10));
        }
    }
    // Of a size that none had before.
    let last = |nth: u32| (24 + nth, format!("{nth}.bmp"));
    for nth in 0..8 {
        let (width, name) = last(nth);
        field
            .dir
            .write(&format!("in/{name}"), boxed(ImageFormat::Bmp, width));
    }
    for nth in 0..8 {
        let (width, name) = last(nth);
        let lines = |field: &Field| {
            let records = field.records();
            let is_last = |record: &&FrameRecord| {
                record.frame == name
                    && record
                        .ships
                        .iter()
                        .any(|ship| ship.area as u32 == 6 * width)
            };
            records.iter().filter(is_last).count()
        };
        daemon.wait(&name, |field| lines(field) > 0);
        assert_eq!(lines(&field), 1, "{name}");
    }
    assert_eq!(daemon.stop(), Some(0));
    // Whatever else was seen were whole images.
    let areas = field.records().into_iter().flat_map(|record| record.ships);
    let known: BTreeSet<u32> = (8..32).map(|width| 6 * width).collect();
    assert!(
        areas
            .map(|ship| ship.area as u32)
            .all(|area| known.contains(&area))
    );
}

#[test]
fn a_cut_off_image_is_waited_for_and_then_set_aside() {
    let field = Field::with("");
    let config = CONFIG.replace("settle-seconds = 0.05", "settle-seconds = 0.5");
    field.dir.write("config.toml", config);
    let mut daemon = field.start();
    for (format, end) in FORMATS {
        let whole = good(format);
        let half = &whole[..whole.len() / 2];
        field.dir.write(&format!("in/goes-on.{end}"), half);
        field.dir.write(&format!("in/never.{end}"), half);
    }
    field.dir.write("in/not-begun.png", "");
    // It lies there longer than a file takes to settle.
    daemon.wait_for_another("another.png");
    assert_eq!(field.names("failed").len(), 0, "{}", field.said());
    for (format, end) in FORMATS {
        let whole = good(format);
        let path = field.path(format!("in/goes-on.{end}"));
        let mut file = OpenOptions::new().append(true).open(path).expect("opens");
        file.write_all(&whole[whole.len() / 2..]).expect("writes");
    }
    fs::write(field.path("in/not-begun.png"), good(ImageFormat::Png)).expect("writes");
    daemon.wait("an empty folder", |field| field.names("in").is_empty());
    assert_eq!(daemon.stop(), Some(0));
    let found: BTreeSet<_> = field.areas().into_keys().collect();
    let whole = FORMATS.map(|(_, end)| format!("goes-on.{end}"));
    let others = ["another.png", "not-begun.png"].map(str::to_owned);
    assert_eq!(found, whole.into_iter().chain(others).collect());
    let reason = field.reason("never.jpg");
    assert!(
        reason.contains("is cut off: the JPEG has no end marker"),
        "{reason}"
    );
    for (_, end) in FORMATS {
        assert!(field.reason(&format!("never.{end}")).contains("in/never."));
    }
}

#[test]
fn a_folder_that_goes_away_is_missed_once_and_watched_when_it_is_back() {
    let field = Field::new();
    let mut daemon = field.start();
    daemon.wait_for_another("before.png");
    fs::rename(field.path("in"), field.path("away")).expect("moves");
    let missed = "in: cannot be read, tried again and again";
    daemon.wait("its absence", |field| field.said().contains(missed));
    field.dir.write("away/back.png", good(ImageFormat::Png));
    sleep(Duration::from_millis(400));
    fs::rename(field.path("away"), field.path("in")).expect("moves");
    daemon.wait("its return", |field| field.areas().contains_key("back.png"));
    daemon.wait_for_another("after.png");
    assert_eq!(field.said().matches(missed).count(), 1, "{}", field.said());
    assert_eq!(daemon.stop(), Some(0));
}
