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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use image::codecs::jpeg::JpegEncoder;

    use super::*;
    use crate::frame::{Frame, RgbImage};
    use crate::source::Origin;
    use crate::source::stream::{Form, Input};

    const TURN: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A grey image of that many pixels across.
    fn jpeg(width: u32) -> Vec<u8> {
        let image = RgbImage::from_pixel(width, 8, image::Rgb([99; 3]));
        let mut bytes = Vec::new();
        let encoded = JpegEncoder::new(&mut bytes).encode_image(&image);
        encoded.expect("encodes");
        bytes
    }

    fn shell(script: &str, argument: &Path) -> StreamOptions {
        let argument = argument.to_str().expect("UTF-8");
        let command = ["sh", "-c", script, "sh", argument].map(str::to_owned);
        StreamOptions {
            keep_all: true,
            ..StreamOptions::new(Input::Command(command.to_vec()))
        }
    }

    fn source(options: StreamOptions) -> StreamSource {
        StreamSource::new("deck".into(), options)
    }

    /// What comes next that is anything.
    fn next(source: &mut StreamSource) -> Next {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match source.next(TURN).expect("no ledger is asked") {
                Next::Idle => {}
                next => return next,
            }
        }
        panic!("nothing comes: {:?}", source.trouble());
    }

    fn frame(source: &mut StreamSource) -> (Frame, Origin) {
        match next(source) {
            Next::Frame { frame, origin, .. } => (frame, origin),
            other => panic!("{other:?}"),
        }
    }

    fn wait_for_trouble(source: &mut StreamSource, part: &str) -> String {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let next = source.next(TURN).expect("no ledger is asked");
            assert!(matches!(next, Next::Idle), "{next:?}");
            if let Some(trouble) = source.trouble().filter(|it| it.contains(part)) {
                return trouble;
            }
        }
        panic!("{part} is not said: {:?}", source.trouble());
    }

    #[test]
    fn a_command_that_dies_is_started_anew_and_its_frames_are_others() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("video");
        fs::write(&file, [jpeg(16), jpeg(24)].concat()).expect("writes");
        let mut source = source(shell("cat \"$1\"; echo no more >&2; exit 7", &file));
        assert_eq!(source.trouble(), None);
        let mut ends = Vec::new();
        for round in 1..=2 {
            for (nth, width) in [16, 24].into_iter().enumerate() {
                let (frame, origin) = frame(&mut source);
                assert_eq!(frame.pixels.dimensions(), (width, 8));
                assert!(
                    frame.name.starts_with("deck-2") && frame.name.ends_with(&format!("Z-{nth}"))
                );
                assert!(frame.tags.captured.is_some());
                assert_eq!((origin.key.source.as_str(), &origin.file), ("deck", &None));
                let end = format!("/{round}/{nth}");
                assert!(
                    origin.key.name.to_string_lossy().ends_with(&end),
                    "{origin:?}"
                );
                ends.push(origin.key);
            }
            let trouble = wait_for_trouble(&mut source, "exit status: 7");
            assert!(
                trouble.starts_with("sh ended, exit status: 7; it said: no more; since "),
                "{trouble}"
            );
            assert!(trouble.ends_with("tried again every 1 s"), "{trouble}");
        }
        ends.dedup();
        assert_eq!(ends.len(), 4);
    }

    #[test]
    fn a_command_of_which_no_frame_comes_is_ended() {
        let script = "while :; do echo no video; sleep 0.05; done";
        let options = StreamOptions {
            silence: Duration::from_millis(400),
            ..shell(script, Path::new(""))
        };
        let mut source = source(options);
        let trouble = wait_for_trouble(&mut source, "no frame for");
        assert!(
            trouble.starts_with("no frame for 0.4 s; since "),
            "{trouble}"
        );
    }

    #[test]
    fn a_stream_that_is_not_understood_says_why() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("video");
        fs::write(&file, "YUV4MPEG2 W2 H2 C420p10\nFRAME\n").expect("writes");
        let mut deep = source(shell("cat \"$1\"; sleep 1000", &file));
        let trouble = wait_for_trouble(&mut deep, "C420p10");
        assert!(trouble.contains("-pix_fmt yuv420p"), "{trouble}");
        let mut missing = source(StreamOptions::new(Input::Fifo(folder.path().join("none"))));
        wait_for_trouble(&mut missing, "mkfifo");
    }

    #[test]
    fn damaged_frames_are_counted_and_those_behind_them_come() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("video");
        // Whole by its markers and cut off by its content, cut off by the next, too large, and good.
        let empty = b"\xFF\xD8\xFF\xD9".to_vec();
        let mut cut = jpeg(16);
        cut.truncate(cut.len() - 3);
        fs::write(&file, [empty, cut, jpeg(80), jpeg(32)].concat()).expect("writes");
        let mut options = shell("cat \"$1\"; sleep 1000", &file);
        options.form = Some(Form::Mjpeg);
        options.decode.max_pixels = 500;
        let mut source = source(options);
        let mut problem = || match next(&mut source) {
            Next::Broken { problem, origin } => {
                assert_eq!(origin, None);
                problem
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(problem(), "deck: no JPEG");
        assert_eq!(problem(), "deck: a JPEG that is cut off by the next");
        let large = problem();
        assert!(
            large.contains("80x8 pixels") && large.contains("max-pixels"),
            "{large}"
        );
        assert_eq!(frame(&mut source).0.pixels.dimensions(), (32, 8));
    }
}
