//! `[secrets]` and `[http]` in `countersign.toml`: what HTTP tools send, and where they may.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use countersign_core::digest::Digest;
use countersign_exec::{HttpConfig, HttpExecutor, Secrets};
use secrecy::SecretString;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use toml::Spanned;
use zeroize::Zeroizing;

use crate::config::{Loaded, at};
use crate::endpoint::Problem;
use crate::hooks::{Setting, folder};
use crate::output::Failure;

/// Bytes read of a file: more than any secret has.
const FILE_MAX: u64 = 16 << 10;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpTable {
    allow: Option<Spanned<Vec<String>>>,
    ca_file: Option<Spanned<PathBuf>>,
}

/// Where a secret is. Never the secret.
#[derive(Debug)]
pub(crate) struct SecretTable(Spanned<Source>);

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    file: Option<PathBuf>,
    env: Option<String>,
}

fn inline<E: de::Error>() -> E {
    E::custom(
        "a secret does not stand in the configuration; write where it is: { file = \"PATH\" } or \
         { env = \"VARIABLE\" }",
    )
}

impl<'de> Deserialize<'de> for SecretTable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Inner(Source);
        struct OneOf;
        impl<'de> Visitor<'de> for OneOf {
            type Value = Inner;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("where a secret is: { file = \"PATH\" } or { env = \"VARIABLE\" }")
            }
            // The usual errors would repeat the value, which is what must not happen.
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Inner, E> {
                Err(inline())
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Inner, E> {
                Err(inline())
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Inner, E> {
                Err(inline())
            }
            fn visit_i128<E: de::Error>(self, _: i128) -> Result<Inner, E> {
                Err(inline())
            }
            fn visit_u128<E: de::Error>(self, _: u128) -> Result<Inner, E> {
                Err(inline())
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Inner, E> {
                Err(inline())
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Inner, E> {
                Err(inline())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Inner, A::Error> {
                Source::deserialize(MapAccessDeserializer::new(map)).map(Inner).map_err(|error| {
                    match error.to_string().contains("unknown field") {
                        true => error,
                        false => de::Error::custom(
                            "`file` is a path and `env` a name, both in quotes: where the secret is",
                        ),
                    }
                })
            }
        }
        impl<'de> Deserialize<'de> for Inner {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(OneOf)
            }
        }
        let spanned = Spanned::<Inner>::deserialize(from)?;
        let span = spanned.span();
        Ok(Self(Spanned::new(span, spanned.into_inner().0)))
    }
}

impl SecretTable {
    fn check(&self) -> Result<(), Problem> {
        match self.0.get_ref() {
            Source { file: Some(_), env: None } | Source { file: None, env: Some(_) } => Ok(()),
            _ => Err((self.0.span(), "a secret has either `file` or `env`".to_owned())),
        }
    }

    /// In words, for the fingerprint of calls.
    fn place(&self) -> String {
        match self.0.get_ref() {
            Source { file: Some(file), .. } => format!("file {}", file.display()),
            Source { env, .. } => format!("env {}", env.as_deref().unwrap_or_default()),
        }
    }

    fn read(
        &self,
        folder: &Path,
        setting: &Setting,
        tools_env: &[String],
    ) -> Result<SecretString, Problem> {
        let problem = |why: String| (self.0.span(), why);
        match self.0.get_ref() {
            Source { file: Some(file), .. } => {
                let path = folder.join(file);
                setting.outside(&path).map_err(problem)?;
                read(&path).map_err(|why| problem(format!("{}{why}", path.display())))
            }
            Source { env, .. } => {
                let name = env.as_deref().unwrap_or_default();
                if tools_env.iter().any(|given| given == name) {
                    return Err(problem(format!("`tools.env` gives `{name}` to every tool")));
                }
                match std::env::var(name) {
                    Ok(value) => Ok(value.into()),
                    Err(std::env::VarError::NotPresent) => {
                        Err(problem(format!("the environment has no `{name}`")))
                    }
                    Err(_) => Err(problem(format!("`{name}` is no text"))),
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<SecretString, String> {
    let file = File::open(path).map_err(|error| format!(": {error}"))?;
    let metadata = file.metadata().map_err(|error| format!(": {error}"))?;
    if !metadata.is_file() {
        return Err(" is no file".to_owned());
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!(" has mode {mode:o}, so others can read it: chmod 600 {path}"));
    }
    // Of its size at once: a vector that grows leaves copies behind.
    let size = usize::try_from(metadata.len().min(FILE_MAX)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(|error| format!(": {error}"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| " is no text".to_owned())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(SecretString::from(text.strip_suffix('\r').unwrap_or(text)))
}

impl HttpTable {
    fn config(&self, secrets: Secrets, roots_pem: Option<Vec<u8>>) -> Result<HttpConfig, Problem> {
        let mut allow = Vec::new();
        for text in self.allow.iter().flat_map(|networks| networks.get_ref()) {
            let network = text.parse().map_err(|error| {
                let span = self.allow.as_ref().map_or(0..0, Spanned::span);
                (span, format!("`{text}` is no network such as 10.0.0.0/8: {error}"))
            })?;
            allow.push(network);
        }
        Ok(HttpConfig { allow, roots_pem, secrets })
    }
}

/// Finds whatever is wrong with the tables by their text alone.
pub(crate) fn check(
    path: &str,
    text: &str,
    secrets: &BTreeMap<String, SecretTable>,
    http: &HttpTable,
) -> Result<(), Failure> {
    let checked = secrets.values().try_for_each(SecretTable::check);
    let checked = checked.and_then(|()| http.config(Secrets::default(), None).map(drop));
    checked.map_err(|(span, why)| at(path, text, span.start, &why))
}

/// The secrets, read. Relative paths are those of the configuration's folder.
pub(crate) fn build(loaded: &Loaded, setting: &Setting) -> Result<Secrets, Failure> {
    let Some(file) = &loaded.path else { return Ok(Secrets::default()) };
    let (folder, name) = (folder(file), file.display().to_string());
    let failure = |(span, why): Problem| at(&name, &loaded.text, span.start, &why);
    let mut values = BTreeMap::new();
    for (name, table) in &loaded.config.secrets {
        let value = table.read(&folder, setting, &loaded.config.tools.env).map_err(failure)?;
        values.insert(name.clone(), value);
    }
    Secrets::new(values).map_err(|error| {
        let span = loaded.config.secrets.get(&error.name).map(|table| table.0.span());
        failure((span.unwrap_or(0..0), error.to_string()))
    })
}

/// What sends HTTP requests.
pub(crate) fn executor(
    loaded: &Loaded,
    setting: &Setting,
    secrets: Secrets,
) -> Result<HttpExecutor, Failure> {
    let table = &loaded.config.http;
    let file = loaded.path.as_deref().unwrap_or(Path::new("countersign.toml"));
    let failure =
        |(span, why): Problem| at(&file.display().to_string(), &loaded.text, span.start, &why);
    let roots_pem = match &table.ca_file {
        None => None,
        Some(ca) => Some(setting.read(&folder(file), ca).map_err(failure)?),
    };
    let config = table.config(secrets, roots_pem).map_err(failure)?;
    HttpExecutor::new(config).map_err(|error| {
        let span = table.ca_file.as_ref().map_or(0..0, Spanned::span);
        failure((span, error.to_string()))
    })
}

/// What decides about the effect of an HTTP plan beside the plan: no values of secrets.
pub(crate) fn context(loaded: &Loaded) -> Vec<(String, String)> {
    let (secrets, http) = (&loaded.config.secrets, &loaded.config.http);
    let mut context: Vec<_> =
        secrets.iter().map(|(name, table)| (format!("secret.{name}"), table.place())).collect();
    let networks = http.allow.iter().flat_map(|networks| networks.get_ref());
    context.extend(networks.map(|network| ("http.allow".to_owned(), network.clone())));
    if let (Some(ca), Some(file)) = (&http.ca_file, &loaded.path) {
        let pem = std::fs::read(folder(file).join(ca.get_ref())).unwrap_or_default();
        context.push(("http.ca".to_owned(), Digest::of(pem).to_string()));
    }
    context
}

#[cfg(test)]
mod tests;
