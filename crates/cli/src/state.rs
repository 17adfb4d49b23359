//! The state folder: the log key, the principals, and this machine's copies of their tokens.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use countersign_audit::critic::CriticSigner;
use countersign_audit::key::{Handover, LogKey, Signer};
use countersign_core::digest::Digest;
use countersign_ports::entropy::Entropy;
use countersign_server::{Principal, Role};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::{Loaded, PrincipalTable};
use crate::output::Failure;

/// What the folder holds.
pub(crate) struct State {
    /// The log's key; while it hands over to another, both.
    pub(crate) key: Arc<dyn Signer>,
    pub(crate) principals: Vec<Principal>,
    /// The key that signs critics' verdicts, and the one that follows it.
    pub(crate) critic_key: CriticSigner,
    pub(crate) critic_next: Option<CriticSigner>,
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// Opens the folder, and makes whatever is missing in it.
pub(crate) fn open(loaded: &Loaded, entropy: &dyn Entropy) -> Result<State, Failure> {
    let dir = &loaded.state;
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| io(dir, &e))?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(|e| io(dir, &e))?;
    let key = signer(loaded, entropy)?;
    let principals = match loaded.config.principals.as_slice() {
        [] => own_principals(dir, entropy)?,
        tables => tables.iter().map(PrincipalTable::principal).collect(),
    };
    let critic_key = critic_key(loaded, entropy)?;
    let next = dir.join(NEXT_CRITIC_KEY);
    let critic_next = next.exists().then(|| read_critic_key(&next)).transpose()?;
    Ok(State { key, principals, critic_key, critic_next })
}

/// The key that signs now, and beside it the one that was before, for as long as its file is kept:
/// whoever has pinned that one can follow the log until then.
fn signer(loaded: &Loaded, entropy: &dyn Entropy) -> Result<Arc<dyn Signer>, Failure> {
    if loaded.state.join(NEXT_KEY).exists() {
        return Err(Failure::new("a change of the log's key was not finished")
            .hint("`countersign audit key rotate` finishes it"));
    }
    let new = log_key(loaded, entropy)?;
    let old = loaded.state.join(OLD_KEY);
    if !old.exists() {
        return Ok(Arc::new(new));
    }
    Ok(Arc::new(Handover { old: read_key(&old)?, new }))
}

/// The key that follows, before the log has said so.
pub(crate) const NEXT_KEY: &str = "log.key.next";
/// The key before, while both sign.
pub(crate) const OLD_KEY: &str = "log.key.old";
/// The key.
pub(crate) const KEY: &str = "log.key";

pub(crate) fn read_key(path: &Path) -> Result<LogKey, Failure> {
    let text = read_secret(path)?;
    LogKey::parse(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn log_key(loaded: &Loaded, entropy: &dyn Entropy) -> Result<LogKey, Failure> {
    let path = loaded.state.join(KEY);
    if !path.exists() {
        if loaded.database().exists() {
            return Err(Failure::new(format!(
                "{} is missing, and {} was signed with it",
                path.display(),
                loaded.database().display()
            ))
            .hint("put the key back; without it this log cannot be continued, only verified"));
        }
        let mut seed = Zeroizing::new([0u8; 32]);
        entropy.fill(seed.as_mut()).map_err(|error| Failure::of(&error))?;
        let mut name = [0u8; 4];
        entropy.fill(&mut name).map_err(|error| Failure::of(&error))?;
        let key = LogKey::from_seed(&format!("countersign-{}", hex::encode(name)), &seed)
            .map_err(|error| Failure::of(&error))?;
        write_secret(&path, key.to_text().as_bytes())?;
    }
    let key = read_key(&path)?;
    write_public(loaded, &key)?;
    Ok(key)
}

/// Keeps the public key beside the log up to date.
pub(crate) fn write_public(loaded: &Loaded, key: &LogKey) -> Result<(), Failure> {
    let public = loaded.public_key();
    let line = format!("{}\n", key.public());
    if std::fs::read_to_string(&public).ok().as_deref() != Some(&line) {
        std::fs::write(&public, line).map_err(|e| io(&public, &e))?;
    }
    Ok(())
}

/// The key of the chain of verdicts: 64 hex digits, its secret seed.
pub(crate) const CRITIC_KEY: &str = "critic.key";
/// The one that follows, from the next start on.
pub(crate) const NEXT_CRITIC_KEY: &str = "critic.key.next";
/// The public key of the first entry: the one to hold the chain against.
pub(crate) const CRITIC_PUBLIC: &str = "critic.pub";

pub(crate) fn read_critic_key(path: &Path) -> Result<CriticSigner, Failure> {
    let text = read_secret(path)?;
    let mut seed = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(text.trim(), seed.as_mut())
        .map_err(|_| Failure::new(format!("{}: not 64 hexadecimal digits", path.display())))?;
    Ok(CriticSigner::from_seed(&seed))
}

pub(crate) fn write_critic_key(path: &Path, entropy: &dyn Entropy) -> Result<(), Failure> {
    let mut seed = Zeroizing::new([0u8; 32]);
    entropy.fill(seed.as_mut()).map_err(|error| Failure::of(&error))?;
    let text = Zeroizing::new(format!("{}\n", hex::encode(seed.as_ref())));
    write_secret(path, text.as_bytes())
}

fn critic_key(loaded: &Loaded, entropy: &dyn Entropy) -> Result<CriticSigner, Failure> {
    let path = loaded.state.join(CRITIC_KEY);
    let fresh = !path.exists();
    if fresh {
        write_critic_key(&path, entropy)?;
    }
    let key = read_critic_key(&path)?;
    let public = loaded.state.join(CRITIC_PUBLIC);
    if fresh || !public.exists() {
        std::fs::write(&public, format!("{}\n", key.public())).map_err(|e| io(&public, &e))?;
    }
    Ok(key)
}

/// The chain says now that the next key is in force: it takes the place of the old one.
pub(crate) fn critic_handed_over(loaded: &Loaded) -> Result<(), Failure> {
    let (next, key) = (loaded.state.join(NEXT_CRITIC_KEY), loaded.state.join(CRITIC_KEY));
    if next.exists() {
        std::fs::rename(&next, &key).map_err(|e| io(&key, &e))?;
        let dir = &loaded.state;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| io(dir, &e))?;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrincipalsFile {
    principals: Vec<PrincipalTable>,
}

/// Id, name, role, and owner.
type OwnPrincipal = (&'static str, &'static str, Role, Option<&'static str>);

/// Who there is where nobody is configured.
const OWN_PRINCIPALS: [OwnPrincipal; 2] = [
    ("operator", "Operator", Role::Approver, None),
    ("agent", "Agent", Role::Agent, Some("operator")),
];

fn own_principals(dir: &Path, entropy: &dyn Entropy) -> Result<Vec<Principal>, Failure> {
    let path = dir.join("principals.toml");
    if !path.exists() {
        let mut text = String::from(
            "# Made at the first start. Tokens are known here only by their SHA-256; this\n\
             # machine's copies are in credentials/. Move these tables to countersign.toml to\n\
             # change them.\n",
        );
        let credentials = dir.join("credentials");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&credentials)
            .map_err(|e| io(&credentials, &e))?;
        for (id, display, role, owner) in OWN_PRINCIPALS {
            let role = match role {
                Role::Agent => "agent",
                _ => "approver",
            };
            let owner = owner.map(|owner| format!("owner = \"{owner}\"\n")).unwrap_or_default();
            let mut bytes = Zeroizing::new([0u8; 32]);
            entropy.fill(bytes.as_mut()).map_err(|error| Failure::of(&error))?;
            let token = Zeroizing::new(format!("cs_{role}_{}", hex::encode(bytes.as_ref())));
            let digest = Digest::of(token.as_bytes());
            text.push_str(&format!(
                "\n[[principals]]\nid = \"{id}\"\ndisplay = \"{display}\"\nroles = [\"{role}\"]\n\
                 {owner}token_sha256 = [\"{digest}\"]\n"
            ));
            replace_secret(&credentials.join(format!("{role}.token")), token.as_bytes())?;
        }
        write_secret(&path, text.as_bytes())?;
    }
    read_principals(&path)
}

/// The principals as they are or would be at the next start, without making anything.
pub(crate) fn principals(loaded: &Loaded) -> Result<Vec<Principal>, Failure> {
    let path = loaded.state.join("principals.toml");
    if !loaded.config.principals.is_empty() {
        return Ok(loaded.config.principals.iter().map(PrincipalTable::principal).collect());
    }
    if path.exists() {
        return read_principals(&path);
    }
    let table = |(id, display, role, owner): OwnPrincipal| Principal {
        id: id.to_owned(),
        display: display.to_owned(),
        roles: [role].into(),
        owner: owner.map(str::to_owned),
        groups: Default::default(),
        tokens: Vec::new(),
    };
    Ok(OWN_PRINCIPALS.map(table).to_vec())
}

fn read_principals(path: &Path) -> Result<Vec<Principal>, Failure> {
    let text = read_secret(path)?;
    let file: PrincipalsFile = toml::from_str(&text)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Ok(file.principals.iter().map(PrincipalTable::principal).collect())
}

/// This machine's copy of a token, for the command line and the banner.
pub(crate) fn token(state: &Path, role: &str) -> Option<Zeroizing<String>> {
    let path = state.join("credentials").join(format!("{role}.token"));
    let text = read_secret(&path).ok()?;
    Some(Zeroizing::new(text.trim().to_owned()))
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    replace_secret(new, bytes)?;
    std::fs::rename(new, path).map_err(|e| io(path, &e))?;
    // The name must be as durable as the bytes.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| io(dir, &e))
}

fn replace_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| io(path, &e))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(|e| io(path, &e))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| io(path, &e))
}

fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut file = File::open(path).map_err(|e| io(path, &e))?;
    let mode = file.metadata().map_err(|e| io(path, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::new(format!("{} can be read by others", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(|e| io(path, &e))?;
    Ok(text)
}
