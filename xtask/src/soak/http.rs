//! As much HTTP as a client of the gateway needs that must be able to hang up at any moment.

use serde_json::Value;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Answered(u16, Value),
    /// The client had waited long enough, and hung up.
    HungUp,
    /// There is no whole answer: the gateway is not there, or went away.
    Lost,
}

/// One request on a connection of its own, which is closed after `patience`.
pub(crate) fn ask(
    address: SocketAddr,
    token: &str,
    head: &str,
    body: &str,
    patience: Duration,
) -> Reply {
    let end = Instant::now() + patience;
    let request = format!(
        "{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else {
        return Reply::Lost;
    };
    if stream.write_all(request.as_bytes()).is_err() {
        return Reply::Lost;
    }
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return Reply::HungUp;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return parse(&bytes).unwrap_or(Reply::Lost),
            Ok(length) => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return Reply::HungUp,
                ErrorKind::Interrupted => {}
                _ => return Reply::Lost,
            },
        }
    }
}

/// `None` unless the answer is there to its last byte: an answer that broke off tells nothing.
fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let body = bytes.get(end + 4..)?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let length: usize = length?;
    (body.len() == length)
        .then(|| Reply::Answered(status, serde_json::from_slice(body).unwrap_or(Value::Null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_one() {
        let whole = b"HTTP/1.1 409 Conflict\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";
        let Some(Reply::Answered(409, body)) = parse(whole) else { panic!("it is whole") };
        assert_eq!(body, serde_json::json!({"a": 1}));
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_none(), "cut at {end}");
        }
    }
}
