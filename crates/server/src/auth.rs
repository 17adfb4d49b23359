//! Who is asking, and what they may do.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use countersign_core::digest::Digest;
use countersign_ports::clock::Clock;
use countersign_ports::entropy::{Entropy, EntropyError};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Calls tools. Never decides.
    Agent,
    /// Decides about held calls, and reads what happened.
    Approver,
    /// Reads what happened.
    Auditor,
    /// Records verdicts on what others put out. Neither calls tools nor decides.
    Critic,
    /// Everything but calling tools and judging.
    Admin,
}

/// Somebody who may use the gateway. A token is known only by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The identity; decisions and refusals are compared by it.
    pub id: String,
    /// The name for people.
    pub display: String,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// Who answers for an agent.
    pub owner: Option<String>,
    /// The groups whose approvals it can give.
    pub groups: BTreeSet<String>,
    /// SHA-256 of each token it may use.
    pub tokens: Vec<Digest>,
}

impl Principal {
    pub(crate) fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }
}

/// How long a console session lasts.
const SESSION_MILLIS: u64 = 12 * 60 * 60 * 1000;

/// How long a one-time link is good.
const LINK_MILLIS: u64 = 60 * 60 * 1000;

/// Console sessions and unused links at once.
const SESSIONS_MAX: usize = 1000;

/// Refusals within a minute that are answered and recorded one by one.
const REFUSALS_PER_MINUTE: u32 = 30;

pub(crate) const SESSION_COOKIE: &str = "countersign_session";

struct Session {
    principal: Arc<Principal>,
    csrf: String,
    expires: u64,
}

#[derive(Default)]
struct State {
    sessions: HashMap<Digest, Session>,
    links: HashMap<Digest, (Arc<Principal>, u64)>,
    refusals: (u64, u32),
}

/// The principals, and who is signed in to the console.
pub(crate) struct Auth {
    principals: Vec<Arc<Principal>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
}

/// An authenticated request.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    /// The token that state-changing requests of a console session must carry.
    pub(crate) csrf: Option<String>,
}

impl Auth {
    pub(crate) fn new(
        principals: Vec<Principal>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let principals = principals.into_iter().map(Arc::new).collect();
        Self { principals, clock, entropy, state: Mutex::default() }
    }

    pub(crate) fn principals(&self) -> &[Arc<Principal>] {
        &self.principals
    }

    pub(crate) fn principal(&self, id: &str) -> Option<&Principal> {
        self.principals.iter().find(|principal| principal.id == id).map(|found| &**found)
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now_millis()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The principal with this token. Takes the same time for every wrong token.
    pub(crate) fn by_token(&self, token: &str) -> Option<Arc<Principal>> {
        let digest = Digest::of(token);
        let mut found = None;
        for principal in &self.principals {
            for known in &principal.tokens {
                if bool::from(known.as_bytes().ct_eq(digest.as_bytes())) {
                    found = Some(Arc::clone(principal));
                }
            }
        }
        found
    }

    /// Who the headers speak for: a bearer token, or a console session.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        if let Some(value) = headers.get(AUTHORIZATION) {
            let value = value.to_str().ok()?;
            let (scheme, token) = value.split_once(' ')?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return None;
            }
            let principal = self.by_token(token.trim())?;
            return Some(Caller { principal, csrf: None });
        }
        let now = self.clock.now_millis();
        let state = self.state();
        // Another program on this host can plant a cookie of the same name in front.
        let session = session_cookies(headers)
            .filter_map(|cookie| state.sessions.get(&Digest::of(cookie)))
            .find(|session| now < session.expires)?;
        let (principal, csrf) = (Arc::clone(&session.principal), Some(session.csrf.clone()));
        Some(Caller { principal, csrf })
    }

    fn secret(&self) -> Result<String, EntropyError> {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes)?;
        Ok(hex::encode(bytes))
    }

    /// A code that signs its first user in as this principal.
    pub(crate) fn one_time_code(&self, principal: Arc<Principal>) -> Result<String, EntropyError> {
        let code = self.secret()?;
        let now = self.clock.now_millis();
        let mut state = self.state();
        state.links.retain(|_, (_, expires)| now < *expires);
        if state.links.len() < SESSIONS_MAX {
            state.links.insert(Digest::of(&code), (principal, now + LINK_MILLIS));
        }
        Ok(code)
    }

    /// Uses a code up.
    pub(crate) fn redeem(&self, code: &str) -> Option<Arc<Principal>> {
        let (principal, expires) = self.state().links.remove(&Digest::of(code))?;
        (self.clock.now_millis() < expires).then_some(principal)
    }

    /// Starts a console session and returns its cookie's value.
    pub(crate) fn sign_in(&self, principal: Arc<Principal>) -> Result<String, EntropyError> {
        let (cookie, csrf) = (self.secret()?, self.secret()?);
        let now = self.clock.now_millis();
        let mut state = self.state();
        state.sessions.retain(|_, session| now < session.expires);
        if state.sessions.len() >= SESSIONS_MAX {
            let oldest = state.sessions.iter().min_by_key(|(_, session)| session.expires);
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                state.sessions.remove(&oldest);
            }
        }
        let session = Session { principal, csrf, expires: now + SESSION_MILLIS };
        state.sessions.insert(Digest::of(&cookie), session);
        Ok(cookie)
    }

    pub(crate) fn sign_out(&self, headers: &HeaderMap) {
        for cookie in session_cookies(headers) {
            self.state().sessions.remove(&Digest::of(cookie));
        }
    }

    /// Counts a refusal; false when there have been too many in this minute.
    pub(crate) fn count_refusal(&self) -> bool {
        let minute = self.clock.now_millis() / 60_000;
        let mut state = self.state();
        if state.refusals.0 != minute {
            state.refusals = (minute, 0);
        }
        state.refusals.1 = state.refusals.1.saturating_add(1);
        state.refusals.1 <= REFUSALS_PER_MINUTE
    }
}

fn session_cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == SESSION_COOKIE)
        .map(|(_, value)| value)
        .take(8)
}

/// Compares without telling by the time taken how much of it was right.
pub(crate) fn same_secret(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}
