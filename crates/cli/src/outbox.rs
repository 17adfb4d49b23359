//! Which notices have arrived, so that a restart does not repeat them. What is still to be told
//! is not here: a notice is owed as long as its hold is pending, and that the journal knows.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::output::Failure;

/// One line for each notice that arrived: until when its hold can be pending (RFC 3339), the
/// notifier, and the notice's id.
///
/// Written after the fact and not synced. A line that is lost or torn costs one more request with
/// the same `webhook-id`; none of them can keep a notice from being sent.
#[derive(Debug)]
pub(crate) struct Outbox(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    arrived: BTreeSet<(String, String)>,
    file: File,
}

impl Outbox {
    /// Opens the file, and leaves out of it what is over.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Self::open_at(path, Utc::now())
    }

    fn open_at(path: &Path, now: DateTime<Utc>) -> Result<Self, Failure> {
        let failure = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failure(error)),
        };
        let (mut kept, mut arrived) = (String::new(), BTreeSet::new());
        // What has no end is torn, and may look like another notice.
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        for line in whole {
            let mut words = line.split(' ');
            let (Some(until), Some(notifier), Some(notice), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            if DateTime::parse_from_rfc3339(until).is_ok_and(|until| now < until) {
                arrived.insert((notifier.to_owned(), notice.to_owned()));
                kept.push_str(&format!("{line}\n"));
            }
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(failure)?;
        file.write_all(kept.as_bytes()).map_err(failure)?;
        Ok(Self(Mutex::new(Kept { arrived, file })))
    }

    pub(crate) fn arrived(&self, notifier: &str, notice: &str) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.arrived.contains(&(notifier.to_owned(), notice.to_owned()))
    }

    pub(crate) fn note(&self, notifier: &str, notice: &str, until: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(kept.file, "{until} {notifier} {notice}") {
            tracing::warn!(%error, notifier, notice, "a restart will send this notice again");
        }
        // Within this process nothing that arrived is sent again: the queue makes each notice
        // once. Only the file is read.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_known_after_a_restart_until_its_hold_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notices");
        let at = |time: &str| Outbox::open_at(&path, time.parse().unwrap()).unwrap();
        at("2026-01-01T00:00:00Z").note("chat", "1_held", "2026-01-01T00:05:00.5Z");
        let outbox = at("2026-01-01T00:05:00Z");
        assert!(outbox.arrived("chat", "1_held"));
        assert!(!outbox.arrived("pager", "1_held"));
        assert!(!outbox.arrived("chat", "2_held"));
        outbox.note("chat", "2_held", "2026-01-02T00:00:00Z");
        let outbox = at("2026-01-01T00:06:00Z");
        assert!(!outbox.arrived("chat", "1_held"));
        assert!(outbox.arrived("chat", "2_held"));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_torn_line_costs_no_more_than_its_own_notice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notices");
        let line = "2026-01-02T00:00:00Z chat 1_held\n";
        for end in 0..line.len() {
            let text = format!("{line}{}", &line.replace('1', "9")[..end]);
            std::fs::write(&path, text).unwrap();
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            let outbox = Outbox::open_at(&path, now).unwrap();
            assert!(outbox.arrived("chat", "1_held"), "cut at {end}");
            assert!(!outbox.arrived("chat", "9_held"), "cut at {end}");
        }
    }
}
