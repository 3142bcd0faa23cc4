//! Each key of the config wrong in turn: `run` and `check` end with code 78, and say which file, which key or line,
//! and what it must be.

mod harness;

use std::collections::BTreeSet;
use std::fs;

use harness::{Dir, Outcome, bright_models};
use shipwatch::daemon::config::Config;

/// A key with its section, values that it cannot have by their types, and others that make no sense.
type Key = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const TEXT: &[&str] = &["3", "true", "[]", "{}"];
const NUMBER: &[&str] = &["\"x\"", "true", "[]", "{}"];
const COUNT: &[&str] = &["\"x\"", "true", "[]", "-1", "1.5"];
const FLAG: &[&str] = &["\"yes\"", "1", "[]"];
const SECTION: &[&str] = &["3", "\"x\"", "true"];
const POSITIVE: &[&str] = &["0", "-1", "nan", "inf"];
const PROBABILITY: &[&str] = &["-0.1", "1.1", "nan"];
const POLYGONS: &[&str] = &[
    "3",
    "\"x\"",
    "[[0, 0], [1, 0], [1, 1]]",
    "[[[0, 0], [1, 1]]]",
    "[[[0, 0], [1, 0], [1, 2]]]",
    "[[[0, 0], [1, 0], [1, 1, 1]]]",
];

/// Every key that there is. Tests fail if the program knows another, or the example config does not name one.
const KEYS: &[Key] = &[
    ("", "models", TEXT, &[]),
    ("", "source", SECTION, &["[]"]),
    ("", "output", SECTION, &[]),
    ("", "detect", SECTION, &[]),
    ("", "ledger", SECTION, &[]),
    ("", "heat", SECTION, &[]),
    ("", "retention", SECTION, &[]),
    ("", "runtime-folder", TEXT, &[]),
    (
        "source",
        "name",
        TEXT,
        &["\"\"", "\"a\\nb\"", "\"x\"\n[[source]]\nname = \"x\""],
    ),
    ("source", "folder", TEXT, &[]),
    (
        "source",
        "stream",
        TEXT,
        &["\"-\"\nfolder = \"in\"", "\"-\"\ncommand = [\"x\"]"],
    ),
    (
        "source",
        "command",
        &["3", "\"x\"", "[1]"],
        &["[]", "[\"\"]"],
    ),
    ("source", "form", &["3", "\"h264\""], &[]),
    ("source", "silent-seconds", NUMBER, &["0", "86401", "nan"]),
    (
        "source",
        "camera",
        TEXT,
        &["\"/dev/video0\"\nfolder = \"in\""],
    ),
    (
        "source",
        "size",
        &["3", "\"x\"", "[1]", "[1, 2, 3]", "[-1, 2]"],
        &["[0, 1]", "[1, 16385]"],
    ),
    ("source", "rate", NUMBER, &["0", "-1", "1001", "nan"]),
    ("source", "format", &["3", "\"h264\""], &[]),
    (
        "source",
        "controls",
        &["3", "\"x\"", "[]", "{ brightness = \"high\" }"],
        &[],
    ),
    ("source", "recursive", FLAG, &[]),
    ("source", "settle-seconds", NUMBER, &["-1", "3601", "nan"]),
    (
        "source",
        "rescan-seconds",
        NUMBER,
        &["0", "-1", "3601", "nan"],
    ),
    ("source", "max-pixels", COUNT, &["0"]),
    (
        "source",
        "stretch",
        &[
            "3",
            "\"x\"",
            "[2]",
            "[98, 2]",
            "[-1, 2]",
            "[2, 101]",
            "[2, 50, 98]",
        ],
        &[],
    ),
    ("source", "gsd", NUMBER, POSITIVE),
    (
        "source",
        "altitude",
        NUMBER,
        &["0", "-1", "nan", "inf", "100"],
    ),
    ("source", "focal-length", NUMBER, POSITIVE),
    ("source", "sensor-width", NUMBER, POSITIVE),
    (
        "source",
        "field-of-view",
        NUMBER,
        &["0", "-1", "180", "nan"],
    ),
    ("source", "scale", NUMBER, POSITIVE),
    ("source", "look", POLYGONS, &[]),
    ("source", "ignore", POLYGONS, &[]),
    ("source", "finished", &["3", "\"shred\""], &[]),
    (
        "source",
        "finished-folder",
        TEXT,
        &["\"incoming\"\nfinished = \"move\""],
    ),
    ("source", "failed-folder", TEXT, &["\"incoming\""]),
    ("source", "queue", COUNT, &["0", "1001"]),
    ("source", "full", &["3", "\"drop\""], &["\"drop-newest\""]),
    ("source", "detect", SECTION, &[]),
    ("source.detect", "gate", NUMBER, PROBABILITY),
    ("source.detect", "mask", NUMBER, PROBABILITY),
    ("source.detect", "min-area", COUNT, &[]),
    ("output", "detections", TEXT, &[]),
    ("output", "csv", TEXT, &["\"detections.jsonl\""]),
    ("output", "rotate-megabytes", COUNT, &["0", "1000001"]),
    ("output", "overlay", TEXT, &[]),
    ("output", "crops", TEXT, &[]),
    ("detect", "gate", NUMBER, PROBABILITY),
    ("detect", "mask", NUMBER, PROBABILITY),
    ("detect", "min-area", COUNT, &[]),
    ("ledger", "file", TEXT, &[]),
    ("ledger", "commit-frames", COUNT, &["0", "10001"]),
    ("ledger", "commit-seconds", NUMBER, &["-1", "61", "nan"]),
    ("heat", "limit", NUMBER, &["0", "-1", "nan"]),
    ("heat", "steps", COUNT, &["5"]),
    ("retention", "days", NUMBER, &["0", "-1", "nan"]),
    ("retention", "ledger-megabytes", COUNT, &["0", "1000001"]),
    ("retention", "detections-megabytes", COUNT, &["1000000001"]),
    ("retention", "pictures-megabytes", COUNT, &["0", "1000001"]),
    ("retention", "pictures-megabytes", COUNT, &["0", "1000001"]),
    ("retention", "reserve-megabytes", COUNT, &["1000001"]),
];

/// A line under the head of its section.
fn section(name: &str, line: &str) -> String {
    match name {
        "" => format!("{line}\n"),
        "source" => format!("[[source]]\n{line}\n"),
        nested if nested.starts_with("source.") => format!("[[source]]\n[{nested}]\n{line}\n"),
        name => format!("[{name}]\n{line}\n"),
    }
}

/// What a command says of a config that must be refused.
fn refusal_by(command: &str, dir: &Dir, config: impl AsRef<[u8]>) -> String {
    let config = config.as_ref();
    dir.write("config.toml", config);
    let Outcome {
        code,
        stdout,
        stderr,
    } = dir.run(&[command, "--config", "config.toml"]);
    let said = stdout + &stderr;
    let shown = String::from_utf8_lossy(config);
    assert_eq!(code, Some(78), "{command} with {shown}: {said}");
    assert!(said.contains("config.toml: "), "{shown}: {said}");
    said
}

fn refusal(dir: &Dir, config: impl AsRef<[u8]>) -> String {
    refusal_by("run", dir, config)
}

/// Keys of a section by what the program says of one that it does not know.
fn known(dir: &Dir, name: &str) -> BTreeSet<String> {
    let said = refusal(dir, section(name, "nonsense = 1"));
    let expected = said
        .split_once("`nonsense`, expected")
        .expect("what is known")
        .1;
    let keys = expected.split('`').skip(1).step_by(2);
    keys.map(str::to_owned).collect()
}

fn sections() -> BTreeSet<&'static str> {
    KEYS.iter().map(|(section, ..)| *section).collect()
}

/// Sections, keys and lines of the example, those behind # among them.
fn example() -> Vec<(String, String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/config.toml");
    let text = fs::read_to_string(path).expect("reads");
    let mut section = String::new();
    let mut found = Vec::new();
    let mut lines = text.lines().map(|line| line.trim_start_matches("# "));
    while let Some(line) = lines.next() {
        let head = line
            .strip_prefix('[')
            .and_then(|head| head.strip_suffix(']'));
        if let Some(head) = head {
            section = head.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        {
            // A list may go on.
            let mut value = line.to_owned();
            while value.matches('[').count() > value.matches(']').count() {
                value.push_str(
                    lines
                        .next()
                        .expect("an end of the list")
                        .trim_start_matches('#'),
                );
            }
            found.push((section.clone(), key.to_owned(), value));
        }
    }
    found
}

#[test]
fn the_table_names_every_key() {
    let dir = Dir::new();
    for name in sections() {
        let listed = KEYS.iter().filter(|(section, ..)| *section == name);
        let listed: BTreeSet<_> = listed.map(|(_, key, ..)| (*key).to_owned()).collect();
        assert_eq!(listed, known(&dir, name), "keys of [{name}]");
    }
}

#[test]
fn the_example_names_every_key() {
    let example = example();
    for (name, key, ..) in KEYS {
        // Those of a source alone are as those for all.
        let named = name.strip_prefix("source.").unwrap_or(name);
        let is_line = |(section, k, _): &(String, String, String)| section == named && k == key;
        let is_head = name.is_empty() && example.iter().any(|(section, ..)| section == key);
        assert!(
            is_head || example.iter().any(is_line),
            "`{key}` of [{name}]"
        );
    }
    for (section, ..) in &example {
        assert!(
            sections().contains(&**section),
            "[{section}] is not in the table"
        );
    }
}

#[test]
fn each_line_of_the_example_makes_sense() {
    // What some need beside them.
    const COMPANIONS: [&str; 6] = [
        "",
        "camera = \"/dev/video0\"",
        "altitude = 100",
        "field-of-view = 60",
        "altitude = 100\nfocal-length = 9",
        "altitude = 100\nsensor-width = 9",
    ];
    let dir = Dir::new();
    for (name, _, line) in example() {
        let problems = COMPANIONS.map(|companion| {
            let path = dir.write(
                "config.toml",
                section(&name, &format!("{line}\n{companion}")),
            );
            Config::read(&path).map(|config| config.check())
        });
        let makes_sense = problems.iter().flatten().any(Vec::is_empty);
        assert!(makes_sense, "{line}: {problems:?}");
    }
}

/// What is refused is so for its key: without any, the same config is taken.
#[test]
fn a_config_without_faults_is_taken() {
    let dir = Dir::new();
    dir.image("incoming/a.png", (40, 40), &[[10, 10, 9, 3]]);
    let models = bright_models();
    for name in sections() {
        dir.write("config.toml", section(name, ""));
        let args = [
            "run",
            "--once",
            "--models",
            &models,
            "--config",
            "config.toml",
        ];
        let outcome = dir.run(&args);
        assert_eq!(outcome.code, Some(0), "[{name}]: {}", outcome.stderr);
    }
}

#[test]
fn wrong_types_are_named_with_their_line_and_what_is_expected() {
    let dir = Dir::new();
    for (name, key, wrong, _) in KEYS {
        for value in *wrong {
            let config = section(name, &format!("{key} = {value}"));
            let said = refusal(&dir, &config);
            let line = config.lines().count();
            for part in [&format!("line {line}"), *key] {
                assert!(said.contains(part), "{part} of {config}: {said}");
            }
            let remedies = [
                "expected",
                "wanted",
                "must",
                "has three",
                "lie between",
                "a polygon is",
            ];
            assert!(
                remedies.iter().any(|r| said.contains(r)),
                "{config}: {said}"
            );
        }
    }
}

#[test]
fn values_out_of_range_are_named_with_what_they_must_be() {
    let dir = Dir::new();
    for (name, key, _, out) in KEYS {
        for value in *out {
            let config = section(name, &format!("{key} = {value}"));
            let said = refusal(&dir, &config);
            let checked = refusal_by("check", &dir, &config);
            assert!(checked.contains("FAIL  config"), "{checked}");
            let told = match *name {
                "" => format!("`{key}` "),
                name => format!("`{name}.{key}` "),
            };
            let reason = said.split_once(&told);
            let reason = reason
                .unwrap_or_else(|| panic!("no {told}: {config}: {said}"))
                .1;
            let remedies = ["must ", ": take ", ": keep one ", ": name "];
            assert!(
                remedies.iter().any(|r| reason.contains(r)),
                "{config}: {said}"
            );
        }
    }
}

#[test]
fn misspelt_keys_are_named_with_those_that_there_are() {
    let dir = Dir::new();
    for (name, key, ..) in KEYS {
        let said = refusal(&dir, section(name, &format!("{key}s = 1")));
        let (found, known) = said
            .split_once("unknown field")
            .unwrap_or_else(|| panic!("{said}"));
        assert!(found.contains("line "), "{said}");
        assert!(
            known.contains(&format!("`{key}s`")) && known.contains(&format!("`{key}`")),
            "{said}"
        );
    }
}

#[test]
fn what_is_no_config_is_named() {
    let dir = Dir::new();
    for (config, reason) in [
        (&b"\xff\xfe"[..], "UTF-8"),
        (b"[source", "line 1"),
        (b"models = \"a\"\nmodels = \"b\"", "duplicate key"),
        (b"a\0b", "line 1"),
        (&[b'['; 100_000], "line 1"),
    ] {
        let said = refusal(&dir, config);
        assert!(
            said.contains(reason),
            "{reason}: {}",
            &said[..said.len().min(500)]
        );
    }
    fs::create_dir(dir.path("folder.toml")).expect("creates");
    for name in ["folder.toml", "missing.toml"] {
        for command in ["run", "check"] {
            let outcome = dir.run(&[command, "--config", name]);
            assert_eq!(outcome.code, Some(78), "{name}");
            let said = outcome.stdout + &outcome.stderr;
            assert!(said.contains(&format!("{name}: cannot be read")), "{said}");
        }
    }
}
