//! Which files are known, as a source asks.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{BUSY, LedgerError, database, path_bytes};
use crate::source::stamp::Stamp;

/// SHA-256 of a file's content.
pub type Digest = [u8; 32];

/// Which frame a file is: the same name with other content is another, and so is the same content by
/// another name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The source's name.
    pub source: String,
    /// Path below the source's folder.
    pub name: PathBuf,
    /// Of the content.
    pub digest: Digest,
}

impl Key {
    pub(super) fn name_bytes(&self) -> &[u8] {
        path_bytes(&self.name)
    }
}

/// What came of a frame that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why it could not be looked at, if it could not.
    pub problem: Option<String>,
}

/// The frames of one source that are done. It sees each as soon as it is committed.
#[derive(Debug)]
pub struct Roster {
    path: PathBuf,
    db: Connection,
    source: String,
    blind: bool,
}

impl Roster {
    pub(super) fn open(path: &Path, source: &str) -> Result<Self, LedgerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).and_then(|db| {
            db.busy_timeout(BUSY)?;
            Ok(db)
        });
        Ok(Self {
            path: path.to_owned(),
            db: db.map_err(database(path))?,
            source: source.to_owned(),
            blind: false,
        })
    }

    /// The same source, of which no file is known: all are done once more.
    pub fn blind(self) -> Self {
        Self {
            blind: true,
            ..self
        }
    }

    /// The key of a file's content by this source.
    pub fn key(&self, name: &Path, digest: Digest) -> Key {
        Key {
            source: self.source.clone(),
            name: name.to_owned(),
            digest,
        }
    }

    /// The digest of the file by this name that was last seen like this: then its content need not be read.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub fn digest(&self, name: &Path, stamp: &Stamp) -> Result<Option<Digest>, LedgerError> {
        if self.blind {
            return Ok(None);
        }
        let [size, modified, inode] = stamp.numbers();
        let find = || {
            let mut query = self.db.prepare_cached(
                "SELECT digest FROM frame WHERE source = ?1 AND name = ?2 AND size = ?3 AND modified = ?4 \
                 AND inode = ?5",
            )?;
            let key = params![self.source, path_bytes(name), size, modified, inode];
            query.query_row(key, |row| row.get(0)).optional()
        };
        find().map_err(database(&self.path))
    }

    /// What came of a frame that is done; none of one that is not.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub fn outcome(&self, key: &Key) -> Result<Option<Outcome>, LedgerError> {
        if self.blind {
            return Ok(None);
        }
        outcome(&self.db, key).map_err(database(&self.path))
    }
}

/// What came of a frame that is done; none of one that is not.
pub(super) fn outcome(db: &Connection, key: &Key) -> rusqlite::Result<Option<Outcome>> {
    let mut query = db.prepare_cached(
        "SELECT problem FROM frame WHERE source = ?1 AND name = ?2 AND digest = ?3",
    )?;
    let outcome = |row: &rusqlite::Row| row.get(0).map(|problem| Outcome { problem });
    let key = params![key.source, key.name_bytes(), key.digest];
    query.query_row(key, outcome).optional()
}
