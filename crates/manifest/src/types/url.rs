//! Absolute URLs in their canonical spelling.

use super::address::HostRule;
use super::host::{self, Target};
use super::text;
use super::{Refusal, refuse};

#[derive(Clone, Debug)]
pub(crate) struct UrlRule {
    /// Lower case.
    pub(crate) schemes: Vec<String>,
    pub(crate) host: HostRule,
}

impl UrlRule {
    /// Gives the host, for the scope.
    pub(crate) fn check(&self, value: &str) -> Result<Target, Refusal> {
        text::visible(value, false)?;
        if let Some(c) = value.chars().find(|c| ";|$`(){}<>!'\"\\".contains(*c)) {
            return refuse("shell_character", format!("holds `{c}`"));
        }
        if !value.is_ascii() {
            return refuse("url_not_canonical", "holds a character that has to be escaped");
        }
        let Ok(url) = url::Url::parse(value) else {
            return refuse("not_a_url", "is not an absolute URL");
        };
        if !self.schemes.iter().any(|s| s == url.scheme()) {
            let (found, allowed) =
                (crate::diagnostic::excerpt(url.scheme()), self.schemes.join(", "));
            return refuse("url_scheme", format!("scheme `{found}` is not one of: {allowed}"));
        }
        let rest = value.strip_prefix(url.scheme()).and_then(|r| r.strip_prefix("://"));
        let Some(rest) = rest else {
            return refuse("url_not_canonical", "must begin with a lower-case scheme and `://`");
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if authority.contains('@') {
            return refuse("url_userinfo", "must not hold a user or password");
        }
        if tail.contains(['[', ']']) {
            return refuse("shell_character", "holds a bracket outside the host");
        }
        let slash = format!("{}://{authority}/{tail}", url.scheme());
        if url.as_str() != value && (tail.starts_with('/') || url.as_str() != slash) {
            return refuse("url_not_canonical", "is not in canonical form");
        }
        match url.host_str() {
            Some(host) if !host.is_empty() => host::of_url(host, self.host),
            _ => refuse("url_host", "has no host"),
        }
    }
}
