//! Live events: a view of the journal, so that what a reader missed is still there.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use countersign_core::journal::{JournalRecord, TOOL_CALL_KEY};
use countersign_core::story::tell;
use countersign_escalation::time::rfc3339;
use futures_util::stream::{self, Stream, StreamExt as _};
use serde_json::json;
use tokio::sync::watch;

use crate::auth::{Caller, Role};
use crate::gateway::Gateway;
use crate::problem::Problem;

/// Records sent before looking at anything else.
const PAGE: usize = 256;

struct Cursor {
    gateway: Arc<Gateway>,
    head: watch::Receiver<u64>,
    holds: watch::Receiver<u64>,
    sent: u64,
}

/// `event: record` for every journal record, its id the sequence number, and
/// `event: approvals` whenever a hold appears or ends. Starts after `Last-Event-ID`, or with
/// what happens from now on.
pub(crate) async fn stream(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let readers = [Role::Approver, Role::Auditor, Role::Admin];
    crate::api::require(&gateway, &caller, &readers, "following events").await?;
    let head = gateway.kernel.journal().head();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let sent = last.unwrap_or(*head.borrow());
    let mut holds = gateway.kernel.queue().changed();
    // The first look always tells how many are waiting.
    holds.mark_changed();
    let cursor = Cursor { gateway, head, holds, sent };
    let events = stream::unfold(cursor, |cursor| async move { cursor.next().await })
        .flat_map(stream::iter)
        .map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

impl Cursor {
    async fn next(mut self) -> Option<(Vec<Event>, Self)> {
        let stopping = self.gateway.stopping.clone();
        loop {
            if self.holds.has_changed().ok()? {
                self.holds.mark_unchanged();
                let pending = self.gateway.kernel.queue().pending().len();
                let data = json!({ "pending": pending }).to_string();
                return Some((vec![Event::default().event("approvals").data(data)], self));
            }
            if *self.head.borrow_and_update() > self.sent {
                let events = self.records().await;
                if !events.is_empty() {
                    return Some((events, self));
                }
            }
            tokio::select! {
                changed = self.holds.changed() => { changed.ok()?; self.holds.mark_changed(); }
                changed = self.head.changed() => { changed.ok()?; self.head.mark_changed(); }
                () = stopping.cancelled() => return None,
            }
        }
    }

    async fn records(&mut self) -> Vec<Event> {
        let entries = match self.gateway.kernel.journal().read(self.sent + 1, PAGE).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "events cannot be read");
                return Vec::new();
            }
        };
        let mut events = Vec::with_capacity(entries.len());
        for entry in entries {
            self.sent = entry.seq;
            let Ok(record) = serde_json::from_slice::<JournalRecord>(&entry.bytes) else {
                continue;
            };
            let told = tell(&record);
            let summary = match told.detail.is_empty() {
                true => told.title.to_owned(),
                false => format!("{} — {}", told.title, told.detail),
            };
            let data = json!({
                "seq": entry.seq,
                "record_id": record.record_id,
                "at": rfc3339(record.timestamp_millis),
                "event_kind": record.event_index.event_kind,
                "call_id": record.correlation(TOOL_CALL_KEY),
                "run_id": record.run_id,
                "summary": summary,
            });
            let id = entry.seq.to_string();
            events.push(Event::default().event("record").id(id).data(data.to_string()));
        }
        if *self.head.borrow() > self.sent {
            self.head.mark_changed();
        }
        events
    }
}
