//! Requests to web servers.

mod redirect;
mod request;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::plan::{HttpPlan, Plan, RunLimits};
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use self::redirect::Next;
use self::request::Outgoing;
use crate::connect::{Failed, Resolve, SystemResolver, chain, exchange, permitted, tls};
use crate::dispatch::not_started;
use crate::quote::quote;
use crate::secret::Secrets;

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 5;
/// How long one server may take to be connected to, within the call's time.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The header fields of an answer that the agent gets to see.
const SHOWN: [&str; 11] = [
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "link",
    "location",
    "retry-after",
    "www-authenticate",
];

/// What all requests of one executor have in common.
#[derive(Clone, Debug, Default)]
pub struct HttpConfig {
    /// The networks that are not of the public internet and may be reached all the same. No
    /// entry opens link-local addresses or the metadata services of clouds.
    pub allow: Vec<IpNet>,
    /// PEM with the only certificate authorities that may vouch for servers. `None` means those
    /// that Mozilla trusted when this was built; the system's own are not read.
    pub roots_pem: Option<Vec<u8>>,
    /// What plans may name.
    pub secrets: Secrets,
}

/// Why there is no executor of a configuration: what is wrong with `roots_pem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfigError(String);

impl fmt::Display for HttpConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate authorities: {}", self.0)
    }
}

impl std::error::Error for HttpConfigError {}

/// Sends the request of an HTTP plan, once.
///
/// - A name is looked up once for each connection; every address found is judged, and the
///   connection goes to one that passed. Nothing is looked up again in between.
/// - A secret is put in when the request is written. It goes out encrypted, or into a network
///   of [`HttpConfig::allow`]; never where a redirect leads to another origin; and not into a
///   header if it holds a control character.
/// - At most five redirects are followed, each judged like the first address. From https none
///   leads to http. One to another origin is followed for GET and HEAD only, and takes none of
///   the manifest's header fields along. A status that the manifest lists is an answer and no
///   redirect.
/// - Nothing is ever sent a second time by itself. A request that failed before anything of it
///   was written is [`NotStarted`](ExecutionStatus::NotStarted); one of which the server may have
///   got something and that has no answer is [`Unknown`](ExecutionStatus::Unknown).
/// - The deadline is for all of it, however slowly the answer drips. Of a body, `output_max_bytes`
///   are read, and no more; then the connection is closed, and length and hash count what was
///   kept and the one byte that was too much.
/// - An answer has at most 100 header fields in 64 KiB. It is asked for without compression; a
///   compressed one is an error and not unpacked.
/// - `stderr` of the execution is the status line and those header fields that say something
///   about the answer; no cookies.
/// - HTTP/1.1. There are no proxies, no cookies and no stored connections, and the environment
///   is not read.
///
/// Dropping the future closes the connection. Needs a Tokio runtime with I/O and time.
#[derive(Clone)]
pub struct HttpExecutor(Arc<Inner>);

struct Inner {
    allow: Vec<IpNet>,
    tls: TlsConnector,
    secrets: Secrets,
    resolver: Box<dyn Resolve>,
}

impl fmt::Debug for HttpExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { allow, secrets, .. } = &*self.0;
        f.debug_struct("HttpExecutor")
            .field("allow", allow)
            .field("secrets", secrets)
            .finish_non_exhaustive()
    }
}

impl HttpExecutor {
    /// Connects to nothing.
    ///
    /// # Errors
    /// When `roots_pem` holds no certificate authority.
    pub fn new(config: HttpConfig) -> Result<Self, HttpConfigError> {
        Self::resolving(config, Box::new(SystemResolver))
    }

    fn resolving(config: HttpConfig, resolver: Box<dyn Resolve>) -> Result<Self, HttpConfigError> {
        let HttpConfig { allow, roots_pem, secrets } = config;
        let tls = tls(roots_pem.as_deref()).map_err(HttpConfigError)?;
        Ok(Self(Arc::new(Inner { allow, tls, secrets, resolver })))
    }
}

#[async_trait]
impl ToolExecutor for HttpExecutor {
    async fn run(&self, run: ToolRun) -> Execution {
        let Plan::Http(plan) = &run.plan else {
            return not_started("this executor sends HTTP requests only".to_owned());
        };
        let started = Instant::now();
        let mut answer = Answer::default();
        let done =
            timeout_at(started + run.limits.timeout, self.0.follow(plan, &run.limits, &mut answer));
        let status = match done.await {
            Ok(status) => status,
            Err(_) => ExecutionStatus::TimedOut,
        };
        Execution {
            status,
            stdout_sha256: Sha256::digest(&answer.body).into(),
            stdout_len: answer.body.len() as u64 + u64::from(answer.more),
            stdout: answer.body,
            stderr: answer.head.into_bytes(),
            duration: started.elapsed(),
        }
    }
}

/// What was read by now, also when the deadline came.
#[derive(Default)]
struct Answer {
    head: String,
    body: Vec<u8>,
    /// There is more of the body than was kept.
    more: bool,
}

/// What became of one request.
enum Sent {
    Done(ExecutionStatus),
    Redirect(Outgoing, String),
}

impl Inner {
    async fn follow(
        &self,
        plan: &HttpPlan,
        limits: &RunLimits,
        answer: &mut Answer,
    ) -> ExecutionStatus {
        let mut outgoing = match Outgoing::new(plan, &self.secrets) {
            Ok(outgoing) => outgoing,
            Err(why) => return ExecutionStatus::NotStarted(why),
        };
        // What the server before said, once there was one.
        let mut after: Option<String> = None;
        for left in (0..=REDIRECTS_MAX).rev() {
            match self.send(outgoing, plan, left, limits, answer).await {
                Ok(Sent::Done(status)) => return status,
                Ok(Sent::Redirect(next, note)) => (outgoing, after) = (next, Some(note)),
                Err(Failed { reason, unsent: true }) => {
                    return match after {
                        None => ExecutionStatus::NotStarted(reason),
                        // It had an answer, which led nowhere.
                        Some(note) => {
                            let note = format!("{note}, which was not asked: {reason}");
                            ExecutionStatus::Answered { ok: false, note }
                        }
                    };
                }
                Err(Failed { reason, unsent: false }) => {
                    let why = format!("the request may have arrived: {reason}");
                    return ExecutionStatus::Unknown(why);
                }
            }
        }
        // INVARIANT: with none left, `send` gives no redirect.
        ExecutionStatus::Unknown("too many redirects".to_owned())
    }

    /// One request, to one server.
    async fn send(
        &self,
        outgoing: Outgoing,
        plan: &HttpPlan,
        left: usize,
        limits: &RunLimits,
        answer: &mut Answer,
    ) -> Result<Sent, Failed> {
        let unsent = |reason| Failed { reason, unsent: true };
        let to = outgoing.target().map_err(unsent)?;
        let request = outgoing.request(&self.secrets).map_err(unsent)?;
        let secret = outgoing.has_secrets();
        let permitted = |address| self.permitted(address, to.encrypted(), secret);
        let connect = to.connect(&*self.resolver, &permitted, &self.tls, CONNECT_MAX);
        let stream = tokio::time::timeout(CONNECT_MAX, connect)
            .await
            .map_err(|_| unsent(format!("no connection to {} in {CONNECT_MAX:?}", to.origin())))?
            .map_err(unsent)?;
        exchange(stream, request, async |response: Result<Response<Incoming>, Failed>| {
            let (head, body) = response?.into_parts();
            answer.head = shown_head(head.status, &head.headers);
            let note = note(head.status);
            let listed = [&plan.success_status, &plan.error_status];
            let listed = listed.iter().any(|codes| codes.contains(&head.status.as_u16()));
            if !listed
                && let Some(next) = redirect::next(&outgoing, head.status, &head.headers, left)
            {
                return Ok(match next {
                    Next::Follow(next) => {
                        let note = format!("{note} led to {}", next.shown());
                        Sent::Redirect(next, note)
                    }
                    Next::Refused(why) => {
                        let note = format!("{note}, and its redirect is not followed: {why}");
                        Sent::Done(ExecutionStatus::Answered { ok: false, note })
                    }
                });
            }
            let read = read(body, limits.output_max_bytes, answer).await;
            Ok(Sent::Done(judged(plan, head.status, &head.headers, read, answer)))
        })
        .await
    }

    /// An error says what the address is, and which rule that breaks.
    fn permitted(&self, address: IpAddr, encrypted: bool, secret: bool) -> Result<(), String> {
        let allowed = permitted(address, &self.allow, "`allow` of [http] in the configuration")?;
        match !allowed && secret && !encrypted {
            true => Err(format!(
                "leads to {address} without encryption, and the request holds a secret; write \
                 https:// in the manifest"
            )),
            false => Ok(()),
        }
    }
}

/// The whole answer, held against the manifest.
fn judged(
    plan: &HttpPlan,
    status: StatusCode,
    headers: &HeaderMap,
    read: Result<(), String>,
    answer: &mut Answer,
) -> ExecutionStatus {
    let (code, mut note) = (status.as_u16(), note(status));
    let mut ok = match plan.success_status.is_empty() {
        true => status.is_success() && !plan.error_status.contains(&code),
        false => plan.success_status.contains(&code),
    };
    if !ok && !plan.error_status.is_empty() && !plan.error_status.contains(&code) {
        note.push_str("; its body is not shown, for the manifest does not list the status");
        (answer.body, answer.more) = (Vec::new(), false);
    }
    if let Err(why) = read {
        ok = false;
        note.push_str(&format!(", and {why}"));
    }
    let coding = headers.get(CONTENT_ENCODING).map_or(&b""[..], HeaderValue::as_bytes);
    if !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") {
        ok = false;
        let coding = quote(&String::from_utf8_lossy(coding));
        note.push_str(&format!(", compressed with {coding}, which was not asked for"));
    }
    ExecutionStatus::Answered { ok, note }
}

fn note(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("HTTP {} {reason}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    }
}

fn shown_head(status: StatusCode, headers: &HeaderMap) -> String {
    let mut text = note(status);
    text.push('\n');
    for (name, value) in headers {
        let shown = |name: &str| SHOWN.contains(&name) || name.contains("ratelimit");
        if shown(name.as_str()) {
            text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    text
}

/// Reads up to `max` bytes, and whether there is one more.
async fn read(mut body: Incoming, max: u64, answer: &mut Answer) -> Result<(), String> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("its body broke off: {}", chain(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = max - answer.body.len();
        answer.body.extend_from_slice(data.get(..room).unwrap_or(data));
        if data.len() > room {
            answer.more = true;
            return Ok(());
        }
    }
    Ok(())
}
