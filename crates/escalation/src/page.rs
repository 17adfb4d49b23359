//! Listing, a page at a time: the parts of the queue, each in order, woven into one.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use countersign_core::id::ApprovalRequestId;

use crate::held::Held;
use crate::parts::Parts;
use crate::shard::{Place, Shard};
use crate::store::Inner;

/// A place between two holds in the order of the list. It is good whatever happens to the hold
/// it was taken from, also after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    created_at_millis: u64,
    id: ApprovalRequestId,
}

/// The text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is the one a page came with")]
pub struct CursorError;

impl Cursor {
    /// The place just after a hold.
    #[must_use]
    pub fn after(held: &Held) -> Self {
        Self { created_at_millis: held.created_at_millis(), id: held.id().clone() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.created_at_millis, self.id)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (created, id) = text.split_once('.').ok_or(CursorError)?;
        let created_at_millis = created.parse().map_err(|_| CursorError)?;
        let id = ApprovalRequestId::new(id).map_err(|_| CursorError)?;
        Ok(Self { created_at_millis, id })
    }
}

/// Some pending holds, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The oldest first, then by id.
    pub holds: Vec<Held>,
    /// Where the next page starts; `None` when there was nothing more.
    pub next: Option<Cursor>,
}

/// What was read ahead of one part.
struct Ahead {
    part: u32,
    read: VecDeque<(Place, Held)>,
    /// Whether there may be more.
    more: bool,
}

/// No lock is held for longer than it takes to read one part's share.
pub(crate) fn page(inner: &Inner, after: Option<&Cursor>, limit: usize) -> Page {
    let start = after.map(|cursor| Place::new(cursor.created_at_millis, &cursor.id));
    let parts = Parts::<Shard>::all();
    // One more than asked for tells whether there is a next page.
    let wanted = limit.saturating_add(1);
    let share = wanted / parts.len();
    let share = wanted.min(share.saturating_add(share / 4).saturating_add(4));
    let mut all: Vec<Ahead> = parts
        .map(|part| {
            let read = VecDeque::from(inner.page(part, start.as_ref(), share));
            Ahead { part, more: read.len() == share, read }
        })
        .collect();
    let mut holds = Vec::with_capacity(wanted.min(1024));
    while holds.len() < wanted {
        let first = all
            .iter_mut()
            .filter(|ahead| !ahead.read.is_empty())
            .min_by(|a, b| a.read.front().map(|r| &r.0).cmp(&b.read.front().map(|r| &r.0)));
        let Some(ahead) = first else { break };
        let Some((place, held)) = ahead.read.pop_front() else { break };
        if ahead.read.is_empty() && ahead.more {
            ahead.read = inner.page(ahead.part, Some(&place), share).into();
            ahead.more = ahead.read.len() == share;
        }
        holds.push(held);
    }
    let more = holds.len() > limit;
    holds.truncate(limit);
    let next = holds.last().filter(|_| more).map(Cursor::after);
    Page { holds, next }
}
