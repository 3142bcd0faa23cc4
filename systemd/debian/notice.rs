//! Prints what the licences of the crates ask for that are linked into the program for a target: their names, and the
//! texts that they come with.
//!
//!     cargo run --release --example notice -- TARGET

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: String,
}

impl Package {
    fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

fn main() -> anyhow::Result<()> {
    let target = env::args().nth(1).context("name a target")?;
    let linked = linked(&target)?;
    let metadata = cargo(&["metadata", "--locked", "--format-version", "1"])?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;

    println!(
        "The program shipwatch holds these crates. The texts that they come with follow; where a licence may"
    );
    println!(
        "be chosen, the Apache License, which stands in /usr/share/common-licenses/Apache-2.0, is left out.\n"
    );
    let mut texts: BTreeMap<String, (BTreeSet<String>, String)> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for package in metadata.packages {
        let title = package.title();
        if !linked.contains(&title) {
            continue;
        }
        let licence = package.license.as_deref().unwrap_or("see below");
        let home = package.repository.as_deref().unwrap_or_default();
        println!("{title}: {licence}. {home}");
        let folder = Path::new(&package.manifest_path).parent();
        let own = own_texts(folder.context("a manifest without a folder")?)?;
        if own.is_empty() {
            println!("    comes without a text of its licence");
        }
        for text in own {
            // Some texts differ by line ends alone.
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let (crates, _) = texts.entry(words).or_insert((BTreeSet::new(), text));
            crates.insert(title.clone());
        }
        known.insert(title);
    }
    let unknown: Vec<_> = linked.difference(&known).collect();
    ensure!(unknown.is_empty(), "cargo metadata lacks {unknown:?}");

    let mut texts: Vec<_> = texts.into_values().collect();
    texts.sort();
    for (crates, text) in texts {
        let crates: Vec<_> = crates.into_iter().collect();
        println!("\n{}\n{}\n", "-".repeat(80), crates.join(", "));
        println!("{}", text.replace('\r', "").trim_end());
    }
    Ok(())
}

/// Names and versions of the crates whose code is in the program: neither procedural macros nor build scripts.
fn linked(target: &str) -> anyhow::Result<BTreeSet<String>> {
    let tree = cargo(&[
        "tree",
        "--locked",
        "--target",
        target,
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    let title = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split(' ').next()?;
        (name != env!("CARGO_PKG_NAME")).then(|| format!("{name} {version}"))
    };
    Ok(tree.lines().filter_map(title).collect())
}

/// The texts in a crate's folder, without the Apache License where there is another.
fn own_texts(folder: &Path) -> anyhow::Result<Vec<String>> {
    const BEGINNINGS: [&str; 5] = ["LICEN", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
    let mut texts = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        if path.is_file()
            && BEGINNINGS
                .iter()
                .any(|beginning| name.starts_with(beginning))
        {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            texts.push(text);
        }
    }
    let others = |text: &String| !text.trim_start().starts_with("Apache License");
    if texts.iter().any(others) {
        texts.retain(others);
    }
    texts.sort();
    Ok(texts)
}

fn cargo(words: &[&str]) -> anyhow::Result<String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cargo does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {}: {said}", words.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}
