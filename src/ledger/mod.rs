//! Which frames are done and what was found on them, on disk.
//!
//! A frame counts as done once its transaction is committed: only then its line is written, and its file moved
//! or deleted. After a crash all of these follow the ledger.

mod retention;
mod roster;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use retention::Progress;
pub use retention::Retention;
pub use roster::{Digest, Key, Outcome, Roster};

use crate::lock;
use crate::record::FrameRecord;
use crate::source::stamp::Stamp;

/// The layout of the tables below, as `user_version` has it.
const SCHEMA: i64 = 2;

const TABLES: &str = "
    BEGIN;
    CREATE TABLE frame (
        id INTEGER PRIMARY KEY,   -- in the order in which frames were done
        source TEXT NOT NULL,
        name BLOB NOT NULL,       -- path below the folder, as the system has it
        digest BLOB NOT NULL,     -- SHA-256 of the file
        size INTEGER,             -- of the file, as the next two as it was last seen; none without a file
        modified INTEGER,         -- nanoseconds since 1970
        inode INTEGER,
        committed INTEGER NOT NULL, -- seconds since 1970
        problem TEXT,             -- why it is broken
        UNIQUE (source, name, digest)
    );
    CREATE TABLE record (
        frame INTEGER PRIMARY KEY, -- none of a broken file, nor of one whose record was too old to keep
        json TEXT NOT NULL
    );
    CREATE TABLE output (
        path BLOB PRIMARY KEY,
        inode INTEGER NOT NULL,
        bytes INTEGER NOT NULL,   -- written through to the disk
        frame INTEGER NOT NULL    -- the last one whose line is among them
    );
    PRAGMA user_version = 2;
    COMMIT;
";

/// How long to wait for another process that reads the ledger.
const BUSY: Duration = Duration::from_secs(10);

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite refuses.
    #[error("{path}: {source}", path = .path.display())]
    Database {
        /// The ledger.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file beside it that keeps others out cannot be made.
    #[error("{path}: cannot be made: {source}", path = .path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process keeps it.
    #[error("{path}: another shipwatch keeps this ledger; stop that, or name another file", path = .0.display())]
    Busy(PathBuf),
    /// It is damaged, or no ledger.
    #[error("{path}: {source}; it is damaged or no ledger: move it away, then files that still lie there are processed again", path = .path.display())]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Another shipwatch made it.
    #[error("{path}: has version {found} of the ledger's tables, but this shipwatch knows {SCHEMA}; use the shipwatch that made it, or name another file", path = .path.display())]
    Version {
        /// The ledger.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
}

impl LedgerError {
    /// Whether trying again may help: for want of space, or while another process or the disk is in the way.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Database { source, .. } if matches!(
            source.sqlite_error_code(),
            // SQLite calls some ways of having no space a failure of the system's.
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::SystemIoFailure
            )
        ))
    }
}

/// A frame that is done, on its way into the ledger.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which frame it is.
    pub key: Key,
    /// How its file was seen, if it has one.
    pub stamp: Option<Stamp>,
    /// What was found on it, or why nothing could be.
    pub outcome: Result<FrameRecord, String>,
}

/// How far an output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Tells the file from another of the same name.
    pub inode: u64,
    /// Bytes that are on the disk.
    pub bytes: u64,
    /// The last frame whose line is among them.
    pub frame: i64,
}

/// The ledger of one daemon. It is locked against others as long as it is open.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    db: Connection,
    /// The frame that was done last; 0 before the first.
    last: i64,
    progress: Progress,
    _lock: File,
}

impl Ledger {
    /// Opens a ledger, and makes it where there is none.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] if another process has it open to write, or any other.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        // By one name, however it is spelt, or two daemons would have a lock each.
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize();
        let path = match (folder, path.file_name()) {
            (Ok(folder), Some(name)) => &folder.join(name),
            _ => path,
        };
        let lock = lock_beside(path)?;
        let context = database(path);
        let db = Connection::open(path).map_err(&context)?;
        let set_up = || {
            db.busy_timeout(BUSY)?;
            // So that what is forgotten can be given back; it counts before the file is begun.
            db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            // A commit is on the disk before it is said to be done.
            db.pragma_update(None, "synchronous", "FULL")?;
            db.pragma_query_value(None, "user_version", |row| row.get(0))
        };
        match set_up().map_err(&context)? {
            0 => db.execute_batch(TABLES).map_err(&context)?,
            SCHEMA => {}
            found => {
                return Err(LedgerError::Version {
                    path: path.to_owned(),
                    found,
                });
            }
        }
        // Of frames that were forgotten, the outputs tell.
        let last = db.query_row(
            "SELECT max(coalesce((SELECT max(id) FROM frame), 0), coalesce((SELECT max(frame) FROM output), 0))",
            [],
            |row| row.get(0),
        );
        Ok(Self {
            last: last.map_err(&context)?,
            progress: Progress::default(),
            path: path.to_owned(),
            db,
            _lock: lock,
        })
    }

    /// What a source asks whether its files are known.
    ///
    /// # Errors
    /// If the ledger cannot be opened once more.
    pub fn roster(&self, source: &str) -> Result<Roster, LedgerError> {
        Roster::open(&self.path, source)
    }

    /// What came of a frame that is done; none of one that is not.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub fn outcome(&self, key: &Key) -> Result<Option<Outcome>, LedgerError> {
        roster::outcome(&self.db, key).map_err(database(&self.path))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The frame that was done last; 0 before the first.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Writes entries through to the disk, all or none, each with an id of its own, one after another; besides,
    /// how far outputs are, all that there are: others are forgotten. A frame that is known already gets a new id,
    /// and its old record is gone.
    ///
    /// # Errors
    /// [`LedgerError::Database`]: nothing was written, and the same may be tried again.
    pub fn commit<'a>(
        &mut self,
        entries: &mut [Entry],
        positions: impl IntoIterator<Item = (&'a Path, Position)>,
    ) -> Result<(), LedgerError> {
        let context = database(&self.path);
        let write = || {
            let transaction = self.db.transaction()?;
            let mut forget = transaction.prepare_cached(
                "DELETE FROM record WHERE frame = \
                 (SELECT id FROM frame WHERE source = ?1 AND name = ?2 AND digest = ?3)",
            )?;
            let mut add = transaction.prepare_cached(
                "INSERT OR REPLACE INTO frame VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, unixepoch(), ?8)",
            )?;
            let mut record = transaction.prepare_cached("INSERT INTO record VALUES (?1, ?2)")?;
            let mut id = self.last;
            for Entry {
                key,
                stamp,
                outcome,
            } in entries
            {
                id += 1;
                let identity = params![key.source, key.name_bytes(), key.digest];
                forget.execute(identity)?;
                let problem = match outcome {
                    Ok(found) => {
                        found.id = Some(id);
                        let json = serde_json::to_string(found).expect("a record is JSON");
                        record.execute(params![id, json])?;
                        None
                    }
                    Err(problem) => Some(&*problem),
                };
                let stamp = stamp.map(|stamp| stamp.numbers());
                let [size, modified, inode] =
                    [0, 1, 2].map(|nth| stamp.map(|numbers| numbers[nth]));
                add.execute(params![
                    id,
                    key.source,
                    key.name_bytes(),
                    key.digest,
                    size,
                    modified,
                    inode,
                    problem
                ])?;
            }
            drop((forget, add, record));
            transaction.execute("DELETE FROM output", [])?;
            let mut note =
                transaction.prepare_cached("INSERT INTO output VALUES (?1, ?2, ?3, ?4)")?;
            for (path, position) in positions {
                let Position {
                    inode,
                    bytes,
                    frame,
                } = position;
                note.execute(params![path_bytes(path), inode as i64, bytes as i64, frame])?;
            }
            drop(note);
            transaction.commit()?;
            Ok(id)
        };
        self.last = write().map_err(context)?;
        Ok(())
    }

    /// The records of frames that were done after `frame`, in that order.
    ///
    /// # Errors
    /// [`LedgerError::Database`], also if a record is none.
    pub fn records_after(&self, frame: i64) -> Result<Vec<FrameRecord>, LedgerError> {
        let read = || {
            let mut query = self
                .db
                .prepare_cached("SELECT json FROM record WHERE frame > ?1 ORDER BY frame")?;
            let rows = query.query_map([frame], |row| {
                let json: String = row.get(0)?;
                serde_json::from_str(&json).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(
                        0,
                        rusqlite::types::Type::Text,
                        Box::new(error),
                    )
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(database(&self.path))
    }

    /// The last frame whose line is known to be in any output; none before one is known of.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub fn last_written(&self) -> Result<Option<i64>, LedgerError> {
        let find = || (self.db).query_row("SELECT max(frame) FROM output", [], |row| row.get(0));
        find().map_err(database(&self.path))
    }

    /// How far an output is written, if the ledger knows it.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub fn position(&self, output: &Path) -> Result<Option<Position>, LedgerError> {
        let find = || {
            let mut query = (self.db)
                .prepare_cached("SELECT inode, bytes, frame FROM output WHERE path = ?1")?;
            let position = |row: &rusqlite::Row| {
                let number = |nth| row.get::<_, i64>(nth);
                Ok(Position {
                    inode: number(0)? as u64,
                    bytes: number(1)? as u64,
                    frame: number(2)?,
                })
            };
            query.query_row([path_bytes(output)], position).optional()
        };
        find().map_err(database(&self.path))
    }
}

/// Says of a fault of SQLite where it happened.
fn database(path: &Path) -> impl Fn(rusqlite::Error) -> LedgerError + use<> {
    let path = path.to_owned();
    move |source| {
        let path = path.clone();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                LedgerError::Damaged { path, source }
            }
            _ => LedgerError::Database { path, source },
        }
    }
}

/// Keeps other processes out. The lock lies in a file of its own, for SQLite's own locks on the ledger go when
/// any handle of the process is closed.
fn lock_beside(path: &Path) -> Result<File, LedgerError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&beside)
        .map_err(|source| LedgerError::Lock {
            path: beside,
            source,
        })?;
    match lock::lock(&file) {
        Err(lock::Taken) => Err(LedgerError::Busy(path.to_owned())),
        Ok(()) => Ok(file),
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::sink::sample_record;

    fn stamp(length: u64) -> Stamp {
        Stamp {
            length,
            modified: UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789),
            inode: u64::MAX,
        }
    }

    fn entry(name: &str, digest: u8) -> Entry {
        Entry {
            key: Key {
                source: "test".into(),
                name: name.into(),
                digest: [digest; 32],
            },
            stamp: Some(stamp(u64::from(digest))),
            outcome: Ok(sample_record(name, &["3 4"])),
        }
    }

    fn add(ledger: &mut Ledger, entries: &[Entry]) -> Vec<Entry> {
        let mut entries = entries.to_vec();
        ledger.commit(&mut entries, None).expect("commits");
        entries
    }

    fn ids(entries: &[Entry]) -> Vec<Option<i64>> {
        let id = |entry: &Entry| entry.outcome.as_ref().ok().and_then(|record| record.id);
        entries.iter().map(id).collect()
    }

    #[test]
    fn frames_are_known_by_name_and_content_once_they_are_committed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ledger");
        let mut ledger = Ledger::open(&path).expect("opens");
        let roster = ledger.roster("test").expect("opens");
        let [a, broken] = [entry("a", 1), entry("b", 2)];
        let outcome = |key: &Key| roster.outcome(key).expect("looks");
        assert_eq!(outcome(&a.key), None);
        let broken = Entry {
            outcome: Err("is broken".into()),
            ..broken
        };
        let added = add(&mut ledger, &[a.clone(), broken.clone()]);
        assert_eq!(ids(&added), [Some(1), None]);
        let knows = |key: &Key| ledger.outcome(key).expect("looks").is_some();
        assert!(knows(&a.key) && !knows(&entry("a", 3).key));
        let problem = |problem: Option<&str>| {
            let problem = problem.map(str::to_owned);
            Some(Outcome { problem })
        };
        assert_eq!(outcome(&a.key), problem(None));
        assert_eq!(outcome(&broken.key), problem(Some("is broken")));
        assert_eq!(outcome(&entry("a", 3).key), None);
        assert_eq!(outcome(&entry("c", 1).key), None);
        let other = ledger.roster("other").expect("opens");
        let elsewhere = other.key(&a.key.name, a.key.digest);
        assert_eq!(other.outcome(&elsewhere).expect("looks"), None);

        // By its look alone.
        let digest = |stamp| roster.digest(&a.key.name, &stamp).expect("looks");
        assert_eq!(digest(stamp(1)), Some([1; 32]));
        let later = SystemTime::now();
        let changed = Stamp {
            modified: later,
            ..stamp(1)
        };
        let replaced = Stamp {
            inode: 7,
            ..stamp(1)
        };
        for other in [stamp(2), changed, replaced] {
            assert_eq!(digest(other), None, "{other:?}");
        }
        let blind = roster.blind();
        assert_eq!(blind.digest(&a.key.name, &stamp(1)).expect("looks"), None);
        assert_eq!(blind.outcome(&a.key).expect("looks"), None);

        // Numbers go on, and a frame that is done once more gets a new one.
        drop(ledger);
        let mut ledger = Ledger::open(&path).expect("opens");
        assert_eq!(ledger.last(), 2);
        assert_eq!(
            ids(&add(&mut ledger, &[entry("c", 1), a])),
            [Some(3), Some(4)]
        );
        let frames = |after| -> Vec<String> {
            let records = ledger.records_after(after).expect("reads");
            records.into_iter().map(|record| record.frame).collect()
        };
        assert_eq!(frames(0), ["c", "a"]);
        assert_eq!(frames(3), ["a"]);
    }

    #[test]
    fn positions_are_kept_with_the_frames() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ledger");
        let mut ledger = Ledger::open(&path).expect("opens");
        let (one, two) = (Path::new("/one"), Path::new("/two"));
        let position = |bytes| Position {
            inode: u64::MAX,
            bytes,
            frame: 7,
        };
        let mut none = [];
        let three = Path::new("/three");
        ledger
            .commit(&mut none, [(one, position(1)), (three, position(2))])
            .expect("commits");
        ledger
            .commit(&mut none, [(one, position(3)), (two, position(2))])
            .expect("commits");
        drop(ledger);
        let ledger = Ledger::open(&path).expect("opens");
        let found = ["/one", "/two", "/three"].map(|path| ledger.position(Path::new(path)));
        let found = found.map(|position| position.expect("reads"));
        assert_eq!(found, [Some(position(3)), Some(position(2)), None]);
        assert_eq!(ledger.last_written().expect("reads"), Some(7));
    }

    #[test]
    fn nothing_is_written_where_something_fails() {
        let folder = tempfile::tempdir().expect("folder");
        let mut ledger = Ledger::open(&folder.path().join("ledger")).expect("opens");
        add(&mut ledger, &[entry("a", 1)]);
        ledger
            .db
            .pragma_update(None, "max_page_count", 1)
            .expect("sets");
        let long = "x".repeat(1 << 20);
        let mut entries = [
            entry("b", 2),
            Entry {
                outcome: Err(long),
                ..entry("c", 3)
            },
        ];
        let error = ledger.commit(&mut entries, None).expect_err("is full");
        assert!(error.may_pass(), "{error}");
        assert_eq!(ledger.last(), 1);
        ledger
            .db
            .pragma_update(None, "max_page_count", 1 << 20)
            .expect("sets");
        ledger
            .commit(&mut entries, None)
            .expect("there is space again");
        assert_eq!(ids(&entries), [Some(2), None]);
    }

    #[test]
    fn one_daemon_keeps_it_and_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ledger");
        let ledger = Ledger::open(&path).expect("opens");
        assert!(matches!(Ledger::open(&path), Err(LedgerError::Busy(_))));
        ledger
            .db
            .pragma_update(None, "user_version", 9)
            .expect("sets");
        drop(ledger);
        let error = Ledger::open(&path).expect_err("is of a later version");
        assert!(error.to_string().contains("version 9"), "{error}");
        std::fs::write(
            &path,
            "no database, but long enough for one to be looked for",
        )
        .expect("writes");
        let error = Ledger::open(&path).expect_err("is no ledger");
        assert!(error.to_string().contains("move it away"), "{error}");
    }
}
