//! What the ledger forgets, so that it does not grow without end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::{Ledger, LedgerError, database};

/// Frames that one step looks at.
const STEP: i64 = 500;

/// Pages that one step gives back to the file system.
const PAGES: i64 = 256;

/// How much the ledger remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Detections that are older are forgotten; none for their age without it.
    pub age: Option<Duration>,
    /// Of what is more than so many bytes, the oldest is forgotten.
    pub bytes: u64,
}

/// How far forgetting has come; it begins anew with each start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Up to this frame, detections are forgotten.
    detections: i64,
    /// Up to this frame, it was looked whether files are gone.
    gone: i64,
}

impl Ledger {
    /// Forgets, from the oldest on, detections that are too old or too many, of frames up to `written`, whose
    /// lines are in all outputs. A frame without a file is forgotten with its detections. Of a frame with a file
    /// it stays known that it is done; where even that is too much, files are forgotten of which `is_gone` says
    /// that they will not come again, by source and name.
    ///
    /// One call does one step. True if there may be more to do.
    ///
    /// # Errors
    /// [`LedgerError::Database`]: nothing was forgotten.
    pub fn forget(
        &mut self,
        retention: &Retention,
        written: i64,
        is_gone: &dyn Fn(&str, &Path) -> bool,
    ) -> Result<bool, LedgerError> {
        let context = database(&self.path);
        let mut step = || {
            let is_large = self.bytes()? > retention.bytes;
            let transaction = self.db.transaction()?;
            let mut progress = self.progress;
            let mut more = forget_detections(
                &transaction,
                &mut progress,
                retention.age,
                is_large,
                written,
            )?;
            if is_large && !more {
                more = forget_files(&transaction, &mut progress, written, is_gone)?;
            }
            transaction.commit()?;
            self.progress = progress;
            if self.pages("page_count")? > retention.bytes && self.pages("freelist_count")? > 0 {
                let sql = format!("PRAGMA incremental_vacuum({PAGES})");
                self.db.execute_batch(&sql)?;
                more = true;
            }
            Ok(more)
        };
        step().map_err(context)
    }

    /// Whether it holds more than it may, so that files may have to be forgotten.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub fn exceeds(&self, retention: &Retention) -> Result<bool, LedgerError> {
        let bytes = self.bytes().map_err(database(&self.path))?;
        Ok(bytes > retention.bytes)
    }

    /// Files of a source that were done last, the last one first.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub fn last_files(&self, source: &str, most: u32) -> Result<Vec<PathBuf>, LedgerError> {
        let find = || {
            // From the last frame on: by the index of sources, all of a source's would be read and sorted.
            let mut query = self.db.prepare_cached(
                "SELECT name FROM frame WHERE +source = ?1 AND size IS NOT NULL ORDER BY id DESC LIMIT ?2",
            )?;
            let name = |row: &rusqlite::Row| row.get(0).map(path_of);
            let names = query.query_map(params![source, most], name)?;
            names.collect::<rusqlite::Result<_>>()
        };
        find().map_err(database(&self.path))
    }

    /// Bytes that hold anything; what was forgotten is used again.
    fn bytes(&self) -> rusqlite::Result<u64> {
        Ok(self.pages("page_count")? - self.pages("freelist_count")?)
    }

    /// Bytes of some of the file's pages.
    fn pages(&self, which: &str) -> rusqlite::Result<u64> {
        let number =
            |pragma: &str| (self.db).pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        Ok((number(which)? * number("page_size")?) as u64)
    }
}

/// True if there may be more of them.
fn forget_detections(
    transaction: &Transaction,
    progress: &mut Progress,
    age: Option<Duration>,
    is_large: bool,
    written: i64,
) -> rusqlite::Result<bool> {
    let mut query = transaction.prepare_cached(
        "SELECT id, size IS NULL, unixepoch() - committed FROM frame WHERE id > ?1 AND id <= ?2 \
         ORDER BY id LIMIT ?3",
    )?;
    let mut forget = transaction.prepare_cached("DELETE FROM record WHERE frame = ?1")?;
    let mut delete = transaction.prepare_cached("DELETE FROM frame WHERE id = ?1")?;
    let mut rows = query.query(params![progress.detections, written, STEP])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let (id, without_file, seconds): (i64, bool, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // An age below zero is that of a clock that was wrong.
        let is_old = age.is_some_and(|age| seconds > age.as_secs() as i64);
        if !is_old && !is_large && seconds >= 0 {
            break;
        }
        if is_old || is_large {
            forget.execute([id])?;
            if without_file {
                delete.execute([id])?;
            }
        }
        progress.detections = id;
        count += 1;
    }
    Ok(count == STEP)
}

/// True if there may be more of them.
fn forget_files(
    transaction: &Transaction,
    progress: &mut Progress,
    written: i64,
    is_gone: &dyn Fn(&str, &Path) -> bool,
) -> rusqlite::Result<bool> {
    let mut query = transaction.prepare_cached(
        "SELECT id, source, name FROM frame WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM frame WHERE id = ?1")?;
    let mut rows = query.query(params![progress.gone, written, STEP])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let (id, source, name): (i64, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if is_gone(&source, &path_of(name)) {
            delete.execute([id])?;
        }
        progress.gone = id;
        count += 1;
    }
    if count < STEP {
        progress.gone = 0;
    }
    Ok(count == STEP)
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Key};
    use crate::sink::sample_record;
    use crate::source::stamp::Stamp;

    const ALL: Retention = Retention {
        age: None,
        bytes: u64::MAX,
    };

    struct Kept {
        folder: tempfile::TempDir,
        ledger: Ledger,
    }

    impl Kept {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let ledger = Ledger::open(&folder.path().join("ledger")).expect("opens");
            Self { folder, ledger }
        }

        fn key(nth: usize) -> Key {
            Key {
                source: "test".into(),
                name: format!("{nth}").into(),
                digest: [1; 32],
            }
        }

        fn add(&mut self, frames: impl IntoIterator<Item = usize>, with_file: bool) {
            let stamp = with_file.then_some(Stamp {
                length: 1,
                modified: std::time::UNIX_EPOCH,
                inode: 7,
            });
            let entry = |nth| Entry {
                key: Self::key(nth),
                stamp,
                outcome: Ok(sample_record("a", &["1 2"; 20])),
            };
            let mut entries: Vec<_> = frames.into_iter().map(entry).collect();
            self.ledger.commit(&mut entries, None).expect("commits");
        }

        /// As if a frame had been committed that many seconds ago.
        fn age(&self, id: i64, seconds: i64) {
            let sql = "UPDATE frame SET committed = unixepoch() - ?2 WHERE id = ?1";
            self.ledger.db.execute(sql, [id, seconds]).expect("sets");
        }

        fn forget(&mut self, retention: Retention, written: i64, is_gone: bool) {
            while self
                .ledger
                .forget(&retention, written, &|_, _| is_gone)
                .expect("forgets")
            {}
        }

        /// Frames that have detections, and whether each is known.
        fn kept(&self, frames: usize) -> (usize, Vec<bool>) {
            let records = self.ledger.records_after(0).expect("reads").len();
            let knows = |nth| {
                self.ledger
                    .outcome(&Self::key(nth))
                    .expect("looks")
                    .is_some()
            };
            (records, (0..frames).map(knows).collect())
        }
    }

    #[test]
    fn old_detections_go_and_files_stay_known() {
        let mut kept = Kept::new();
        kept.add(0..2, true);
        kept.add(2..4, false);
        kept.add(4..5, true);
        for (id, seconds) in [(1, 100), (2, 101), (3, 1000), (4, 1000), (5, 1000)] {
            kept.age(id, seconds);
        }
        kept.forget(ALL, 5, true);
        assert_eq!(kept.kept(5), (5, vec![true; 5]));
        let old = Retention {
            age: Some(Duration::from_secs(50)),
            ..ALL
        };
        // The line of the last one is in no output yet.
        kept.forget(old, 3, true);
        assert_eq!(kept.kept(5), (2, vec![true, true, false, true, true]));
        kept.add(5..6, true);
        kept.forget(old, 6, true);
        assert_eq!(
            kept.kept(6),
            (1, vec![true, true, false, false, true, true])
        );
        // Numbers go on, whatever was forgotten.
        kept.add(6..7, false);
        kept.age(7, 1000);
        kept.ledger
            .commit(
                &mut [],
                [(
                    Path::new("/out"),
                    crate::ledger::Position {
                        inode: 1,
                        bytes: 1,
                        frame: 7,
                    },
                )],
            )
            .expect("commits");
        kept.forget(old, 7, true);
        let path = kept.folder.path().join("ledger");
        drop(kept.ledger);
        assert_eq!(Ledger::open(&path).expect("opens").last(), 7);
    }

    #[test]
    fn a_clock_that_was_ahead_keeps_nothing_for_ever() {
        let mut kept = Kept::new();
        kept.add(0..3, true);
        kept.age(1, -100_000);
        kept.age(2, 100);
        kept.forget(
            Retention {
                age: Some(Duration::from_secs(50)),
                ..ALL
            },
            3,
            true,
        );
        assert_eq!(kept.kept(3).0, 2);
    }

    #[test]
    fn a_ledger_stays_as_small_as_it_may_be() {
        let mut kept = Kept::new();
        kept.add(0..2000, true);
        let path = kept.folder.path().join("ledger");
        let full = kept.ledger.bytes().expect("looks");
        let half = Retention {
            bytes: full / 2,
            ..ALL
        };
        kept.forget(half, 2000, false);
        let (records, known) = kept.kept(2000);
        assert!((1..1500).contains(&records), "{records}");
        assert!(known.iter().all(|&known| known));
        // The newest stay.
        let last = kept.ledger.records_after(0).expect("reads")[records - 1].id;
        assert_eq!(last, Some(2000));
        kept.ledger
            .db
            .pragma_update(None, "wal_checkpoint", "TRUNCATE")
            .expect("writes");
        let size = path.metadata().expect("is there").len();
        assert!(size <= half.bytes, "{size} of {}", half.bytes);

        // Not even the names fit, but the files lie there.
        let none = Retention { bytes: 1, ..ALL };
        kept.forget(none, 2000, false);
        assert_eq!(kept.kept(2000), (0, vec![true; 2000]));
        let steps = |kept: &mut Kept| {
            for _ in 0..10 {
                kept.ledger
                    .forget(&none, 1999, &|source, name| {
                        source == "test" && name != Path::new("7")
                    })
                    .expect("forgets");
            }
        };
        steps(&mut kept);
        let known = kept.kept(2000).1;
        assert_eq!(
            (0..2000).filter(|&nth| known[nth]).collect::<Vec<_>>(),
            [7, 1999]
        );
    }
}
