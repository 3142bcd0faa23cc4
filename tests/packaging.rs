//! What the package promises of itself: who depends on what, and that its service file is well
//! formed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Source files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Whether a line of code, not a comment, names something of a crate whose name begins so.
fn names_crate(text: &str, prefix: &str) -> bool {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .any(|line| {
            line.match_indices(prefix).any(|(start, _)| {
                let before = line[..start].chars().next_back();
                let rest =
                    line[start..].trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_') && rest.starts_with("::")
            })
        })
}

#[test]
fn the_edge_binary_has_no_burn_in_its_tree() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout).expect("UTF-8");
    assert!(
        tree.lines().any(|line| line.starts_with("tract-onnx ")),
        "the tree was read"
    );
    for line in tree.lines() {
        assert!(
            !line.starts_with("burn") && !line.starts_with("cubecl"),
            "{line}"
        );
    }
}

#[test]
fn tract_and_burn_are_named_in_one_folder_each() {
    let source = root().join("src");
    for (prefix, home) in [("tract", "inference"), ("burn", "bin/train")] {
        let (inside, outside): (Vec<_>, Vec<_>) = sources(&source)
            .into_iter()
            .filter(|path| names_crate(&fs::read_to_string(path).expect("reads"), prefix))
            .partition(|path| path.starts_with(source.join(home)));
        assert_eq!(
            outside,
            [""; 0].map(PathBuf::from),
            "{prefix} belongs in src/{home}"
        );
        assert!(!inside.is_empty(), "{prefix} is looked for by its name");
    }
}

#[test]
fn the_service_file_is_well_formed() {
    let unit = root().join("systemd/shipwatch.service");
    let text = fs::read_to_string(&unit).expect("reads");
    assert!(text.contains("RestartPreventExitStatus=78"));
    // systemd-analyze asks for the program itself, which a checkout has not installed.
    let folder = tempfile::tempdir().expect("folder");
    let here = text.replace("/usr/bin/shipwatch", env!("CARGO_BIN_EXE_shipwatch"));
    let copy = folder.path().join("shipwatch.service");
    fs::write(&copy, here).expect("writes");
    match Command::new("systemd-analyze")
        .arg("verify")
        .arg(&copy)
        .output()
    {
        Ok(verdict) => {
            let said = String::from_utf8_lossy(&verdict.stderr);
            assert!(
                verdict.status.success() && !said.contains("shipwatch.service"),
                "{said}"
            );
        }
        Err(_) => println!("SKIPPED: no systemd-analyze on this machine"),
    }
}
