//! The keys of an HTTP endpoint in `countersign.toml`: where it is, and how it knows the gateway.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_exec::hook::{WebhookConfig, WebhookConfigError};
use toml::Spanned;
use zeroize::Zeroizing;

use crate::hooks::Setting;

/// A problem, and where in the file it is.
pub(crate) type Problem = (Range<usize>, String);

/// How long an endpoint may take to be connected to, within its time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The keys as they stand in a table.
pub(crate) struct Endpoint<'a> {
    /// What the table declares, such as `a webhook`.
    pub(crate) what: &'a str,
    pub(crate) url: &'a Spanned<String>,
    pub(crate) secret_file: Option<&'a Spanned<PathBuf>>,
    pub(crate) secret_env: Option<&'a Spanned<String>>,
    pub(crate) allow: Option<&'a Spanned<Vec<String>>>,
    pub(crate) ca_file: Option<&'a Spanned<PathBuf>>,
    pub(crate) timeout: Duration,
}

/// Where a secret is.
enum Secret<'a> {
    File(&'a Spanned<PathBuf>),
    Env(&'a Spanned<String>),
}

impl Endpoint<'_> {
    /// What the text alone gives: a configuration with a secret of the right form, which is sent
    /// to nobody.
    pub(crate) fn without_secret(&self) -> Result<WebhookConfig, Problem> {
        self.secret()?;
        self.with(Zeroizing::new(format!("whsec_{}", "A".repeat(32))), None)
    }

    /// With the secret and the certificates read. Relative paths are those of `folder`.
    pub(crate) fn config(
        &self,
        folder: &Path,
        setting: &Setting,
    ) -> Result<WebhookConfig, Problem> {
        let secret = match self.secret()? {
            Secret::File(file) => {
                let text = String::from_utf8(setting.read(folder, file)?).map_err(|_| {
                    let path = folder.join(file.get_ref());
                    (file.span(), format!("{} is no text", path.display()))
                })?;
                Zeroizing::new(Zeroizing::new(text).trim().to_owned())
            }
            Secret::Env(name) => Zeroizing::new(std::env::var(name.get_ref()).map_err(|_| {
                (name.span(), format!("the environment has no `{}`", name.get_ref()))
            })?),
        };
        let roots_pem = match self.ca_file {
            None => None,
            Some(file) => Some(setting.read(folder, file)?),
        };
        self.with(secret, roots_pem)
    }

    /// The broken rule in the words of the configuration, and where the value stands.
    pub(crate) fn problem(&self, error: &WebhookConfigError) -> Problem {
        let span = match error.field {
            "secret" => {
                let file = self.secret_file.map(Spanned::span);
                file.or(self.secret_env.map(Spanned::span))
            }
            "roots_pem" => self.ca_file.map(Spanned::span),
            _ => None,
        };
        let name = if error.field == "roots_pem" { "ca_file" } else { error.field };
        (span.unwrap_or_else(|| self.url.span()), format!("{name} {}", error.rule))
    }

    fn with(
        &self,
        secret: Zeroizing<String>,
        roots_pem: Option<Vec<u8>>,
    ) -> Result<WebhookConfig, Problem> {
        let mut allow = Vec::new();
        if let Some(networks) = self.allow {
            for text in networks.get_ref() {
                let network = text.parse();
                allow.push(network.map_err(|error| {
                    let why = format!("`{text}` is no network such as 10.0.0.0/8: {error}");
                    (networks.span(), why)
                })?);
            }
        }
        let connect_timeout = CONNECT_TIMEOUT.min(self.timeout);
        let url = self.url.get_ref().clone();
        Ok(WebhookConfig { url, secret, allow, connect_timeout, roots_pem })
    }

    fn secret(&self) -> Result<Secret<'_>, Problem> {
        match (self.secret_file, self.secret_env) {
            (Some(file), None) => Ok(Secret::File(file)),
            (None, Some(name)) => Ok(Secret::Env(name)),
            _ => {
                let why = format!(
                    "{} has either `secret_file` or `secret_env`: whsec_ and 24 to 64 bytes in \
                     base64, by which it knows the gateway",
                    self.what
                );
                let both = self.secret_file.and(self.secret_env.map(Spanned::span));
                Err((both.unwrap_or_else(|| self.url.span()), why))
            }
        }
    }
}
