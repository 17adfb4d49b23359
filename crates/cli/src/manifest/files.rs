//! Finding and reading manifests, and what stands beside them: for `countersign manifest`, for
//! the gateway, and for the manifests it takes while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use countersign_manifest::{Diagnostic, FileDiagnostic, MAX_FILE, Manifest, ManifestSet, Severity};
use rustix::fs::{Mode, OFlags};

use crate::args::Beside;

/// What is to be read.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) manifests: BTreeSet<PathBuf>,
    /// Those that the manifests are in, and those that were asked for.
    folders: BTreeSet<PathBuf>,
}

impl Files {
    /// The manifests that are named, and those in the folders that are; then, what is wrong with
    /// the names that lead nowhere.
    pub(crate) fn named(paths: &[PathBuf]) -> (Self, Vec<FileDiagnostic>) {
        let (mut files, mut missing) = (Self::default(), Vec::new());
        for path in paths {
            if let Err(error) = files.add(path) {
                missing.push(unreadable(path, &error));
            }
        }
        (files, missing)
    }

    /// The manifests of one folder.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        files.add_folder(folder)?;
        Ok(files)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        if std::fs::metadata(path)?.is_dir() {
            return self.add_folder(path);
        }
        self.folders.insert(plain(path.parent().unwrap_or(Path::new(""))));
        self.manifests.insert(plain(path));
        Ok(())
    }

    fn add_folder(&mut self, folder: &Path) -> io::Result<()> {
        let folder = plain(folder);
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".clad.toml") {
                self.manifests.insert(path);
            }
        }
        self.folders.insert(folder);
        Ok(())
    }

    /// Every file that is read, for a look at whether one has changed.
    pub(crate) fn all(self) -> BTreeSet<PathBuf> {
        let mut all = self.manifests;
        for folder in &self.folders {
            all.extend(beside(folder, &Beside::default()).into_iter().map(|(_, path)| path));
        }
        all
    }

    /// Reads all of them. What an option names counts as standing beside every manifest.
    pub(crate) fn load(&self, options: &Beside) -> (ManifestSet, Vec<FileDiagnostic>) {
        let mut texts = Vec::new();
        let mut read_from: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (name, path) in self.folders.iter().flat_map(|folder| beside(folder, options)) {
            let name = name.display().to_string();
            texts.push((name.clone(), read(&path).map_err(|found| *found)));
            read_from.insert(name, path);
        }
        for path in &self.manifests {
            let name = path.display().to_string();
            if read_from.get(&name) != Some(path) {
                texts.push((name, read(path).map_err(|found| *found)));
            }
        }
        let (set, mut found) = ManifestSet::load_with(texts, options.allow_parser.iter().cloned());
        for finding in &mut found {
            if let Some(path) = read_from.get(&finding.file) {
                finding.file = path.display().to_string();
            }
        }
        found.dedup();
        (set, found)
    }
}

/// What a folder has beside its manifests: the name by which it belongs to the folder, and the
/// file that is read for it.
fn beside(folder: &Path, options: &Beside) -> Vec<(PathBuf, PathBuf)> {
    let own = |name: &str| {
        let path = folder.join(name);
        there(&path).then(|| (path.clone(), path))
    };
    let instead = |name: &str, path: &PathBuf| vec![(folder.join(name), path.clone())];
    let mut found = match &options.types {
        Some(path) => instead("toolclad.toml", path),
        None => own("toolclad.toml").into_iter().collect(),
    };
    match &options.scope {
        Some(path) => found.extend(instead("scope.toml", path)),
        None => found.extend(["scope.toml", "scope/scope.toml"].into_iter().filter_map(own)),
    }
    found
}

/// Whether somebody has put something there: also what cannot be read, and links into the void.
fn there(path: &Path) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    let dangling = |path: &Path| {
        path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) && path.metadata().is_err()
    };
    match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) if error.kind() == NotFound => path.parent().is_some_and(dangling),
        Err(error) => error.kind() != NotADirectory,
    }
}

/// One spelling for each path: what belongs to a folder is found by the folder's name.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// The text of a file. That there is none is a finding, and hides no other file.
pub(crate) fn read(path: &Path) -> Result<String, Box<FileDiagnostic>> {
    let bytes = match bytes(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(unreadable(path, &"it is no regular file").into()),
        Err(error) => return Err(unreadable(path, &error).into()),
    };
    if bytes.len() > MAX_FILE {
        let message = format!("the file has more than {MAX_FILE} bytes");
        return Err(finding(path, "", "too_large", 0, message).into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default());
        let message = "the file is not UTF-8 from here on".to_owned();
        finding(path, &text, "not_utf8", good, message).into()
    })
}

/// What is in a regular file, and no more than one byte too many.
fn bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // A named pipe would be waited for otherwise, without end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn unreadable(path: &Path, why: &dyn Display) -> FileDiagnostic {
    finding(path, "", "unreadable", 0, format!("the file cannot be read: {why}"))
}

/// The text is laid out by another reader of TOML than the one that manifests are read by; the
/// finding is the latter's, if it has one.
pub(crate) fn no_toml(path: &Path, text: &str, why: &str) -> FileDiagnostic {
    let (_, found) = Manifest::parse("", text);
    match found.into_iter().find(|d| d.code == "syntax") {
        Some(found) => FileDiagnostic::new(&path.display().to_string(), text, found),
        None => finding(path, "", "syntax", 0, why.trim_end().to_owned()),
    }
}

/// Puts a text in the place of a file, whole or not at all. What a link leads to is replaced, and
/// keeps its mode.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = path.canonicalize()?;
    let before = path.metadata()?;
    let mut new = path.clone().into_os_string();
    // No manifest by its name, so that nobody reads half of it.
    new.push(format!(".{}.new", std::process::id()));
    let new = Path::new(&new);
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(text.as_bytes())?;
        // The owner, for those who may; the mode last, since that clears it in part.
        let _ = std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()));
        file.set_permissions(before.permissions())?;
        file.sync_all()?;
        std::fs::rename(new, &path)
    };
    write().inspect_err(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            let _ = std::fs::remove_file(new);
        }
    })
}

pub(crate) fn unwritable(path: &Path, why: &dyn Display) -> FileDiagnostic {
    finding(path, "", "unwritable", 0, format!("the file cannot be written: {why}"))
}

pub(crate) fn finding(
    path: &Path,
    text: &str,
    code: &'static str,
    at: usize,
    message: String,
) -> FileDiagnostic {
    let severity = Severity::Error;
    let diagnostic = Diagnostic { code, severity, span: at..at, message, fix: None };
    FileDiagnostic::new(&path.display().to_string(), text, diagnostic)
}
