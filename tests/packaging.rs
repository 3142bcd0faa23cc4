//! What the package promises of itself: who depends on what, and that its service file is well
//! formed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
fn the_package_names_what_the_models_are_made_of() {
    #[derive(serde::Deserialize)]
    struct Manifest {
        training: Vec<Set>,
    }
    #[derive(serde::Deserialize)]
    struct Set {
        licence: String,
        attribution: String,
    }
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("reads");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let manifest = read("models/base-int8/manifest.toml");
    let manifest: Manifest = toml::from_str(&manifest).expect("a manifest");
    let copyright = words(&read("systemd/debian/copyright"));
    for set in manifest.training {
        let named = format!("{}: {}", set.attribution, set.licence);
        assert!(copyright.contains(&words(&named)), "{named}");
    }
}

/// The top entry of Debian's changelog is the package's version as cargo-deb names it, by who maintains the package.
#[test]
fn the_changelog_begins_with_this_version() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("reads");
    let changelog = read("systemd/debian/changelog");
    let title = format!("shipwatch ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&title), "{title}");

    let manifest: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let maintainer = manifest["package"]["metadata"]["deb"]["maintainer"].as_str();
    let signed = changelog.lines().find_map(|line| line.strip_prefix(" -- "));
    let (author, _) = signed
        .and_then(|line| line.split_once("  "))
        .expect("a date");
    assert_eq!(maintainer, Some(author));
}

/// What `systemd-analyze` says of the service file with some words; none if it is not there.
fn analyze(words: &[&str]) -> Option<Output> {
    let unit = root().join("systemd/shipwatch.service");
    let text = fs::read_to_string(&unit).expect("reads");
    // It asks for the program itself, which a checkout has not installed.
    let folder = tempfile::tempdir().expect("folder");
    let here = text.replace("/usr/bin/shipwatch", env!("CARGO_BIN_EXE_shipwatch"));
    let copy = folder.path().join("shipwatch.service");
    fs::write(&copy, here).expect("writes");
    let mut command = Command::new("systemd-analyze");
    let verdict = command.args(words).arg(&copy).output();
    if verdict.is_err() {
        println!("SKIPPED: no systemd-analyze on this machine");
    }
    verdict.ok()
}

#[test]
fn the_service_file_is_well_formed() {
    let unit = root().join("systemd/shipwatch.service");
    let text = fs::read_to_string(&unit).expect("reads");
    assert!(text.contains("RestartPreventExitStatus=78"));
    if let Some(verdict) = analyze(&["verify"]) {
        let said = String::from_utf8_lossy(&verdict.stderr);
        assert!(
            verdict.status.success() && !said.contains("shipwatch.service"),
            "{said}"
        );
    }
}

/// Exposure is counted in tenths: 20 is 2.0.
#[test]
fn the_service_is_exposed_little_and_reaches_cameras() {
    let words = ["security", "--offline=true", "--no-pager", "--threshold=20"];
    if let Some(verdict) = analyze(&words) {
        let said = String::from_utf8_lossy(&verdict.stdout);
        assert!(verdict.status.success(), "{said}");
        assert!(said.contains("char-video4linux:rw"), "{said}");
    }
}

/// Makes the user and the folder that come with the package, in a folder of the test.
const INSTALL: &str = r#"
    set -e
    shipwatch=$1 package=$2 scene=$3
    mkdir -p etc/sysusers.d etc/tmpfiles.d
    cp "$package/shipwatch.sysusers" etc/sysusers.d/shipwatch.conf
    cp "$package/shipwatch.tmpfile" etc/tmpfiles.d/shipwatch.conf
    systemd-sysusers --root="$PWD"
    systemd-tmpfiles --root="$PWD" --create shipwatch.conf
    user=$(awk -F: '$1 == "shipwatch" { print $3 }' etc/passwd)
    group=$(awk -F: '$1 == "shipwatch" { print $3 }' etc/group)
    cp "$shipwatch" shipwatch
    chmod 755 shipwatch
    state=var/lib/shipwatch

    # By a user of the group, who shuts everybody else out.
    drop() {
        setpriv --reuid=54321 --regid=54321 --groups="$group" sh -c '
            umask 077
            mkdir -p "$(dirname "$1")"
            cat > "$1"
        ' sh "$state/incoming/$1" < "$scene"
    }
    serve() {
        setpriv --reuid="$user" --regid="$group" --clear-groups ./shipwatch "$@" --config config.toml
    }
    cat > config.toml << 'END'
        [[source]]
        folder = "var/lib/shipwatch/incoming"
        recursive = true
        gsd = 10
        finished = "move"
        finished-folder = "var/lib/shipwatch/done"
        [output]
        detections = "var/lib/shipwatch/detections.jsonl"
END
"#;

/// Runs a script where the package is installed; none if this is not root's machine.
#[cfg(target_os = "linux")]
fn installed(script: &str) -> Option<Output> {
    use std::os::unix::fs::PermissionsExt;

    let is_there = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let programs = ["systemd-sysusers", "systemd-tmpfiles", "setpriv"];
    let me = Command::new("id").arg("-u").output().expect("id starts");
    if me.stdout != b"0\n" || !programs.iter().all(is_there) {
        println!("SKIPPED: only root can become another user, by {programs:?}");
        return None;
    }
    let folder = tempfile::tempdir().expect("folder");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open).expect("opens the folder to others");
    let outcome = Command::new("sh")
        .arg("-c")
        .arg(format!("{INSTALL}{script}"))
        .args(["sh", env!("CARGO_BIN_EXE_shipwatch")])
        .arg(root().join("systemd"))
        .arg(root().join("tests/data/sentinel2-ports/images/algiers-roads.png"))
        .current_dir(folder.path())
        .env_remove("SHIPWATCH_LOG")
        .output();
    Some(outcome.expect("sh starts"))
}

#[test]
#[cfg(target_os = "linux")]
fn what_another_user_drops_is_processed_moved_and_deleted() {
    let script = r#"
        process() {
            serve run --once
            wc -l < $state/detections.jsonl
            find $state/incoming $state/done -type f | sort
        }
        drop a.png
        drop leg-2/b.png
        process
        drop c.png
        sed -i s/move/delete/ config.toml
        process
        # Nobody else may.
        setpriv --reuid=54321 --regid=54321 --clear-groups ls $state/incoming 2> /dev/null || echo no
    "#;
    let Some(outcome) = installed(script) else {
        return;
    };
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{said}");
    let done = "var/lib/shipwatch/done/a.png\nvar/lib/shipwatch/done/leg-2/b.png\n";
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    assert_eq!(stdout, format!("2\n{done}3\n{done}no\n"), "{said}");
    assert!(said.contains("0 skipped"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn check_tells_what_the_service_may_not() {
    let script = r#"
        drop a.png
        drop closed.png
        chmod 600 $state/incoming/closed.png
        serve check
        # Of this folder files can be read, and not taken away.
        mkdir -m 755 outside
        sed -i 's|var/lib/shipwatch/incoming|outside|' config.toml
        serve check || echo "ended with $?"
    "#;
    let Some(outcome) = installed(script) else {
        return;
    };
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{stdout}{said}");
    let (first, second) = stdout.split_once("self-test").expect("two reports");
    assert!(first.contains("ok    emptied"), "{stdout}");
    let note = "note  source      1 file cannot be read, such as ";
    let note = first.lines().find(|line| line.starts_with(note));
    let note = note.expect("a note");
    assert!(note.contains("closed.png: Permission denied"), "{note}");
    assert!(note.contains("chmod g+r"), "{note}");
    assert!(first.contains(" disk        "), "{stdout}");

    assert!(second.contains("FAIL  emptied"), "{stdout}");
    assert!(second.contains("outside cannot be written to"), "{stdout}");
    assert!(second.ends_with("ended with 78\n"), "{stdout}");
}

/// The service on a machine that boots, in its sandbox.
#[test]
#[cfg(target_os = "linux")]
fn the_service_lives_under_systemd() {
    let folder = tempfile::tempdir().expect("folder");
    let copy = |from: &Path, to: &str| {
        let to = folder.path().join(to);
        fs::create_dir_all(to.parent().expect("within the folder")).expect("a folder");
        fs::copy(from, to).expect("copies");
    };
    copy(Path::new(env!("CARGO_BIN_EXE_shipwatch")), "shipwatch");
    copy(&root().join("tests/systemd/service"), "script");
    copy(&root().join("tests/systemd/words"), "words");
    let scene = "tests/data/sentinel2-ports/images/algiers-roads.png";
    copy(&root().join(scene), "scene.png");
    let frame = "tests/data/sentinel2-ports/images/algiers.jpg";
    copy(&root().join(frame), "frame.jpg");
    for entry in fs::read_dir(root().join("systemd")).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().expect("a name").to_string_lossy();
        copy(&path, &format!("package/{name}"));
    }
    let spaces = ["mount", "pid", "uts", "ipc", "net", "cgroup"];
    let outcome = Command::new("timeout")
        .args(["--signal=KILL", "180", "unshare", "--fork", "--kill-child"])
        .args(spaces.map(|space| format!("--{space}")))
        .arg(root().join("tests/systemd/boot"))
        .arg(folder.path())
        .output();
    let Ok(said) = fs::read_to_string(folder.path().join("said")) else {
        println!("SKIPPED: systemd does not boot in namespaces here: {outcome:?}");
        return;
    };
    assert!(said.ends_with("code 0\n"), "{said}");
}
