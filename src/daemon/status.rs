//! What the daemon tells of itself: a file in the runtime folder that `shipwatch status` prints.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::space;
use crate::record::{BoardState, FrameRecord, ModelId};

/// The status file's name in the runtime folder.
pub const FILE: &str = "status.json";

/// How many frames with ships are told of.
const DETECTIONS: usize = 10;

/// The time that rates are means over.
const WINDOW: Duration = Duration::from_secs(60);

/// What the daemon tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Its process number.
    pub process: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// When this was written.
    pub updated: String,
    /// Seconds since the start, by a clock that is never set.
    pub uptime: u64,
    /// The models that look.
    pub models: Option<ModelId>,
    /// What keeps it from working, if anything does.
    pub trouble: Option<String>,
    /// The frame that is looked at.
    pub looking_at: Option<String>,
    /// Frames that are done and not committed.
    pub uncommitted: usize,
    /// Where frames come from.
    pub sources: Vec<SourceStatus>,
    /// Frames with ships, the newest first.
    pub detections: VecDeque<Detection>,
    /// How the board fares.
    pub board: BoardState,
    /// Where results and the ledger go.
    pub disks: Vec<Disk>,
    /// How often the config was read again.
    pub reloads: u64,
    /// Why the config or the models that should have replaced those in use were not taken.
    pub refused: Option<String>,
}

/// What is told of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// The folder, the device, the command.
    pub place: String,
    /// What keeps it from giving frames, if anything does.
    pub trouble: Option<String>,
    /// Frames that wait to be looked at.
    pub waiting: usize,
    /// Files that are known of and do not even wait yet.
    pub backlog: usize,
    /// What came of its frames.
    #[serde(flatten)]
    pub counts: Counts,
    /// Frames that were looked at in the last minute.
    pub per_minute: u64,
    /// The last frame, and when it was done.
    pub last: Option<(String, String)>,
}

/// What came of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
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

/// A frame with ships.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// When it was looked at, RFC 3339.
    pub time: String,
    /// The source's name.
    pub source: String,
    /// The frame's.
    pub frame: String,
    /// Ships on it.
    pub ships: usize,
    /// The highest score of them, 0 to 1.
    pub score: f32,
}

/// The room on a disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// What lies on it.
    pub path: PathBuf,
    /// Bytes that are left.
    pub available: u64,
    /// Bytes that are never used.
    pub reserve: u64,
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            frames: a.frames + b.frames,
            ships: a.ships + b.ships,
            broken: a.broken + b.broken,
            known: a.known + b.known,
            dropped: a.dropped + b.dropped,
        })
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            frames: self.frames - before.frames,
            ships: self.ships - before.ships,
            broken: self.broken - before.broken,
            known: self.known - before.known,
            dropped: self.dropped - before.dropped,
        }
    }
}

/// Where the threads of a daemon write what they tell.
#[derive(Debug)]
pub struct Board {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    status: Status,
    /// Frames by source at moments of the last minute.
    past: VecDeque<(Instant, Vec<u64>)>,
}

impl Default for Board {
    fn default() -> Self {
        let status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            process: std::process::id(),
            started: now(),
            ..Status::default()
        };
        Self {
            start: Instant::now(),
            state: Mutex::new(State {
                status,
                past: VecDeque::new(),
            }),
        }
    }
}

impl Board {
    /// Changes what is told.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
    }

    /// A frame of a source was looked at.
    ///
    /// # Panics
    /// If there is no such source.
    pub(super) fn looked(&self, lane: usize, record: &FrameRecord) {
        let time = now();
        self.update(|status| {
            let source = &mut status.sources[lane];
            source.last = Some((record.frame.clone(), time.clone()));
            let Some(best) = record.ships.first() else {
                return;
            };
            status.detections.truncate(DETECTIONS - 1);
            status.detections.push_front(Detection {
                time,
                source: source.name.clone(),
                frame: record.frame.clone(),
                ships: record.ships.len(),
                score: best.score,
            });
        });
    }

    /// All that is told, with rates, and the room on disks.
    pub fn status(&self) -> Status {
        let mut state = self.lock();
        let State { status, past } = &mut *state;
        status.updated = self::now();
        status.uptime = self.start.elapsed().as_secs();
        let now = Instant::now();
        let counts = status.sources.iter().map(|source| source.counts.frames);
        past.push_back((now, counts.collect()));
        while past.len() > 1 && now - past[1].0 >= WINDOW {
            past.pop_front();
        }
        let before = &past[0].1;
        for (nth, source) in status.sources.iter_mut().enumerate() {
            let before = before.get(nth).copied().unwrap_or(0);
            source.per_minute = source.counts.frames.saturating_sub(before);
        }
        for disk in &mut status.disks {
            disk.available = space::available(&disk.path).unwrap_or(0);
        }
        status.clone()
    }

    /// Writes the status into a folder, whole or not at all for who reads it.
    ///
    /// # Errors
    /// What the system says.
    pub fn publish(&self, folder: &Path) -> io::Result<()> {
        let unfinished = folder.join(".status.json");
        fs::write(&unfinished, serde_json::to_vec(&self.status())?)?;
        fs::rename(unfinished, folder.join(FILE))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::sample_record;

    #[test]
    fn the_last_frames_with_ships_and_the_rate_of_a_minute_are_told() {
        let board = Board::default();
        board.update(|status| {
            status.sources = vec![SourceStatus::default(), SourceStatus::default()];
            status.sources[1].name = "deck".into();
        });
        board.status();
        for nth in 0..12 {
            board.looked(1, &sample_record(&format!("{nth}"), &["1 2"]));
            board.update(|status| status.sources[1].counts.frames += 1);
        }
        board.looked(1, &sample_record("none", &[]));
        let folder = tempfile::tempdir().expect("folder");
        board.publish(folder.path()).expect("writes");
        let text = fs::read(folder.path().join(FILE)).expect("is there");
        let status: Status = serde_json::from_slice(&text).expect("a status");
        let frames: Vec<_> = status.detections.iter().map(|d| d.frame.as_str()).collect();
        assert_eq!(frames, ["11", "10", "9", "8", "7", "6", "5", "4", "3", "2"]);
        assert_eq!(status.detections[0].source, "deck");
        let [folder, deck] = &status.sources[..] else {
            panic!("{status:?}")
        };
        assert_eq!((folder.per_minute, deck.per_minute), (0, 12));
        assert_eq!(deck.last.as_ref().expect("is told").0, "none");
    }
}
