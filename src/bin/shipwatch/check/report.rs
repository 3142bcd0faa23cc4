//! What was checked, a line each, and the code to end with.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;

use crate::exit::{Exit, Failure, OrExit, explain};

/// Prints as checks are made.
pub(super) struct Report {
    pub(super) exit: Exit,
}

/// What a check found good.
pub(super) struct Passed<T> {
    value: T,
    detail: String,
}

pub(super) fn passed<T>(value: T, detail: impl Display) -> anyhow::Result<Passed<T>> {
    Ok(Passed {
        value,
        detail: detail.to_string(),
    })
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            exit: Exit::Success,
        }
    }

    /// Prints how a check went; `exit` is the code for its failure. A wrong configuration outranks
    /// a fault of the program, because it may be what caused it.
    pub(super) fn check<T>(
        &mut self,
        name: &str,
        exit: Exit,
        outcome: anyhow::Result<Passed<T>>,
    ) -> Result<Option<T>, Failure> {
        let (word, detail, value) = match outcome {
            Ok(Passed { value, detail }) => ("ok", detail, Some(value)),
            Err(error) => {
                if self.exit != Exit::Config {
                    self.exit = exit;
                }
                ("FAIL", explain(&error), None)
            }
        };
        print(word, name, &detail)?;
        Ok(value)
    }

    /// Prints what is good to know, and fails nothing.
    pub(super) fn ok(&self, name: &str, detail: impl Display) -> Result<(), Failure> {
        print("ok", name, &detail.to_string())
    }

    /// Prints what a person should look at, and fails nothing.
    pub(super) fn note(&self, name: &str, detail: impl Display) -> Result<(), Failure> {
        print("note", name, &detail.to_string())
    }
}

/// Lines after the first stand below its text.
fn print(word: &str, name: &str, detail: &str) -> Result<(), Failure> {
    let detail = detail.replace('\n', &format!("\n{:18}", ""));
    writeln!(io::stdout(), "{word:<5} {name:<11} {detail}")
        .context("standard output")
        .or_exit(Exit::Io)
}
