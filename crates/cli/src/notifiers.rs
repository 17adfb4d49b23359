//! `[[notifiers]]` in `countersign.toml`: who is told that a call waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::id::RefId;
use countersign_exec::notify::{NoticeEvent, WebhookNotifier};
use countersign_ports::notifier::{Notice, Notifier, NotifyError};
use serde::Deserialize;
use tokio::sync::SetOnce;
use toml::Spanned;

use crate::config::{Loaded, at};
use crate::endpoint::{Endpoint, Problem};
use crate::hooks::{Setting, folder};
use crate::outbox::Outbox;
use crate::output::Failure;
use crate::system::SystemClock;

/// How long one try may take, unless told otherwise.
const TIMEOUT_MS: u64 = 5000;

/// What people are told of, unless told otherwise.
const EVENTS: [NoticeEvent; 2] = [NoticeEvent::Held, NoticeEvent::Escalated];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotifierTable {
    id: Spanned<RefId>,
    url: Spanned<String>,
    secret_file: Option<Spanned<PathBuf>>,
    secret_env: Option<Spanned<String>>,
    allow: Option<Spanned<Vec<String>>>,
    ca_file: Option<Spanned<PathBuf>>,
    timeout_ms: Option<Spanned<u64>>,
    events: Option<Spanned<Vec<Spanned<String>>>>,
}

impl NotifierTable {
    fn timeout(&self) -> Result<Duration, Problem> {
        match &self.timeout_ms {
            Some(given) if *given.get_ref() == 0 => {
                Err((given.span(), "nobody is told anything in 0 ms".to_owned()))
            }
            given => {
                Ok(Duration::from_millis(given.as_ref().map_or(TIMEOUT_MS, |ms| *ms.get_ref())))
            }
        }
    }

    fn events(&self) -> Result<BTreeSet<NoticeEvent>, Problem> {
        let Some(given) = &self.events else { return Ok(EVENTS.into()) };
        if given.get_ref().is_empty() {
            return Err((given.span(), "a notifier of no event tells nothing".to_owned()));
        }
        let known = |word: &Spanned<String>| {
            let event = NoticeEvent::ALL.into_iter().find(|event| event.as_str() == word.get_ref());
            event.ok_or_else(|| {
                let all = NoticeEvent::ALL.map(|event| format!("`{}`", event.as_str())).join(", ");
                (word.span(), format!("`{}` is none of {all}", word.get_ref()))
            })
        };
        given.get_ref().iter().map(known).collect()
    }

    fn endpoint(&self) -> Result<Endpoint<'_>, Problem> {
        Ok(Endpoint {
            what: "a notifier",
            url: &self.url,
            secret_file: self.secret_file.as_ref(),
            secret_env: self.secret_env.as_ref(),
            allow: self.allow.as_ref(),
            ca_file: self.ca_file.as_ref(),
            timeout: self.timeout()?,
        })
    }

    fn check(&self) -> Result<(), Problem> {
        let id = self.id.get_ref().as_str();
        // It is a part of record ids, and of lines of the outbox.
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if id.len() > 64 || !id.chars().all(fits) {
            let why = "an id has at most 64 letters, digits, `_` and `-`";
            return Err((self.id.span(), why.to_owned()));
        }
        let endpoint = self.endpoint()?;
        let config = endpoint.without_secret()?;
        let (name, clock) = (self.id.get_ref().to_string(), Arc::new(SystemClock));
        WebhookNotifier::new(name, config, self.events()?, Arc::default(), clock)
            .map(drop)
            .map_err(|error| endpoint.problem(&error))
    }
}

/// Finds whatever is wrong with the notifiers of a configuration by its text alone.
pub(crate) fn check(path: &str, text: &str, tables: &[NotifierTable]) -> Result<(), Failure> {
    let mut seen = BTreeMap::new();
    let one = |table: &NotifierTable| {
        if seen.insert(table.id.get_ref().clone(), ()).is_some() {
            let why = format!("two notifiers have the id `{}`", table.id.get_ref());
            return Err((table.id.span(), why));
        }
        table.check()
    };
    tables.iter().try_for_each(one).map_err(|(span, why)| at(path, text, span.start, &why))
}

/// The endpoints of a configuration, and how long each try may take. They send nothing before
/// the `console` is known.
pub(crate) fn webhooks(
    loaded: &Loaded,
    setting: &Setting,
    console: &Arc<SetOnce<String>>,
) -> Result<Vec<(WebhookNotifier, Duration)>, Failure> {
    let Some(file) = &loaded.path else { return Ok(Vec::new()) };
    let folder = folder(file);
    let one = |table: &NotifierTable| {
        let endpoint = table.endpoint()?;
        let config = endpoint.config(&folder, setting)?;
        let (name, clock) = (table.id.get_ref().to_string(), Arc::clone(&setting.clock));
        WebhookNotifier::new(name, config, table.events()?, Arc::clone(console), clock)
            .map(|webhook| (webhook, endpoint.timeout))
            .map_err(|error| endpoint.problem(&error))
    };
    let built = loaded.config.notifiers.iter().map(one).collect::<Result<_, Problem>>();
    built.map_err(|(span, why)| at(&file.display().to_string(), &loaded.text, span.start, &why))
}

/// Everybody who is told, and how long each try may take.
pub(crate) type Notifiers = Vec<(Arc<dyn Notifier>, Duration)>;

/// Everybody who is told, with what arrived before a restart.
pub(crate) fn build(
    loaded: &Loaded,
    setting: &Setting,
    console: &Arc<SetOnce<String>>,
) -> Result<Notifiers, Failure> {
    let webhooks = webhooks(loaded, setting, console)?;
    if webhooks.is_empty() {
        return Ok(Vec::new());
    }
    let outbox = Arc::new(Outbox::open(&loaded.state.join("notices"))?);
    let remembering = |(webhook, timeout)| {
        let notifier = Remembering { webhook, outbox: Arc::clone(&outbox) };
        (Arc::new(notifier) as Arc<dyn Notifier>, timeout)
    };
    Ok(webhooks.into_iter().map(remembering).collect())
}

/// Sends no notice again that arrived before a restart.
struct Remembering {
    webhook: WebhookNotifier,
    outbox: Arc<Outbox>,
}

#[async_trait]
impl Notifier for Remembering {
    fn name(&self) -> &str {
        self.webhook.name()
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.webhook.wants(notice)
    }

    async fn notify(&self, notice: Arc<Notice>) -> Result<(), NotifyError> {
        let (name, id) = (self.name(), notice.id());
        if self.outbox.arrived(name, &id) {
            return Ok(());
        }
        let until = notice.hold.expires_at.clone();
        self.webhook.notify(notice).await?;
        self.outbox.note(name, &id, &until);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
