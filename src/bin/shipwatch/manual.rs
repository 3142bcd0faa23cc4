//! Writes what a package holds of the command line besides the program: man pages, and completions for shells.
//!
//!     cargo run --release --example manual -- DIR

#![allow(dead_code)] // The program's own modules, of which nothing but the arguments is looked at.

mod cli;
mod exit;
mod logging;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

fn main() -> anyhow::Result<()> {
    let folder = env::args_os().nth(1).context("name a folder")?;
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let mut command = cli::Cli::command().disable_help_subcommand(true);
    // Completions would offer what is hidden, too.
    let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
    let mut visible = Command::new("shipwatch")
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(shown.cloned());
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut visible, "shipwatch", &folder)?;
    }
    command.build();
    write_page(&command, &folder)?;
    for subcommand in command.get_subcommands() {
        if !subcommand.is_hide_set() {
            write_page(subcommand, &folder)?;
        }
    }
    Ok(())
}

fn write_page(command: &Command, folder: &Path) -> anyhow::Result<()> {
    let man = Man::new(command.clone())
        .source(concat!("shipwatch ", env!("CARGO_PKG_VERSION")))
        .manual("shipwatch");
    let path = folder.join(man.get_filename());
    let page = page(command, &man).with_context(|| format!("no page for {command}"))?;
    fs::write(&path, page).with_context(|| format!("{} cannot be written", path.display()))
}

fn page(command: &Command, man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command
        .get_after_long_help()
        .or_else(|| command.get_after_help());
    if let Some(text) = after {
        render_tables(&text.to_string(), &mut page)?;
    }
    Ok(page)
}

/// What follows the options in `--help`: blocks of a heading and lines whose columns are to stay.
fn render_tables(text: &str, page: &mut dyn Write) -> io::Result<()> {
    let mut roff = Roff::new();
    for block in text.split("\n\n") {
        let (heading, lines) = block.split_once('\n').unwrap_or(("Notes:", block));
        let heading = heading.trim_end_matches(':').to_uppercase();
        roff.control("SH", [heading.as_str()]).control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        roff.control("fi", []);
    }
    roff.to_writer(page)
}
