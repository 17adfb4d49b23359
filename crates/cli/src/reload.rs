//! Other manifests while the gateway runs.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_core::id::AgentId;
use countersign_core::text::visible;
use countersign_kernel::Kernel;
use countersign_manifest::ManifestSet;
use tokio::signal::unix::Signal;
use tokio::time::sleep;

use crate::config::{Config, Loaded};
use crate::manifest::files::Files;
use crate::output::{Failure, counted};
use crate::serve::{self, Folder};
use crate::upstreams::Catalog;

/// What it takes to put other manifests in the place of those in force.
pub(crate) struct Reload<'a> {
    pub(crate) kernel: Kernel,
    /// Has the tools of upstream servers, which stay.
    pub(crate) catalog: Option<Catalog>,
    pub(crate) loaded: &'a Loaded,
    /// Whether the rest of the configuration would start with these tools.
    pub(crate) fits: &'a (dyn Fn(&ManifestSet) -> Result<(), Failure> + Sync),
    /// As it was before the manifests in force were read.
    pub(crate) seen: Look,
    /// Of the manifests in force.
    pub(crate) digest: String,
}

/// What can be seen of the files without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look(Vec<(PathBuf, u64, i64, i64, u64)>);

impl Look {
    /// A folder that cannot be read looks like one without files.
    pub(crate) fn at(dir: &Path) -> Self {
        let files = Files::of(dir).map(Files::all).unwrap_or_default();
        let mut found: Vec<_> = files
            .into_iter()
            .map(|path| match path.metadata() {
                Ok(meta) => (path, meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino()),
                Err(_) => (path, 0, 0, 0, 0),
            })
            .collect();
        found.sort();
        Self(found)
    }
}

impl Reload<'_> {
    /// Reads the manifests again on each SIGHUP, and when their files have changed and then
    /// stayed the same for as long as `every`; zero: on signals only.
    pub(crate) async fn run(mut self, every: Duration, mut asked: Signal) -> Infallible {
        let mut changed = None;
        loop {
            let tick = async {
                match every.is_zero() {
                    true => std::future::pending().await,
                    false => sleep(every).await,
                }
            };
            let told = tokio::select! {
                _ = asked.recv() => true,
                () = tick => false,
            };
            let now = self.look().await;
            if !told {
                if now == self.seen {
                    changed = None;
                    continue;
                }
                if changed.as_ref() != Some(&now) {
                    // Somebody may still be writing.
                    changed = Some(now);
                    continue;
                }
            }
            (self.seen, changed) = (now, None);
            if told && let Some(text) = self.configuration().await {
                eprintln!("configuration: {text}");
            }
            match self.again().await {
                Ok(text) => eprintln!("manifests: {text}"),
                Err(failure) => {
                    let all = self.kernel.manifests();
                    let count = all.iter().filter(|manifest| !manifest.is_own()).count();
                    let why = failure.message;
                    eprintln!("manifests: not reloaded, the {count} tools in force stay: {why}");
                    if let Err(error) = self.record("manifests_refused", &why).await {
                        tracing::error!("a refused reload is not recorded: {}", error.message);
                    }
                }
            }
        }
    }

    fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// What there is to say about the configuration: it is read once, when the gateway starts.
    async fn configuration(&self) -> Option<String> {
        let path = self.loaded.path.clone()?;
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
        let what = match read.await.ok()? {
            Ok(text) => differs(&self.loaded.text, &text)?,
            Err(error) => format!("cannot be read: {error}"),
        };
        Some(format!(
            "{shown} {what}; what the gateway was started with stays until it is started again"
        ))
    }

    async fn look(&self) -> Look {
        let dir = self.config().tools.dir.clone();
        let look = tokio::task::spawn_blocking(move || Look::at(&dir));
        look.await.unwrap_or_else(|_| self.seen.clone())
    }

    /// All of the set is right, or nothing changes.
    async fn again(&mut self) -> Result<String, Failure> {
        let read = tokio::task::block_in_place(|| serve::read_manifests(self.config()));
        let Folder { set, problems, broken } = read?;
        for problem in &problems {
            eprintln!("{problem}");
        }
        if broken {
            let first = problems.first().map_or("", String::as_str);
            let problems = counted(problems.len(), "problem");
            return Err(Failure::new(format!("{problems}, the first: {first}")));
        }
        let (now, all) = match &self.catalog {
            Some(catalog) => (catalog.described(), catalog.with(&set).await),
            None => ((*self.kernel.manifests()).clone(), set.clone()),
        };
        (self.fits)(&all)?;
        let digest = set.digest();
        if digest == self.digest {
            return Ok(format!("read again, and the same {} tools", set.iter().len()));
        }
        let change = change(&now, &set);
        // INVARIANT: recorded first. No call of a new tool comes before this in the journal.
        let text = format!("{} to {digest}: {change}", self.digest);
        self.record("manifests_replaced", &text).await?;
        match &self.catalog {
            Some(catalog) => catalog.describe(&self.kernel, &set).await?,
            None => self.kernel.manifests_replace(set),
        }
        self.digest = digest;
        Ok(change)
    }

    async fn record(&self, status: &str, text: &str) -> Result<(), Failure> {
        let host = AgentId::new("countersign").map_err(|error| Failure::of(&error))?;
        let how = "manifests";
        let run = self.kernel.run_start_own(host, how).await.map_err(|e| Failure::of(&e))?;
        let noted = self.kernel.run_note(&run, status, text).await;
        let ended = self.kernel.run_end(&run, how).await;
        noted.and(ended).map_err(|error| Failure::of(&error))
    }
}

/// Where a configuration is not what it was, without any value. `None` if it is the same.
fn differs(old: &str, new: &str) -> Option<String> {
    let tables = |text: &str| text.parse::<toml::Table>();
    let (Ok(old), Ok(new)) = (tables(old), tables(new)) else {
        return (old != new).then(|| "has changed, and is no TOML".to_owned());
    };
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let shown = |name: &String| match name.as_str() {
        "upstream" => format!("[[upstream]] {}", upstreams(old.get(name), new.get(name))),
        name => format!("[{}]", visible(name)),
    };
    let changed: Vec<_> = changed.map(shown).collect();
    (!changed.is_empty()).then(|| format!("has changed in {}", changed.join(", ")))
}

/// The names of the upstreams whose tables are not the same.
fn upstreams(old: Option<&toml::Value>, new: Option<&toml::Value>) -> String {
    let tables = |value: Option<&toml::Value>| -> Vec<toml::Value> {
        value.and_then(toml::Value::as_array).cloned().unwrap_or_default()
    };
    let (old, new) = (tables(old), tables(new));
    let gone = old.iter().filter(|table| !new.contains(table));
    let names: BTreeSet<_> = gone
        .chain(new.iter().filter(|table| !old.contains(table)))
        .filter_map(|table| table.get("name").and_then(toml::Value::as_str))
        .map(|name| format!("`{}`", visible(name)))
        .collect();
    match names.is_empty() {
        true => "in another order".to_owned(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// What is another in the new set, in words.
fn change(old: &ManifestSet, new: &ManifestSet) -> String {
    let digest = |set: &ManifestSet, name: &str| set.get(name).map(|m| m.digest().to_owned());
    let names = |set: &ManifestSet, pick: &dyn Fn(&str) -> bool| -> Vec<String> {
        set.iter().map(|m| m.name().to_owned()).filter(|name| pick(name)).collect()
    };
    let parts = [
        ("new", names(new, &|name| old.get(name).is_none())),
        (
            "changed",
            names(new, &|name| {
                let before = digest(old, name);
                before.is_some() && before != digest(new, name)
            }),
        ),
        ("gone", names(old, &|name| new.get(name).is_none())),
    ];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<_> =
        parts.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
    format!("{} tools; {}", new.iter().len(), parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_in_a_configuration_is_said_without_its_values() {
        let up = |name: &str, key: &str| {
            format!("[[upstream]]\nname = \"{name}\"\ncommand = [\"{key}\"]\n")
        };
        let (one, two, other) = (up("one", "a"), up("two", "a"), up("one", "b"));
        let both = format!("{one}{two}");
        for (old, new, said) in [
            ("", "", None),
            ("[server]\nbind = \"x\"\n", "# A word.\n[server]\nbind = 'x'\n", None),
            ("[server]\nbind = \"x\"\n", "[server]\nbind = \"k3y\"\n", Some("[server]")),
            ("", "[http]\nallow = []\n[store]\n", Some("[http], [store]")),
            (&one, "", Some("[[upstream]] `one`")),
            (&one, &other, Some("[[upstream]] `one`")),
            (&one, &both, Some("[[upstream]] `two`")),
            (&both, &two, Some("[[upstream]] `one`")),
            (&both, &format!("{two}{one}"), Some("[[upstream]] in another order")),
            (&both, &both, None),
        ] {
            let said = said.map(|said| format!("has changed in {said}"));
            assert_eq!(differs(old, new), said, "{old} | {new}");
        }
        assert_eq!(differs(&one, "[").as_deref(), Some("has changed, and is no TOML"));
    }
}
