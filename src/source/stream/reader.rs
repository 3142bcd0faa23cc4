//! The thread that reads a stream: opens it, cuts it, and opens it again when it ends.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info, warn};

use super::desk::{Desk, Item};
use super::input::{Got, InputError, Opened};
use super::program::Epitaph;
use super::split::{Limits, Piece, Splitter};
use super::y4m::Y4mError;
use super::{Input, StreamOptions};
use crate::source::live::{Backoff, Moment};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// How long a quiet stream may keep the thread from noticing that nobody takes any more.
const POLL: Duration = Duration::from_millis(100);
/// The same failure is not said again before that.
const REPEAT: Duration = Duration::from_secs(600);

/// How an opening ended.
enum Over {
    /// Nobody takes any more.
    Closed,
    /// Its bytes did.
    Ended,
    /// It is of no more use.
    Failed(Fault),
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Y4m(#[from] Y4mError),
    #[error("no frame for {} s", .0.as_secs_f64())]
    Silent(Duration),
}

/// Reads one stream.
pub(super) struct Reader {
    name: String,
    options: StreamOptions,
    desk: Arc<Desk>,
    openings: u64,
    /// Frames of this opening, damaged ones too.
    sequence: u64,
    retry: Backoff,
    /// The failure that was said last, when, and how often it came since.
    said: Option<(String, Instant, u64)>,
    /// Whether that was said since the last frame.
    awaited: bool,
}

impl Reader {
    pub(super) fn new(name: String, options: StreamOptions, desk: Arc<Desk>) -> Self {
        Self {
            name,
            options,
            desk,
            openings: 0,
            sequence: 0,
            retry: Backoff::default(),
            said: None,
            awaited: false,
        }
    }

    /// Reads until nobody takes any more, or standard input ends.
    pub(super) fn run(mut self) {
        match self.options.input {
            Input::Stdin => self.read_once(),
            Input::Fifo(_) => self.read_writers(),
            Input::Command(_) => self.read_command(),
        }
    }

    fn read_once(&mut self) {
        let over = match Opened::open(&self.options.input) {
            Ok(mut opened) => self.read(&mut opened),
            Err(error) => Over::Failed(error.into()),
        };
        if let Over::Failed(fault) = over {
            self.desk.put(Item::Broken(fault.to_string()));
        }
    }

    fn read_writers(&mut self) {
        let mut last = None;
        while !self.desk.is_closed() {
            let opened = Opened::open(&self.options.input);
            // Not before: a writer must find a reader at any time.
            drop(last.take());
            let over = match opened {
                Ok(mut opened) => {
                    self.desk
                        .note("waits for somebody who writes frames".to_owned(), None);
                    let over = self.read(&mut opened);
                    last = Some(opened);
                    over
                }
                Err(error) => Over::Failed(error.into()),
            };
            match over {
                Over::Ended if self.sequence > 0 => debug!("{}: its writer is gone", self.name),
                Over::Ended => self.desk.sleep(POLL),
                Over::Failed(fault) => {
                    // Its writer must not wait for who does not read.
                    last = None;
                    self.fail(&fault.to_string(), "");
                }
                Over::Closed => {}
            }
        }
    }

    fn read_command(&mut self) {
        while !self.desk.is_closed() {
            let mut opened = match Opened::open(&self.options.input) {
                Ok(opened) => opened,
                Err(error) => {
                    self.fail(&error.to_string(), "");
                    continue;
                }
            };
            let over = self.read(&mut opened);
            let became = opened.close(matches!(over, Over::Ended));
            let Some(Epitaph { how, said }) = became else {
                continue;
            };
            match over {
                Over::Ended => self.fail(&how, &said),
                Over::Failed(fault) => self.fail(&fault.to_string(), &said),
                Over::Closed => {}
            }
        }
    }

    /// Reads one opening.
    fn read(&mut self, opened: &mut Opened) -> Over {
        self.openings += 1;
        self.sequence = 0;
        match opened.process() {
            Some(id) => debug!("{}: reads {} (process {id})", self.name, self.options.input),
            None => debug!("{}: reads {}", self.name, self.options.input),
        }
        let limits = Limits::new(self.options.decode.max_pixels);
        let mut splitter = Splitter::new(self.options.form, limits);
        let mut bytes = vec![0; CHUNK];
        let mut heard = Instant::now();
        loop {
            if self.desk.is_closed() {
                return Over::Closed;
            }
            let ended = match opened.read(&mut bytes, POLL) {
                Ok(Got::Bytes(count)) => {
                    splitter.feed(&bytes[..count]);
                    false
                }
                Ok(Got::Nothing) => false,
                Ok(Got::End) => true,
                Err(error) => return Over::Failed(error.into()),
            };
            loop {
                let piece = match splitter.next() {
                    Ok(None) if ended => match splitter.end() {
                        Some(piece) => piece,
                        None => return Over::Ended,
                    },
                    Ok(None) => break,
                    Ok(Some(piece)) => piece,
                    Err(error) => return Over::Failed(error.into()),
                };
                let is_frame = matches!(piece, Piece::Frame(_));
                let start = Instant::now();
                if !self.hand_over(piece) {
                    return Over::Closed;
                }
                // While nobody takes, nobody is silent.
                heard = if is_frame {
                    Instant::now()
                } else {
                    heard + start.elapsed()
                };
            }
            if heard.elapsed() >= self.options.silence {
                let fault = Fault::Silent(self.options.silence);
                match self.options.input {
                    Input::Command(_) => return Over::Failed(fault),
                    // They cannot be started anew from here.
                    Input::Stdin | Input::Fifo(_) => self.desk.note(fault.to_string(), None),
                }
            }
        }
    }

    /// Puts it on the desk; false where nobody takes any more.
    fn hand_over(&mut self, piece: Piece) -> bool {
        self.sequence += 1;
        let item = match piece {
            Piece::Broken(problem) => Item::Broken(problem),
            Piece::Frame(encoded) => {
                self.retry.reset();
                if mem::take(&mut self.awaited) {
                    info!("{}: frames come again", self.name);
                }
                let moment = Moment {
                    opening: self.openings,
                    sequence: self.sequence - 1,
                    captured: SystemTime::now(),
                };
                Item::Frame(encoded, moment)
            }
        };
        self.desk.put(item)
    }

    /// Says what is wrong, unless it was said lately, and waits until it is tried again.
    fn fail(&mut self, problem: &str, said: &str) {
        let retry = self.retry.advance();
        self.desk.note(format!("{problem}{said}"), Some(retry));
        let again = match &mut self.said {
            Some((before, at, again)) if before == problem && at.elapsed() < REPEAT => {
                *again += 1;
                None
            }
            Some((before, _, again)) if before == problem => Some(*again),
            _ => Some(0),
        };
        if let Some(again) = again {
            let often = match again {
                0 => String::new(),
                _ => format!(", {again} times more since it was said last"),
            };
            let seconds = retry.as_secs();
            warn!(
                "{}: {problem}{often}{said}; tried again in {seconds} s",
                self.name
            );
            self.said = Some((problem.to_owned(), Instant::now(), 0));
            self.awaited = true;
        }
        self.desk.sleep(retry);
    }
}

impl Drop for Reader {
    /// Whatever happened, nobody is to wait for more.
    fn drop(&mut self) {
        self.desk.end();
    }
}
