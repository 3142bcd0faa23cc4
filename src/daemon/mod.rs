//! The loop that `shipwatch run` turns, with its config, its output file and its self-test.

pub mod config;
pub mod output;
pub mod queue;
pub mod selftest;

use std::collections::HashSet;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use crate::contain::contain;
use crate::detect::DetectError;
use crate::frame::Frame;
use crate::ledger::{Entry, Key, Ledger, LedgerError};
use crate::record::{FrameRecord, milliseconds};
use crate::sink::Overlay;
use crate::source::finish::{Finish, set_aside};
use crate::source::{Next, Origin, Source, SourceFile};
use output::{Output, OutputError};
use queue::{Policy, Popped, Queue};

/// How long a quiet source may keep the loop from noticing a request to stop.
const POLL: Duration = Duration::from_millis(200);

/// How long a full disk is given before it is tried again.
const FULL: Duration = Duration::from_secs(1);

/// How long after a file could not be moved or deleted it is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// How long after lines were written the ledger is told of it, if no frames come that do it.
const SETTLED: Duration = Duration::from_secs(5);

/// A request to stop that any thread or signal handler can make.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the loop to stop after the frame in hand. Asking again changes nothing.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether anyone asked.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many frames are committed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// So many at most.
    pub frames: usize,
    /// None waits for longer than this.
    pub delay: Duration,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            frames: 32,
            delay: Duration::from_millis(500),
        }
    }
}

/// What a run of the loop did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames with a record.
    pub frames: u64,
    /// Ships on them.
    pub ships: u64,
    /// Files and frames that were skipped because something was wrong with them.
    pub broken: u64,
    /// Files that were done before.
    pub known: u64,
    /// Frames that found no room in time, of sources that do not wait.
    pub dropped: u64,
}

/// Why the loop gave up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing can be committed.
    #[error("cannot keep the ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// A line could not be written. Going on would lose detections unnoticed.
    #[error("cannot write detections: {0}")]
    Output(#[from] OutputError),
    /// A fault of the program.
    #[error("a source failed in a way that it should not; please report this")]
    Source,
}

impl RunError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Ledger(error) => error.may_pass(),
            Self::Output(error) => error.may_pass(),
            Self::Source => false,
        }
    }
}

/// Finds the ships of a frame, as the source of that number is looked at.
pub type Look<'a> = &'a dyn Fn(usize, &Frame) -> Result<FrameRecord, DetectError>;

/// Where frames come from, and what becomes of them.
pub struct Feed {
    /// Gives frames, in a thread of its own.
    pub source: Box<dyn Source + Send>,
    /// Frames that may wait, besides the one that the source has in hand.
    pub waiting: usize,
    /// What happens to more.
    pub policy: Policy,
    /// What becomes of a file, once its record is written.
    pub finish: Finish,
    /// Where files are set aside that are no frames, each with a note that says why.
    pub failed: Option<PathBuf>,
}

/// What becomes of the files of a feed.
struct Fate {
    finish: Finish,
    failed: Option<PathBuf>,
}

/// What the loop keeps from turn to turn, besides the batch.
#[derive(Debug, Default)]
pub struct Kept {
    /// When lines were last written, unless the ledger knows how far that went.
    written: Option<Instant>,
    /// Lanes and files that are done and still lie there, and what is wrong with those that are broken.
    undecided: Vec<(usize, Origin, Option<String>)>,
    /// When these were last tried.
    tried: Option<Instant>,
}

/// The loop and all that it writes to.
pub struct Daemon<'a> {
    /// Looks at frames.
    pub look: Look<'a>,
    /// Says what is done.
    pub ledger: Ledger,
    /// Takes every record, once it is committed.
    pub output: Output,
    /// Takes a picture of every frame.
    pub overlay: Option<Overlay>,
    /// How many frames are committed together.
    pub group: Group,
    /// Whether frames are done again that the ledger knows.
    pub reprocess: bool,
    /// What the loop keeps; empty at first.
    pub kept: Kept,
    /// Hears that the loop turns: a frame is done, or there is none, or no space for it.
    pub alive: &'a dyn Fn(&Summary),
}

impl Daemon<'_> {
    /// Takes frames from all feeds, finds ships and hands records on, until all sources end or `stop` is
    /// requested. The frame in hand is finished first.
    ///
    /// A broken frame is logged, counted and skipped; so is an overlay that cannot be written. Where the disk is
    /// full, the loop waits until it is not.
    ///
    /// # Errors
    /// If frames cannot be committed or lines not written.
    pub fn run(&mut self, feeds: Vec<Feed>, stop: &Stop) -> Result<Summary, RunError> {
        let queue = Queue::new(feeds.iter().map(|feed| (feed.waiting, feed.policy)));
        let mut fates = Vec::new();
        thread::scope(|threads| {
            for (lane, feed) in feeds.into_iter().enumerate() {
                let Feed {
                    source,
                    finish,
                    failed,
                    ..
                } = feed;
                fates.push(Fate { finish, failed });
                let queue = &queue;
                threads.spawn(move || pump(source, queue, lane));
            }
            let _closes = Closes(&queue);
            self.turn(&queue, &fates, stop)
        })
    }

    /// The loop itself.
    fn turn(
        &mut self,
        queue: &Queue<Arrival>,
        fates: &[Fate],
        stop: &Stop,
    ) -> Result<Summary, RunError> {
        let mut summary = Summary::default();
        let mut batch = Batch::default();
        while !stop.is_requested() {
            summary.dropped = (0..fates.len()).map(|lane| queue.dropped(lane)).sum();
            (self.alive)(&summary);
            match queue.pop(batch.wait(self.group, POLL)) {
                Popped::Item(_, Err(fault)) => {
                    self.settle(&mut batch, fates, &summary, stop)?;
                    return Err(fault);
                }
                Popped::Item(lane, Ok(next)) => match next {
                    Next::Frame {
                        frame,
                        decode,
                        origin,
                    } => self.take(lane, &frame, decode, origin, &mut batch, &mut summary)?,
                    Next::Broken { problem, origin } => {
                        summary.broken += 1;
                        warn!("{problem}; skipped");
                        if let Some(origin) = origin {
                            batch.push(lane, origin, Err(problem));
                        }
                    }
                    Next::Known { origin, outcome } => {
                        summary.known += 1;
                        debug!("{}: done before", origin.key.name.display());
                        self.decide(fates, lane, origin, outcome.problem);
                    }
                    Next::Idle | Next::End => {}
                },
                Popped::Idle if batch.entries.is_empty() => {
                    self.note_position(SETTLED);
                    self.decide_again(fates);
                }
                Popped::Idle => {}
                Popped::Ended => break,
            }
            if batch.is_due(self.group) {
                self.settle(&mut batch, fates, &summary, stop)?;
            }
        }
        self.settle(&mut batch, fates, &summary, stop)?;
        self.note_position(Duration::ZERO);
        Ok(summary)
    }

    fn take(
        &mut self,
        lane: usize,
        frame: &Frame,
        decode: Duration,
        origin: Origin,
        batch: &mut Batch,
        summary: &mut Summary,
    ) -> Result<(), RunError> {
        // It may have come twice before the ledger knew it.
        let known = !self.reprocess && self.ledger.knows(&origin.key)?;
        if known {
            summary.known += 1;
            self.kept.tried = None;
            self.kept.undecided.push((lane, origin, None));
            return Ok(());
        }
        if batch.keys.contains(&origin.key) {
            summary.known += 1;
            batch.saw_again(origin);
            return Ok(());
        }
        let seen = contain(|| {
            let record = (self.look)(lane, frame)?;
            let overlay = self.overlay.as_ref();
            let overlay = overlay.map(|overlay| overlay.write(&frame.pixels, &record));
            Ok::<_, DetectError>((record, overlay))
        });
        match seen {
            Some(Ok((mut record, overlay))) => {
                record.millis.decode = milliseconds(decode);
                summary.frames += 1;
                summary.ships += record.ships.len() as u64;
                info!("{}", describe(&record));
                match overlay {
                    Some(Ok(path)) => info!("{}: overlay {}", record.frame, path.display()),
                    Some(Err(error)) => warn!("{}: no overlay: {error}", record.frame),
                    None => {}
                }
                batch.push(lane, origin, Ok(record));
            }
            Some(Err(error)) => {
                summary.broken += 1;
                warn!("{}: {error}; skipped", frame.name);
            }
            None => {
                let problem = "shipwatch itself fails on this frame; please report it";
                summary.broken += 1;
                error!("{}: {problem}; skipped", frame.name);
                batch.push(lane, origin, Err(problem.to_owned()));
            }
        }
        Ok(())
    }

    /// Commits what is done, writes its lines and finishes its files. On a full disk it waits, and leaves the
    /// batch as it is if `stop` is requested meanwhile: its files are then processed once more.
    fn settle(
        &mut self,
        batch: &mut Batch,
        fates: &[Fate],
        summary: &Summary,
        stop: &Stop,
    ) -> Result<(), RunError> {
        if batch.entries.is_empty() {
            return Ok(());
        }
        let mut warned = false;
        loop {
            match self.write(batch) {
                Ok(()) => break,
                Err(error) if error.may_pass() => {
                    if !warned {
                        warn!("{error}; waiting");
                        warned = true;
                    }
                    if stop.is_requested() {
                        return Err(error);
                    }
                    (self.alive)(summary);
                    sleep(FULL);
                }
                Err(error) => return Err(error),
            }
        }
        if warned {
            info!("the disk takes it again");
        }
        let Batch {
            origins, entries, ..
        } = mem::take(batch);
        for ((lane, origin), entry) in origins.into_iter().zip(entries) {
            self.decide(fates, lane, origin, entry.outcome.err());
        }
        Ok(())
    }

    fn decide(&mut self, fates: &[Fate], lane: usize, origin: Origin, problem: Option<String>) {
        if !fates[lane].decide(&origin, problem.as_deref()) {
            self.kept.tried = Some(Instant::now());
            self.kept.undecided.push((lane, origin, problem));
        }
    }

    /// Tries again, now and then, to move or delete what could not be.
    fn decide_again(&mut self, fates: &[Fate]) {
        if self.kept.tried.is_none_or(|at| at.elapsed() >= AGAIN) {
            let Kept { undecided, .. } = &mut self.kept;
            undecided
                .retain(|(lane, origin, problem)| !fates[*lane].decide(origin, problem.as_deref()));
            self.kept.tried = Some(Instant::now());
        }
    }

    /// What is committed already is not committed again.
    fn write(&mut self, batch: &mut Batch) -> Result<(), RunError> {
        if !batch.committed {
            self.commit(&mut batch.entries)?;
            batch.committed = true;
        }
        let entries = batch.entries.iter();
        self.output
            .follow(entries.filter_map(|entry| entry.outcome.as_ref().ok()))?;
        self.kept.written = Some(Instant::now());
        Ok(())
    }

    /// Commits how far the output is where no next batch has done so for a while: then a file that is moved away
    /// takes no line with it that a crash would have written again.
    fn note_position(&mut self, quiet: Duration) {
        if self.kept.written.is_some_and(|at| at.elapsed() >= quiet) {
            self.kept.written = None;
            if let Err(error) = self.commit(&mut []) {
                warn!("{error}; tried again with the next frames");
            }
        }
    }

    fn commit(&mut self, entries: &mut [Entry]) -> Result<(), LedgerError> {
        let position = self.output.position().map(|at| (self.output.path(), at));
        self.ledger.commit(entries, position)
    }
}

/// What a source's thread hands to the loop.
type Arrival = Result<Next, RunError>;

/// Lets a source fill its lane, until it ends or nobody takes any more.
fn pump(mut source: Box<dyn Source + Send>, queue: &Queue<Arrival>, lane: usize) {
    while !queue.is_closed() {
        let next = contain(|| source.next(POLL));
        queue.note_lost(lane, source.dropped());
        match next {
            Some(Ok(Next::Idle)) => {}
            Some(Ok(Next::End)) => break,
            Some(Ok(next)) => {
                if !queue.push(lane, Ok(next)) {
                    break;
                }
            }
            Some(Err(error)) => {
                queue.put(lane, Err(error.into()));
                break;
            }
            None => {
                queue.put(lane, Err(RunError::Source));
                break;
            }
        }
    }
    queue.end(lane);
}

/// Closes a queue whatever happens, for its threads are waited for.
struct Closes<'a>(&'a Queue<Arrival>);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Fate {
    /// Keeps, moves or deletes a file; one with a `problem` is set aside, if there is a folder for that, and else
    /// stays where it is. A file that changed meanwhile is left alone: it will come again. False if it could not
    /// be done.
    fn decide(&self, Origin { key, file }: &Origin, problem: Option<&str>) -> bool {
        let Some(SourceFile { path, stamp }) = file else {
            return true;
        };
        let (name, digest) = (&key.name, &key.digest);
        let decided = match (problem, &self.failed) {
            (None, _) => self.finish.finish(path, name, digest, stamp),
            (Some(problem), Some(folder)) => set_aside(path, name, digest, stamp, folder, problem),
            (Some(_), None) => Ok(()),
        };
        if let Err(error) = &decided {
            warn!("{}: stays where it is: {error}", path.display());
        }
        decided.is_ok()
    }
}

/// Frames that are done and not yet committed.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    /// Lanes and frames of the entries.
    origins: Vec<(usize, Origin)>,
    keys: HashSet<Key>,
    since: Option<Instant>,
    committed: bool,
}

impl Batch {
    fn push(&mut self, lane: usize, origin: Origin, outcome: Result<FrameRecord, String>) {
        if !self.keys.insert(origin.key.clone()) {
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        self.entries.push(Entry {
            key: origin.key.clone(),
            stamp: origin.file.as_ref().map(|file| file.stamp),
            outcome,
        });
        self.origins.push((lane, origin));
    }

    /// A file that was written anew with the same content is finished as it is now.
    fn saw_again(&mut self, origin: Origin) {
        let mut origins = self.origins.iter_mut().map(|(_, origin)| origin);
        if let Some(before) = origins.find(|before| before.key == origin.key) {
            *before = origin;
        }
    }

    fn is_due(&self, group: Group) -> bool {
        let late = |since: Instant| since.elapsed() >= group.delay;
        self.entries.len() >= group.frames || self.since.is_some_and(late)
    }

    /// How long to wait for another frame. Nothing waits for company that is not there yet.
    fn wait(&self, group: Group, idle: Duration) -> Duration {
        match self.since {
            Some(since) => group.delay.saturating_sub(since.elapsed()).min(idle),
            None => idle,
        }
    }
}

fn describe(record: &FrameRecord) -> String {
    let ships = record.ships.len();
    let gate = &record.gate;
    let time = &record.millis;
    let total = time.decode + time.prepare + time.gate + time.segment + time.extract;
    format!(
        "{}: {ships} {}, gate {:.2}, {} of {} tiles segmented, {total:.0} ms",
        record.frame,
        if ships == 1 { "ship" } else { "ships" },
        gate.score,
        gate.segmented,
        gate.tiles,
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::frame::{RgbImage, Tags};
    use crate::ledger::Outcome;
    use crate::sink::sample_record;
    use crate::source::stamp::Stamp;

    /// Plays back what it was given, then ends.
    struct Script(Vec<Next>);

    impl Source for Script {
        fn next(&mut self, _: Duration) -> Result<Next, LedgerError> {
            Ok(match self.0.is_empty() {
                true => Next::End,
                false => self.0.remove(0),
            })
        }
    }

    fn look(_: usize, frame: &Frame) -> Result<FrameRecord, DetectError> {
        match frame.name.as_str() {
            "bad" => Err(DetectError::Empty),
            name => Ok(sample_record(name, &["1 4", "17 4"])),
        }
    }

    /// A folder with a ledger, an output and files.
    struct Field(tempfile::TempDir);

    impl Field {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("folder"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn origin(&self, name: &str) -> Origin {
            let path = self.path(name);
            fs::write(&path, name).expect("writes");
            Origin {
                key: Key {
                    source: "test".into(),
                    name: name.into(),
                    digest: [name.as_bytes()[0]; 32],
                },
                file: Some(SourceFile {
                    stamp: Stamp::of(&path).expect("is there"),
                    path,
                }),
            }
        }

        fn frame(&self, name: &str) -> Next {
            Next::Frame {
                frame: Frame {
                    name: name.into(),
                    pixels: RgbImage::new(8, 8),
                    tags: Tags::default(),
                },
                decode: Duration::from_millis(7),
                origin: self.origin(name),
            }
        }

        fn daemon<'a>(&self, look: Look<'a>) -> Daemon<'a> {
            let ledger = Ledger::open(&self.path("ledger")).expect("opens");
            Daemon {
                look,
                output: Output::open(&self.path("out.jsonl"), &ledger).expect("opens"),
                ledger,
                overlay: None,
                group: Group::default(),
                reprocess: false,
                kept: Kept::default(),
                alive: &|_| {},
            }
        }

        fn feed(&self, script: Vec<Next>) -> Feed {
            Feed {
                source: Box::new(Script(script)),
                waiting: 1,
                policy: Policy::Block,
                finish: Finish::Delete,
                failed: Some(self.path("failed")),
            }
        }

        fn run(&self, script: Vec<Next>) -> Summary {
            let mut daemon = self.daemon(&look);
            let summary = daemon.run(vec![self.feed(script)], &Stop::default());
            summary.expect("runs")
        }

        fn records(&self) -> Vec<FrameRecord> {
            let text = fs::read_to_string(self.path("out.jsonl")).expect("reads");
            let record = |line| serde_json::from_str(line).expect("a record");
            text.lines().map(record).collect()
        }
    }

    #[test]
    fn broken_frames_are_counted_and_do_not_end_the_loop() {
        let field = Field::new();
        let broken = |origin: Option<Origin>| Next::Broken {
            problem: "is cut off".into(),
            origin,
        };
        // What cannot be read now may be good another time.
        field.origin("y.tif");
        let script = vec![
            Next::Idle,
            field.frame("a"),
            broken(Some(field.origin("x.jpg"))),
            broken(None),
            field.frame("bad"),
            field.frame("c"),
            Next::Known {
                origin: field.origin("d"),
                outcome: Outcome { problem: None },
            },
            Next::Known {
                origin: field.origin("z"),
                outcome: Outcome {
                    problem: Some("is empty".into()),
                },
            },
        ];
        assert_eq!(
            field.run(script),
            Summary {
                frames: 2,
                ships: 4,
                broken: 3,
                known: 2,
                dropped: 0
            }
        );
        let records = field.records();
        let names: Vec<_> = records.iter().map(|r| (r.id, r.frame.as_str())).collect();
        // The second number is that of the broken file.
        assert_eq!(names, [(Some(1), "a"), (Some(3), "c")]);
        assert_eq!(records[0].millis.decode, 7.0);
        // Done are what has a record, what never will have one, and what was done before.
        let left = ["y.tif", "bad", "a", "x.jpg", "c", "d", "z"];
        let left = left.map(|name| field.path(name).exists());
        assert_eq!(left, [true, true, false, false, false, false, false]);
        let aside = |name| fs::read_to_string(field.path("failed").join(name)).unwrap_or_default();
        assert_eq!(aside("z"), "z");
        assert_eq!(aside("z.reason.txt"), "is empty\n");
        assert!(aside("x.jpg.reason.txt").contains("is cut off"));
    }

    #[test]
    fn a_request_to_stop_lets_the_frame_in_hand_finish() {
        let field = Field::new();
        let stop = Stop::default();
        let look = |lane, frame: &Frame| {
            stop.request();
            look(lane, frame)
        };
        let mut daemon = field.daemon(&look);
        let feed = field.feed(vec![field.frame("a"), field.frame("b")]);
        let summary = daemon.run(vec![feed], &stop).expect("runs");
        assert_eq!(summary.frames, 1);
        assert_eq!(field.records().len(), 1);
        assert!(field.path("b").exists());
    }

    #[test]
    fn all_feeds_are_served_each_as_it_is_looked_at() {
        let field = Field::new();
        let lanes = RefCell::new(Vec::new());
        let look = |lane, frame: &Frame| {
            lanes.borrow_mut().push((frame.name.clone(), lane));
            look(lane, frame)
        };
        let mut daemon = field.daemon(&look);
        let keeps = Feed {
            finish: Finish::Keep,
            ..field.feed(vec![field.frame("b"), field.frame("c")])
        };
        let feeds = vec![field.feed(vec![field.frame("a")]), keeps];
        let summary = daemon.run(feeds, &Stop::default()).expect("runs");
        assert_eq!(summary.frames, 3);
        let mut lanes = lanes.into_inner();
        lanes.sort();
        let lanes: Vec<_> = lanes
            .iter()
            .map(|(name, lane)| (name.as_str(), *lane))
            .collect();
        assert_eq!(lanes, [("a", 0), ("b", 1), ("c", 1)]);
        let left = ["a", "b", "c"].map(|name| field.path(name).exists());
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn what_cannot_be_moved_is_tried_again() {
        let field = Field::new();
        let mut daemon = field.daemon(&look);
        let fates = [Fate {
            finish: Finish::Move(field.path("done")),
            failed: None,
        }];
        let origin = field.origin("a");
        // A file lies where the folder should.
        fs::write(field.path("done"), "in the way").expect("writes");
        daemon.decide(&fates, 0, origin, None);
        assert!(field.path("a").exists());
        fs::remove_file(field.path("done")).expect("removes");
        daemon.decide_again(&fates);
        assert!(field.path("a").exists(), "not at once");
        daemon.kept.tried = None;
        daemon.decide_again(&fates);
        assert!(!field.path("a").exists() && field.path("done/a").exists());
        assert!(daemon.kept.undecided.is_empty());
    }

    #[test]
    fn a_frame_that_comes_twice_before_it_is_committed_is_done_once() {
        let field = Field::new();
        let summary = field.run(vec![field.frame("a"), field.frame("a")]);
        assert_eq!((summary.frames, summary.known), (1, 1));
        assert_eq!(field.records().len(), 1);
    }

    #[test]
    fn lines_wait_for_their_commit_and_files_for_their_lines() {
        let field = Field::new();
        let seen = RefCell::new(Vec::new());
        let look = |lane, frame: &Frame| {
            let files = ["a", "b"].map(|name| field.path(name).exists());
            seen.borrow_mut().push((field.records().len(), files));
            look(lane, frame)
        };
        let mut daemon = field.daemon(&look);
        daemon.group.frames = 2;
        let feed = field.feed(vec![field.frame("a"), field.frame("b"), field.frame("c")]);
        daemon.run(vec![feed], &Stop::default()).expect("runs");
        let both = [true, true];
        assert_eq!(*seen.borrow(), [(0, both), (0, both), (2, [false, false])]);
        assert_eq!(field.records().len(), 3);
    }

    #[test]
    fn an_output_that_cannot_be_written_ends_the_loop_and_loses_nothing() {
        let field = Field::new();
        field.run(vec![field.frame("before")]);
        let mut daemon = field.daemon(&look);
        daemon.output = Output::open(Path::new("/dev/full"), &daemon.ledger).expect("opens");
        let stop = Stop::default();
        stop.request();
        // A full disk is waited for, but not by who is asked to stop.
        let mut batch = Batch::default();
        batch.push(0, field.origin("a"), Ok(sample_record("a", &[])));
        let error = daemon
            .settle(&mut batch, &[], &Summary::default(), &stop)
            .expect_err("is full");
        assert!(error.may_pass(), "{error}");
        assert!(field.path("a").exists());
        drop(daemon);
        assert_eq!(field.run(Vec::new()), Summary::default());
        assert_eq!(field.records().len(), 2, "it was committed");
    }
}
