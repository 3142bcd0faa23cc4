//! A stream as a source of the daemon's.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::info;

use super::StreamOptions;
use super::desk::{Desk, Item, Taken};
use super::reader::Reader;
use crate::ledger::LedgerError;
use crate::source::live::Live;
use crate::source::{Next, Source};

/// Frames of one stream, named by it and by the time at which their last byte came.
///
/// Nothing is opened before frames are asked for. It ends with standard input; a FIFO and a command never end.
/// When it is dropped, the processes of a command are ended, which may take seconds.
pub struct StreamSource {
    live: Live,
    options: StreamOptions,
    desk: Arc<Desk>,
    reader: Option<JoinHandle<()>>,
    /// Width and height of the last frame.
    size: (u32, u32),
}

impl StreamSource {
    /// A stream, by the name that the log and the ledger know it by.
    pub fn new(name: String, options: StreamOptions) -> Self {
        Self {
            live: Live::new(name),
            desk: Arc::new(Desk::new(options.interval, options.keep_all)),
            options,
            reader: None,
            size: (0, 0),
        }
    }

    fn start(&mut self) -> io::Result<()> {
        if self.reader.is_none() && !self.desk.has_ended() {
            let name = self.live.name().to_owned();
            let reader = Reader::new(name, self.options.clone(), self.desk.clone());
            let thread = thread::Builder::new().name("stream".into());
            self.reader = Some(thread.spawn(move || reader.run())?);
        }
        Ok(())
    }

    /// # Panics
    /// If the thread that read did.
    fn join(&mut self) {
        if let Some(Err(panic)) = self.reader.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
    }

    fn next_of(&mut self, item: Item) -> Next {
        let (encoded, moment) = match item {
            Item::Frame(encoded, moment) => (encoded, moment),
            Item::Broken(problem) => return self.live.broken(problem),
        };
        let start = Instant::now();
        match encoded.decode(&self.options.decode) {
            Ok((pixels, tags)) => {
                if pixels.dimensions() != self.size {
                    self.size = pixels.dimensions();
                    let (width, height) = self.size;
                    info!(
                        "{}: {} of {width}x{height} pixels",
                        self.live.name(),
                        encoded.form()
                    );
                }
                self.live.frame(&moment, pixels, tags, start.elapsed())
            }
            Err(error) => self.live.broken(error),
        }
    }
}

impl Source for StreamSource {
    fn next(&mut self, timeout: Duration) -> Result<Next, LedgerError> {
        if let Err(error) = self.start() {
            self.desk
                .note(format!("no thread can be started: {error}"), None);
            thread::sleep(timeout);
            return Ok(Next::Idle);
        }
        Ok(match self.desk.take(timeout) {
            Taken::Item(item) => self.next_of(item),
            Taken::Idle => Next::Idle,
            Taken::Ended => {
                self.join();
                Next::End
            }
        })
    }

    fn trouble(&self) -> Option<String> {
        self.desk.trouble()
    }

    fn take_dropped(&mut self) -> u64 {
        self.desk.take_dropped()
    }
}

impl Drop for StreamSource {
    fn drop(&mut self) {
        self.desk.close();
        if let Some(reader) = self.reader.take() {
            // Fails where it panicked, which the log says.
            let _ = reader.join();
        }
    }
}
