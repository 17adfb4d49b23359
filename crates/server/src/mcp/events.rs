//! What one session's streams have said, so that a client whose connection broke gets the rest
//! when it is back: above all the result of a call that was held meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use rmcp::model::ServerJsonRpcMessage;
use rmcp::transport::streamable_http_server::session::{
    EventStore, EventStoreError, EventStream, ServerSseMessage,
};
use tokio::sync::{mpsc, watch};

/// Streams of one session whose events are kept.
const LANES_MAX: usize = 2048;
/// Events of one stream that are kept. A result is its stream's last event, so only old
/// progress is dropped.
const LANE_EVENTS_MAX: usize = 64;
/// Bytes of all results of one session that are kept.
const BYTES_MAX: usize = 4 << 20;

/// One stream: the answer to one POST, or what the session says unasked.
struct Lane {
    events: VecDeque<(u64, ServerSseMessage)>,
    bytes: usize,
    /// Whether the last event was a response; nothing follows it.
    complete: bool,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    lanes: HashMap<String, Lane>,
    /// Oldest first.
    order: VecDeque<String>,
    bytes: usize,
    next: u64,
}

/// The events of one session. Dropped with it.
#[derive(Default)]
pub(crate) struct SessionEvents(Arc<Mutex<Inner>>);

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_last(event: &ServerSseMessage) -> bool {
    let message = event.message.as_deref();
    matches!(message, Some(ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_)))
}

impl Inner {
    /// Makes room: finished streams go first, then those that have been silent longest.
    fn evict(&mut self, keep: &str) {
        while self.lanes.len() > LANES_MAX || self.bytes > BYTES_MAX {
            let complete = |id: &String| self.lanes.get(id).is_none_or(|lane| lane.complete);
            let place = self
                .order
                .iter()
                .position(|id| id != keep && complete(id))
                .or_else(|| self.order.iter().position(|id| id != keep));
            let Some(id) = place.and_then(|place| self.order.remove(place)) else { return };
            if let Some(lane) = self.lanes.remove(&id) {
                self.bytes = self.bytes.saturating_sub(lane.bytes);
            }
        }
    }
}

#[async_trait]
impl EventStore for SessionEvents {
    async fn store_event(
        &self,
        stream_id: &str,
        event: &ServerSseMessage,
    ) -> Result<String, EventStoreError> {
        // Only results are large; notifications are bounded by their number.
        let bytes = match (&event.message, is_last(event)) {
            (Some(message), true) => serde_json::to_vec(&**message)?.len(),
            _ => 0,
        };
        let mut inner = lock(&self.0);
        // Numbers are the session's, not the stream's: a stream that was dropped and speaks
        // again does not repeat one.
        let number = inner.next;
        inner.next += 1;
        let id = format!("{stream_id}/{number}");
        if !inner.lanes.contains_key(stream_id) {
            inner.order.push_back(stream_id.to_owned());
        }
        inner.bytes = inner.bytes.saturating_add(bytes);
        let lane = inner.lanes.entry(stream_id.to_owned()).or_insert_with(|| Lane {
            events: VecDeque::new(),
            bytes: 0,
            complete: false,
            changed: watch::Sender::new(()),
        });
        let mut event = event.clone();
        event.event_id = Some(id.clone());
        lane.complete = is_last(&event);
        lane.bytes = lane.bytes.saturating_add(bytes);
        lane.events.push_back((number, event));
        if lane.events.len() > LANE_EVENTS_MAX {
            lane.events.pop_front();
        }
        lane.changed.send_replace(());
        inner.evict(stream_id);
        Ok(id)
    }

    async fn replay_events_after(&self, last: &str) -> Result<EventStream, EventStoreError> {
        let (stream_id, number) = last.rsplit_once('/').ok_or("not an event id")?;
        let after = number.parse::<u64>()?;
        let changed = {
            let inner = lock(&self.0);
            inner.lanes.get(stream_id).ok_or("no such stream")?.changed.subscribe()
        };
        let (sender, mut receiver) = mpsc::channel(16);
        let events = Arc::downgrade(&self.0);
        tokio::spawn(replay(events, stream_id.to_owned(), after, changed, sender));
        Ok(Box::pin(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))))
    }
}

/// Sends what a stream has said after an event, and goes on until it is complete, dropped, or
/// nobody listens.
async fn replay(
    events: Weak<Mutex<Inner>>,
    stream_id: String,
    mut after: u64,
    mut changed: watch::Receiver<()>,
    sender: mpsc::Sender<ServerSseMessage>,
) {
    loop {
        changed.borrow_and_update();
        let (new, complete) = {
            let Some(inner) = events.upgrade() else { return };
            let inner = lock(&inner);
            let Some(lane) = inner.lanes.get(&stream_id) else { return };
            let new = lane.events.iter().filter(|(number, _)| *number > after);
            (new.cloned().collect::<Vec<_>>(), lane.complete)
        };
        for (number, event) in new {
            after = number;
            if sender.send(event).await.is_err() {
                return;
            }
        }
        if complete {
            return;
        }
        tokio::select! {
            () = sender.closed() => return,
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

/// Keeps nothing: what is said outside a session cannot be asked for again.
pub(crate) struct NoEvents;

#[async_trait]
impl EventStore for NoEvents {
    async fn store_event(
        &self,
        stream_id: &str,
        _event: &ServerSseMessage,
    ) -> Result<String, EventStoreError> {
        Ok(stream_id.to_owned())
    }

    async fn replay_events_after(&self, _last: &str) -> Result<EventStream, EventStoreError> {
        Err("events are kept within a session only".into())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use rmcp::model::{RequestId, ServerResult};

    use super::*;

    fn result(bytes: usize) -> ServerSseMessage {
        let id = RequestId::String("x".repeat(bytes).into());
        let result = ServerResult::empty(());
        ServerSseMessage::from_message(ServerJsonRpcMessage::response(result, id))
    }

    fn priming() -> ServerSseMessage {
        ServerSseMessage::retry(std::time::Duration::from_secs(1))
    }

    async fn ids(stream: EventStream) -> Vec<String> {
        stream.filter_map(|event| async { event.event_id }).collect().await
    }

    #[tokio::test]
    async fn a_result_waits_for_its_client() {
        let events = SessionEvents::default();
        let first = events.store_event("a", &priming()).await.unwrap();
        let stream = events.replay_events_after(&first).await.unwrap();
        let other = events.store_event("b", &result(1)).await.unwrap();
        let last = events.store_event("a", &result(1)).await.unwrap();
        assert_ne!(other, last);
        assert_eq!(
            ids(stream).await,
            std::slice::from_ref(&last),
            "came while the client listened"
        );
        let stream = events.replay_events_after(&first).await.unwrap();
        assert_eq!(ids(stream).await, std::slice::from_ref(&last), "came while nobody listened");
        let stream = events.replay_events_after(&last).await.unwrap();
        assert_eq!(ids(stream).await, [] as [String; 0], "nothing follows a result");
    }

    #[tokio::test]
    async fn what_is_not_an_event_of_the_session_is_refused() {
        let events = SessionEvents::default();
        events.store_event("a", &priming()).await.unwrap();
        for id in ["", "a", "a/", "a/x", "a/-1", "b/0", "/0"] {
            assert!(events.replay_events_after(id).await.is_err(), "{id:?}");
        }
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let events = SessionEvents::default();
        events.store_event("pending", &priming()).await.unwrap();
        for n in 0..20 {
            events.store_event(&format!("lane{n}"), &result(500_000)).await.unwrap();
        }
        for _ in 0..1000 {
            events.store_event("pending", &priming()).await.unwrap();
        }
        for n in 0..3000 {
            events.store_event(&format!("small{n}"), &result(1)).await.unwrap();
        }
        let inner = lock(&events.0);
        assert!(inner.bytes <= BYTES_MAX);
        assert!(inner.lanes.len() <= LANES_MAX && inner.order.len() == inner.lanes.len());
        let kept: usize = inner.lanes.values().map(|lane| lane.bytes).sum();
        assert_eq!(kept, inner.bytes);
        assert_eq!(inner.lanes["pending"].events.len(), LANE_EVENTS_MAX, "finished ones go first");
    }

    #[tokio::test]
    async fn a_replay_ends_with_the_session() {
        let events = SessionEvents::default();
        let first = events.store_event("a", &priming()).await.unwrap();
        let stream = events.replay_events_after(&first).await.unwrap();
        drop(events);
        assert_eq!(ids(stream).await, [] as [String; 0]);
    }
}
