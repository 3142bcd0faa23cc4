//! The loop that `shipwatch run` turns, and what it stands on.

mod batch;
pub mod clock_state;
pub mod config;
mod fate;
pub mod heat;
pub mod output;
mod pump;
pub mod queue;
pub mod retention;
pub mod selftest;
pub mod space;
pub mod status;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

pub use batch::Group;
pub use pump::Feed;

use crate::contain::contain;
use crate::detect::DetectError;
use crate::frame::Frame;
use crate::ledger::{Ledger, LedgerError};
use crate::record::{BoardState, FrameRecord, milliseconds};
use crate::sink::Pictures;
use crate::source::in_hand::InHand;
use crate::source::{Next, Origin, Source};
use batch::Batch;
use clock_state::ClockState;
use fate::{Fate, Fates};
use heat::Governor;
use output::{OutputError, Outputs};
use pump::{Arrival, Pumps};
use queue::{Policy, Popped, Queue};
use retention::{Forgetting, Keep};
use space::Short;
use status::{Board, Counts};

/// How long a quiet source may keep the loop from noticing a request to stop.
const POLL: Duration = Duration::from_millis(200);

/// How long a full disk is given before it is tried again.
const FULL: Duration = Duration::from_secs(1);

/// How long the reader of a pipe is given.
const BEHIND: Duration = Duration::from_millis(20);

/// How long after lines were written the ledger is told of it, if no frames come that do it.
const SETTLED: Duration = Duration::from_secs(5);

/// How long it is given in the end.
const LAST: Duration = Duration::from_secs(2);

/// How long frames of cameras that wait are still looked at in the end.
const DRAIN: Duration = Duration::from_secs(10);

/// A file that is in hand for so long is never done with.
const HANGS: Duration = Duration::from_secs(600);

/// How often the log says what was done.
const REPORT: Duration = Duration::from_secs(600);

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

/// Why the loop gave up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing can be committed.
    #[error("cannot keep the ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// A line could not be written. Going on would lose detections unnoticed.
    #[error("cannot write detections: {0}")]
    Output(#[from] OutputError),
    /// There is room, but it is not to be used.
    #[error(transparent)]
    Short(#[from] Short),
    /// A fault of the program.
    #[error("a source failed in a way that it should not; please report this")]
    Source,
}

impl RunError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Ledger(error) => error.may_pass(),
            Self::Output(error) => error.may_pass(),
            Self::Short(_) => true,
            Self::Source => false,
        }
    }
}

/// Finds the ships of a frame, as the source of that number is looked at.
pub type Look<'a> = &'a dyn Fn(usize, &Frame) -> Result<FrameRecord, DetectError>;

/// Sources that a loop is done with, each in its place; none of one that does not end.
pub type Left = Vec<Option<Box<dyn Source + Send>>>;

/// What a loop is told to do besides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many frames are committed together.
    pub group: Group,
    /// Whether frames are done again that the ledger knows.
    pub reprocess: bool,
    /// How much is kept.
    pub keep: Keep,
}

/// The loop and all that it writes to.
pub struct Daemon<'a> {
    /// Looks at frames.
    pub look: Look<'a>,
    /// Says what is done.
    pub ledger: &'a mut Ledger,
    /// Take every record, once it is committed.
    pub outputs: Outputs,
    /// Take pictures of every frame with ships.
    pub pictures: Vec<Pictures>,
    /// What else the loop is told.
    pub settings: Settings,
    /// Files that the process has in hand.
    pub in_hand: Arc<InHand>,
    /// Says how hot the board is, and how much to work.
    pub governor: Governor,
    /// Says whether the clock is right.
    pub clock: ClockState,
    /// What people are told; it has an entry for each feed.
    pub board: Arc<Board>,
    /// Hears that the loop turns: a frame is done, or there is none, or no space for it; and nothing any more once a
    /// file is in hand that is never done with.
    pub alive: &'a dyn Fn(&Counts),
}

/// What a loop has to do with, from its start to its end.
struct Round {
    queue: Arc<Queue<Arrival>>,
    /// Whether frames of a lane are gone if they are not looked at now.
    passing: Vec<bool>,
    fates: Fates,
    counts: Vec<Counts>,
    batch: Batch,
    /// When lines were last written, unless the ledger knows how far that went.
    written: Option<Instant>,
    forgetting: Forgetting,
    start: Instant,
    /// When the log was told last what was done, and what that was.
    logged: Instant,
    told: Counts,
    state: BoardState,
    /// No frame is looked at before.
    rested: Instant,
}

impl Round {
    /// The next frame, or nothing if none comes in time or the board needs rest.
    fn pop(&self, group: Group) -> Popped<Arrival> {
        let wait = self.batch.wait(group, POLL);
        let rest = self.rested.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return self.queue.pop(wait);
        }
        sleep(rest.min(wait));
        Popped::Idle
    }

    /// Forgets what need not be kept; nothing for its age while the clock is wrong.
    fn forget(&mut self, ledger: &mut Ledger, outputs: &Outputs) {
        let is_wrong = self.state.clock_synchronised == Some(false);
        self.forgetting.step(ledger, outputs, !is_wrong);
    }

    /// Counts what could not be committed in the end and will not come again.
    fn give_up(&mut self) {
        if !self.batch.committed {
            let lost = self.batch.origins.iter();
            for (lane, _) in lost.filter(|(_, origin)| origin.file.is_none()) {
                self.counts[*lane].dropped += 1;
            }
        }
    }
}

impl Daemon<'_> {
    /// Takes frames from all feeds, finds ships and hands records on, until all sources end or `stop` is
    /// requested. The frame in hand is finished first, and so are frames of cameras that wait, as long as that
    /// takes no more than some seconds; those of folders will be there next time.
    ///
    /// A broken frame is logged, counted and skipped; a picture that cannot be written is left out. Where the disk is
    /// full, or nobody reads a pipe, the loop waits until that passes; if it is asked to stop meanwhile, lines of
    /// frames that are committed are left for the next [`Outputs::open`], files of others will be there next time, and
    /// frames without files count as dropped.
    ///
    /// # Errors
    /// If frames cannot be committed or lines not written, for a reason that does not pass.
    pub fn run(&mut self, feeds: Vec<Feed>, stop: &Stop) -> Result<(Counts, Left), RunError> {
        let lanes = feeds.iter().map(|feed| (feed.waiting, feed.policy));
        let queue = Arc::new(Queue::new(lanes));
        let mut sources = Vec::new();
        let mut fates = Vec::new();
        let mut passing = Vec::new();
        for feed in feeds {
            passing.push(feed.policy != Policy::Block);
            sources.push((feed.name, feed.source, feed.interval));
            fates.push(Fate {
                finish: feed.finish,
                failed: feed.failed,
                reserve: self.settings.keep.reserve,
            });
        }
        let mut round = Round {
            counts: vec![Counts::default(); fates.len()],
            fates: Fates::new(fates),
            passing,
            batch: Batch::default(),
            written: None,
            forgetting: Forgetting::new(self.settings.keep.clone()),
            start: Instant::now(),
            logged: Instant::now(),
            told: Counts::default(),
            state: BoardState::default(),
            rested: Instant::now(),
            queue: Arc::clone(&queue),
        };
        let mut pumps = Pumps::start(sources, &queue, &self.board);
        self.turn(&mut round, stop)?;
        let left = pumps.stop();
        self.drain(&mut round)?;
        self.settle(&mut round, stop)?;
        round.give_up();
        self.tell_position(&mut round, Duration::ZERO);
        self.report(&mut round);
        Ok((round.counts.into_iter().sum(), left))
    }

    /// The loop itself.
    fn turn(&mut self, round: &mut Round, stop: &Stop) -> Result<(), RunError> {
        let group = self.settings.group;
        while !stop.is_requested() {
            self.look_at_board(round);
            self.report(round);
            match round.pop(group) {
                Popped::Item(lane, arrival) => {
                    let start = Instant::now();
                    if let Err(fault) = self.receive(lane, arrival, round) {
                        self.settle(round, stop)?;
                        return Err(fault);
                    }
                    if let Some(heat) = &round.state.heat {
                        round.rested = Instant::now() + heat.rest(start.elapsed());
                    }
                }
                Popped::Idle if round.batch.entries.is_empty() => self.tidy(round)?,
                Popped::Idle => {}
                Popped::Ended => break,
            }
            if round.batch.is_due(group) {
                self.settle(round, stop)?;
                // There may never be a time without frames.
                round.fates.decide_again();
                round.forget(self.ledger, &self.outputs);
            }
        }
        Ok(())
    }

    /// Asks how the board fares, and says so if it works slower or faster for it.
    fn look_at_board(&mut self, round: &mut Round) {
        let now = round.start.elapsed();
        let state = BoardState {
            heat: self.governor.look(now),
            clock_synchronised: self.clock.look(now),
        };
        let before = mem::replace(&mut round.state, state);
        let step = |state: &BoardState| state.heat.map_or(0, |heat| heat.step);
        let (step, before) = (step(&state), step(&before));
        let share = 1 << step;
        if step > before {
            warn!("the board is hot: it works for 1/{share} of the time");
        } else if step < before {
            info!("the board is cooler: it works for 1/{share} of the time");
        }
    }

    /// What there is time for while no frame comes.
    fn tidy(&mut self, round: &mut Round) -> Result<(), RunError> {
        self.tell_position(round, SETTLED);
        round.fates.decide_again();
        round.forget(self.ledger, &self.outputs);
        match self.outputs.send_waiting() {
            Err(error) if !error.may_pass() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Looks at frames that would be gone otherwise, as long as there is time.
    fn drain(&mut self, round: &mut Round) -> Result<(), RunError> {
        let deadline = Instant::now() + DRAIN;
        while let Popped::Item(lane, arrival) = round.queue.pop(Duration::ZERO) {
            // What the writer of a stream was held up for comes no second time.
            let has_no_file =
                matches!(&arrival, Ok(Next::Frame { origin, .. }) if origin.file.is_none());
            if !round.passing[lane] && !has_no_file {
                continue;
            }
            // To frames that are committed and not written, none can be added.
            match Instant::now() < deadline && !round.batch.committed {
                true => self.receive(lane, arrival, round)?,
                false => {
                    let is_frame = matches!(arrival, Ok(Next::Frame { .. }));
                    round.counts[lane].dropped += u64::from(is_frame);
                }
            }
        }
        Ok(())
    }

    /// Tells people, and whoever watches that the loop turns.
    fn report(&self, round: &mut Round) {
        for (lane, counts) in round.counts.iter_mut().enumerate() {
            counts.dropped += round.queue.take_dropped(lane);
        }
        self.board.update(|status| {
            status.uncommitted = round.batch.entries.len();
            status.board = round.state;
            for (lane, counts) in round.counts.iter().enumerate() {
                let source = &mut status.sources[lane];
                source.counts = *counts;
                source.waiting = round.queue.waiting(lane);
            }
        });
        if self.in_hand.longest() < HANGS {
            (self.alive)(&round.counts.iter().copied().sum());
        }
        self.log_counts(round);
    }

    /// Says in the log, now and then, what was done, and soon that frames are dropped.
    fn log_counts(&self, round: &mut Round) {
        let now: Counts = round.counts.iter().copied().sum();
        let since = round.logged.elapsed();
        let dropped = now.dropped - round.told.dropped;
        if since >= REPORT || dropped > 0 && since >= REPORT / 10 {
            let Counts {
                frames,
                ships,
                broken,
                known,
                ..
            } = now - round.told;
            let minutes = since.as_secs_f64() / 60.0;
            let counts = format!(
                "in {minutes:.0} min {frames} frames with {ships} ships; {broken} skipped, {known} done before"
            );
            match dropped {
                0 => info!("{counts}"),
                _ => warn!("{counts}, {dropped} dropped: they come faster than they are looked at"),
            }
            round.told = now;
            round.logged = Instant::now();
        }
    }

    fn receive(
        &mut self,
        lane: usize,
        arrival: Arrival,
        round: &mut Round,
    ) -> Result<(), RunError> {
        let counts = &mut round.counts[lane];
        match arrival? {
            Next::Frame {
                frame,
                decode,
                origin,
            } => self.take(lane, &frame, decode, origin, round)?,
            Next::Seen { record, origin } => self.note(lane, record, origin, round),
            Next::Broken { problem, origin } => {
                counts.broken += 1;
                warn!("{problem}; skipped");
                if let Some(origin) = origin {
                    round.batch.push(lane, origin, Err(problem));
                }
            }
            Next::Known { origin, outcome } => {
                counts.known += 1;
                debug!("{}: done before", origin.key.name.display());
                round.fates.decide(lane, origin, outcome.problem);
            }
            Next::Idle | Next::End => {}
        }
        Ok(())
    }

    fn take(
        &mut self,
        lane: usize,
        frame: &Frame,
        decode: Duration,
        origin: Origin,
        round: &mut Round,
    ) -> Result<(), RunError> {
        let Round { batch, fates, .. } = round;
        let counts = &mut round.counts[lane];
        // It may have come twice before the ledger knew it.
        if !self.settings.reprocess
            && let Some(outcome) = self.ledger.outcome(&origin.key)?
        {
            counts.known += 1;
            fates.put_off(lane, origin, outcome.problem);
            return Ok(());
        }
        if batch.contains(&origin.key) {
            counts.known += 1;
            batch.saw_again(origin);
            return Ok(());
        }
        let mark = (origin.file.is_some()).then(|| self.in_hand.mark(&origin.key));
        (self.board).update(|status| status.looking_at = Some(frame.name.clone()));
        let seen = contain(|| {
            let record = (self.look)(lane, frame)?;
            if !record.ships.is_empty() {
                self.picture(lane, frame, &record, &origin);
            }
            Ok::<_, DetectError>(record)
        });
        drop(mark);
        self.board.update(|status| status.looking_at = None);
        match seen {
            Some(Ok(mut record)) => {
                record.millis.decode = milliseconds(decode);
                self.note(lane, record, origin, round);
            }
            Some(Err(error)) => {
                counts.broken += 1;
                warn!("{}: {error}; skipped", frame.name);
            }
            None => {
                let problem = "shipwatch itself fails on this frame; please report it";
                counts.broken += 1;
                error!("{}: {problem}; skipped", frame.name);
                batch.push(lane, origin, Err(problem.to_owned()));
            }
        }
        Ok(())
    }

    /// Writes pictures. One that is done again, after a crash before its commit, is written over.
    fn picture(&self, lane: usize, frame: &Frame, record: &FrameRecord, origin: &Origin) {
        let [a, b, c, d, ..] = origin.key.digest;
        let tag = format!("{a:02x}{b:02x}{c:02x}{d:02x}");
        // Names of frames without a file are their own.
        let tag = origin.file.as_ref().map(|_| tag.as_str());
        for pictures in &self.pictures {
            if let Err(short) = space::check([pictures.folder()], self.settings.keep.reserve) {
                warn!("{}: no picture: {short}", record.frame);
                continue;
            }
            match pictures.write(lane, &frame.pixels, record, tag) {
                Ok(paths) => match &paths[..] {
                    [] => {}
                    [path] => info!("{}: picture {}", record.frame, path.display()),
                    [path, rest @ ..] => {
                        let (frame, path) = (&record.frame, path.display());
                        info!("{frame}: picture {path} and {} more", rest.len());
                    }
                },
                Err(error) => warn!("{}: no picture: {error}", record.frame),
            }
        }
    }

    /// A frame has a record.
    fn note(&self, lane: usize, mut record: FrameRecord, origin: Origin, round: &mut Round) {
        record.board = Some(round.state).filter(|state| *state != BoardState::default());
        let counts = &mut round.counts[lane];
        counts.frames += 1;
        counts.ships += record.ships.len() as u64;
        info!("{}", describe(&record));
        self.board.looked(lane, &record);
        round.batch.push(lane, origin, Ok(record));
    }

    /// Commits what is done, writes its lines and finishes its files. On a full disk it waits, but not if `stop` is
    /// requested meanwhile; a reader that is behind is given a little time then.
    fn settle(&mut self, round: &mut Round, stop: &Stop) -> Result<(), RunError> {
        if round.batch.entries.is_empty() {
            return Ok(());
        }
        let mut trouble = None;
        let mut last = None;
        loop {
            let error = match self.write(round) {
                Ok(()) => break,
                Err(error) if error.may_pass() => error,
                Err(error) => return Err(error),
            };
            let is_behind = matches!(error, RunError::Output(OutputError::Behind(_)));
            if stop.is_requested() {
                let last = *last.get_or_insert_with(|| Instant::now() + LAST);
                if !is_behind || Instant::now() >= last {
                    warn!("{error}; what is not written is left for the next start");
                    self.board.update(|status| status.trouble = None);
                    return Ok(());
                }
            }
            self.report(round);
            if is_behind {
                sleep(BEHIND);
                continue;
            }
            let error = error.to_string();
            if trouble.is_none() {
                warn!("{error}; waiting");
                (self.board).update(|status| status.trouble = Some(error.clone()));
                trouble = Some(error);
            }
            sleep(FULL);
        }
        if trouble.is_some() {
            info!("detections can be written again");
        }
        self.board.update(|status| status.trouble = None);
        let Batch {
            origins, entries, ..
        } = mem::take(&mut round.batch);
        for ((lane, origin), entry) in origins.into_iter().zip(entries) {
            self.in_hand.acquit(&origin.key);
            round.fates.decide(lane, origin, entry.outcome.err());
        }
        Ok(())
    }

    /// What is committed already is not committed again.
    fn write(&mut self, round: &mut Round) -> Result<(), RunError> {
        let batch = &mut round.batch;
        let places = self.outputs.files().chain([self.ledger.path()]);
        space::check(places, self.settings.keep.reserve)?;
        self.outputs.prepare(self.ledger)?;
        match batch.committed {
            false => self.outputs.commit(self.ledger, &mut batch.entries)?,
            true => self.outputs.tell(self.ledger)?,
        }
        batch.committed = true;
        round.written = Some(Instant::now());
        self.outputs.follow(&batch.records())?;
        Ok(())
    }

    /// Commits how far the outputs are where no next batch has done so for a while.
    fn tell_position(&mut self, round: &mut Round, quiet: Duration) {
        if round.written.is_some_and(|at| at.elapsed() >= quiet) {
            round.written = None;
            if let Err(error) = self.outputs.tell(self.ledger) {
                warn!("{error}; tried again with the next frames");
            }
        }
    }
}

fn describe(record: &FrameRecord) -> String {
    let ships = record.ships.len();
    let gate = &record.gate;
    let time = &record.millis;
    let total = time.decode + time.prepare + time.gate + time.segment + time.extract;
    format!(
        "{}: {ships} {}, gate {:.2}, {} tiles, {} segmented, {total:.0} ms",
        record.frame,
        if ships == 1 { "ship" } else { "ships" },
        gate.score,
        gate.tiles,
        gate.segmented,
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::frame::{RgbImage, Tags};
    use crate::ledger::{Key, Outcome};
    use crate::sink::{Form, JsonLines, sample_record};
    use crate::source::SourceFile;
    use crate::source::finish::Finish;
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

        fn ledger(&self) -> Ledger {
            Ledger::open(&self.path("ledger")).expect("opens")
        }

        fn outputs(&self, path: &Path, ledger: &mut Ledger) -> Outputs {
            let places: [(_, Box<dyn Form>); 1] = [(path.to_owned(), Box::new(JsonLines))];
            Outputs::open(places, u64::MAX, ledger).expect("opens")
        }

        fn daemon<'a>(&self, look: Look<'a>, ledger: &'a mut Ledger) -> Daemon<'a> {
            let board = Board::default();
            board.update(|status| status.sources = vec![Default::default(); 2]);
            Daemon {
                look,
                outputs: self.outputs(&self.path("out.jsonl"), ledger),
                ledger,
                pictures: Vec::new(),
                settings: Settings {
                    group: Group::default(),
                    reprocess: false,
                    keep: Keep::all(),
                },
                in_hand: Arc::new(InHand::none()),
                // Where there are no sensors.
                governor: Governor::new(&self.path("sys"), heat::Limits::default()),
                clock: ClockState::new(),
                board: Arc::new(board),
                alive: &|_| {},
            }
        }

        fn feed(&self, script: Vec<Next>) -> Feed {
            Feed {
                name: "test".into(),
                source: Box::new(Script(script)),
                waiting: 1,
                policy: Policy::Block,
                interval: Duration::ZERO,
                finish: Finish::Delete,
                failed: Some(self.path("failed")),
            }
        }

        fn run(&self, script: Vec<Next>) -> Counts {
            let mut ledger = self.ledger();
            let mut daemon = self.daemon(&look, &mut ledger);
            let ended = daemon.run(vec![self.feed(script)], &Stop::default());
            ended.expect("runs").0
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
            Counts {
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
        let mut ledger = field.ledger();
        let mut daemon = field.daemon(&look, &mut ledger);
        let feed = field.feed(vec![field.frame("a"), field.frame("b")]);
        let (counts, left) = daemon.run(vec![feed], &stop).expect("runs");
        assert_eq!((counts.frames, left.len()), (1, 1));
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
        let mut ledger = field.ledger();
        let mut daemon = field.daemon(&look, &mut ledger);
        let keeps = Feed {
            finish: Finish::Keep,
            ..field.feed(vec![field.frame("b"), field.frame("c")])
        };
        let feeds = vec![field.feed(vec![field.frame("a")]), keeps];
        let (counts, _) = daemon.run(feeds, &Stop::default()).expect("runs");
        assert_eq!(counts.frames, 3);
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
    fn a_frame_that_comes_twice_before_it_is_committed_is_done_once() {
        let field = Field::new();
        let summary = field.run(vec![field.frame("a"), field.frame("a")]);
        assert_eq!((summary.frames, summary.known), (1, 1));
        assert_eq!(field.records().len(), 1);
    }

    #[test]
    fn a_file_that_came_twice_is_done_with_although_frames_never_cease() {
        let field = Field::new();
        field.run(vec![field.frame("a")]);
        let mut ledger = field.ledger();
        let mut daemon = field.daemon(&look, &mut ledger);
        daemon.settings.group.frames = 1;
        let feed = field.feed(vec![field.frame("a"), field.frame("b")]);
        let (counts, _) = daemon.run(vec![feed], &Stop::default()).expect("runs");
        assert_eq!((counts.frames, counts.known), (1, 1));
        assert!(!field.path("a").exists());
    }

    #[test]
    fn a_frame_that_fails_is_looked_at_no_longer() {
        let field = Field::new();
        let mut ledger = field.ledger();
        let mut daemon = field.daemon(&look, &mut ledger);
        let board = Arc::clone(&daemon.board);
        let feed = field.feed(vec![field.frame("bad")]);
        daemon.run(vec![feed], &Stop::default()).expect("runs");
        assert_eq!(board.status().looking_at, None);
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
        let mut ledger = field.ledger();
        let mut daemon = field.daemon(&look, &mut ledger);
        daemon.settings.group.frames = 2;
        let feed = field.feed(vec![field.frame("a"), field.frame("b"), field.frame("c")]);
        daemon.run(vec![feed], &Stop::default()).expect("runs");
        let both = [true, true];
        assert_eq!(*seen.borrow(), [(0, both), (0, both), (2, [false, false])]);
        assert_eq!(field.records().len(), 3);
    }

    #[test]
    fn who_is_asked_to_stop_does_not_wait_for_a_full_disk_and_loses_nothing() {
        let field = Field::new();
        field.run(vec![field.frame("before")]);
        let mut ledger = field.ledger();
        let full = field.outputs(Path::new("/dev/full"), &mut ledger);
        let mut daemon = field.daemon(&look, &mut ledger);
        daemon.outputs = full;
        let stop = Stop::default();
        let look = |lane, frame: &Frame| {
            stop.request();
            look(lane, frame)
        };
        daemon.look = &look;
        daemon.settings.group.frames = 1;
        // It is committed; what is handed over after that must not be taken for committed too.
        let feed = Feed {
            waiting: 2,
            policy: Policy::DropNewest,
            ..field.feed(vec![field.frame("a"), field.frame("b")])
        };
        let (counts, _) = daemon.run(vec![feed], &stop).expect("stops");
        assert!(counts.frames >= 1);
        assert!(field.path("a").exists());
        drop(ledger);
        assert_eq!(field.run(Vec::new()), Counts::default());
        assert_eq!(
            field.records().len() as u64,
            1 + counts.frames,
            "they were committed"
        );
        let again = field.run(vec![field.frame("a"), field.frame("b")]);
        assert_eq!(again.frames + again.known, 2);
        assert_eq!(field.records().len(), 3);
    }

    #[test]
    fn files_come_no_faster_than_their_rate() {
        let field = Field::new();
        let mut ledger = field.ledger();
        let mut daemon = field.daemon(&look, &mut ledger);
        let feed = Feed {
            interval: Duration::from_millis(40),
            ..field.feed(vec![field.frame("a"), field.frame("b"), field.frame("c")])
        };
        let start = Instant::now();
        let (counts, _) = daemon.run(vec![feed], &Stop::default()).expect("runs");
        assert_eq!(counts.frames, 3);
        assert!(start.elapsed() >= Duration::from_millis(80));
    }

    #[test]
    fn frames_that_would_be_gone_are_looked_at_in_the_end() {
        let field = Field::new();
        let stop = Stop::default();
        let frames = |names: [&str; 3]| names.map(|name| field.frame(name)).into();
        let passing = Feed {
            waiting: 3,
            policy: Policy::DropNewest,
            ..field.feed(frames(["a", "b", "c"]))
        };
        let lies_there = Feed {
            waiting: 2,
            ..field.feed(frames(["x", "y", "z"]))
        };
        let look = |lane, frame: &Frame| {
            // Both lanes are full by then.
            while frame.name == "a" && !field.path("go").exists() {
                sleep(Duration::from_millis(1));
            }
            stop.request();
            look(lane, frame)
        };
        let mut ledger = field.ledger();
        let mut daemon = field.daemon(&look, &mut ledger);
        let board = Arc::clone(&daemon.board);
        let counts = std::thread::scope(|threads| {
            threads.spawn(|| {
                while board.status().looking_at.is_none() {
                    sleep(Duration::from_millis(1));
                }
                sleep(Duration::from_millis(50));
                fs::write(field.path("go"), "").expect("writes");
            });
            daemon
                .run(vec![passing, lies_there], &stop)
                .expect("runs")
                .0
        });
        let mut names: Vec<_> = field.records().into_iter().map(|r| r.frame).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!((counts.frames, counts.dropped), (3, 0));
    }
}
