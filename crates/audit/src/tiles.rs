//! The log as files that any host can serve and any tile client can read: C2SP `tlog-tiles`.
//!
//! `tile/<level>/<n>` holds 256 hashes of 256^level leaves each, `tile/entries/<n>` holds 256
//! records, each behind its length in two bytes. The last of a row is partial and says how many
//! there are: `tile/0/x001/234.p/17`.

use crate::tree::{Frontier, Hash, leaf_hash};

/// Hashes or records of a full tile.
pub const WIDTH: usize = 256;

/// The row of tiles that holds the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Hashes of complete subtrees with `256^level` leaves.
    Hashes(u8),
    /// Records.
    Entries,
}

/// The path of a tile below the log's address; `width` is 256, or what a partial tile has.
#[must_use]
pub fn path(row: Row, index: u64, width: usize) -> String {
    let mut path = match row {
        Row::Hashes(level) => format!("tile/{level}/"),
        Row::Entries => "tile/entries/".to_owned(),
    };
    let digits = index.to_string();
    let digits = format!("{digits:0>width$}", width = digits.len().div_ceil(3) * 3);
    let groups = digits.len() / 3;
    for group in 0..groups {
        let more = if group + 1 < groups { "x" } else { "" };
        let end = if group + 1 < groups { "/" } else { "" };
        path.push_str(more);
        path.push_str(digits.get(group * 3..group * 3 + 3).unwrap_or_default());
        path.push_str(end);
    }
    if width < WIDTH {
        path.push_str(&format!(".p/{width}"));
    }
    path
}

/// Takes a path apart that [`path`] has put together: row, index and width. `None` for any other
/// text, so that a tile has one address.
#[must_use]
pub fn parse(text: &str) -> Option<(Row, u64, usize)> {
    let (row, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let row = if row == "entries" { Row::Entries } else { Row::Hashes(row.parse().ok()?) };
    let (digits, width) = match rest.split_once(".p/") {
        Some((digits, width)) => (digits, width.parse().ok()?),
        None => (rest, WIDTH),
    };
    let index = digits.replace(['x', '/'], "").parse().ok()?;
    let fits = (1..=WIDTH).contains(&width) && path(row, index, width) == text;
    fits.then_some((row, index, width))
}

/// A record is longer than a tile can say: more than 65,535 bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} has {len} bytes, tiles hold at most 65535")]
pub struct TooLong {
    /// Its place, from 1.
    pub seq: u64,
    /// Its bytes.
    pub len: usize,
}

/// Makes all tiles of a log while its records pass by. Memory does not grow with the log.
#[derive(Debug, Default)]
pub struct Tiler {
    size: u64,
    entries: Vec<u8>,
    levels: Vec<Level>,
}

#[derive(Debug, Default)]
struct Level {
    /// Full tiles so far.
    full: u64,
    hashes: Vec<Hash>,
}

impl Tiler {
    /// Takes the next record, and reports each tile that it fills, with its path.
    ///
    /// # Errors
    /// When the record does not fit a tile, or whatever `tile` returns.
    pub fn record<E: From<TooLong>>(
        &mut self,
        record: &[u8],
        mut tile: impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let len = record.len();
        let prefix = u16::try_from(len).map_err(|_| TooLong { seq: self.size + 1, len })?;
        self.size += 1;
        self.entries.extend_from_slice(&prefix.to_be_bytes());
        self.entries.extend_from_slice(record);
        if self.size.is_multiple_of(WIDTH as u64) {
            let index = self.size / WIDTH as u64 - 1;
            tile(&path(Row::Entries, index, WIDTH), &std::mem::take(&mut self.entries))?;
        }
        let (mut hash, mut level) = (leaf_hash(record), 0u8);
        loop {
            if self.levels.len() <= usize::from(level) {
                self.levels.push(Level::default());
            }
            let Some(row) = self.levels.get_mut(usize::from(level)) else { return Ok(()) };
            row.hashes.push(hash);
            if row.hashes.len() < WIDTH {
                return Ok(());
            }
            tile(&path(Row::Hashes(level), row.full, WIDTH), row.hashes.as_flattened())?;
            row.full += 1;
            let mut subtree = Frontier::default();
            row.hashes.drain(..).for_each(|hash| subtree.push(hash, |_, _| ()));
            hash = subtree.root();
            level += 1;
        }
    }

    /// Reports the partial tiles at the end of each row.
    ///
    /// # Errors
    /// Whatever `tile` returns.
    pub fn finish<E>(self, mut tile: impl FnMut(&str, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let width = usize::try_from(self.size % WIDTH as u64).unwrap_or_default();
        if width > 0 {
            tile(&path(Row::Entries, self.size / WIDTH as u64, width), &self.entries)?;
        }
        for (level, row) in (0..).zip(&self.levels) {
            let width = row.hashes.len();
            if width > 0 {
                tile(&path(Row::Hashes(level), row.full, width), row.hashes.as_flattened())?;
            }
        }
        Ok(())
    }
}
