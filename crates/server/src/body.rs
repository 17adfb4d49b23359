//! Reading request bodies: bounded in bytes and in time, whoever sends them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::StreamExt as _;

/// Bytes of a body over the limit that are read away before the answer: a client that is
/// still sending when it is refused sees a broken connection and not the reason.
const READ_AWAY: usize = 64 << 20;

/// How long a client may take to send a body.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body broke off")]
    Broken,
    #[error("the body took too long")]
    TooSlow,
}

/// The whole body, or why not.
pub(crate) async fn read(body: Body, max: usize, time: Duration) -> Result<Bytes, BodyError> {
    tokio::time::timeout(time, read_all(body, max)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn read_all(body: Body, max: usize) -> Result<Bytes, BodyError> {
    let mut stream = body.into_data_stream();
    let (mut all, mut seen) = (Vec::new(), 0_usize);
    while let Some(data) = stream.next().await {
        let data = data.map_err(|_| BodyError::Broken)?;
        seen = seen.saturating_add(data.len());
        if seen > READ_AWAY.max(max) {
            break;
        } else if seen > max {
            all = Vec::new();
        } else {
            all.extend_from_slice(&data);
        }
    }
    if seen > max { Err(BodyError::TooLarge(max)) } else { Ok(all.into()) }
}
