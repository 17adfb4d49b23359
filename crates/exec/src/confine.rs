//! Confines this process, and whatever it becomes or starts, to some files, by Landlock.

use std::os::fd::OwnedFd;
use std::path::Path;

use countersign_core::plan::Filesystem;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::check;

/// Without the rights of this version a tool could still empty files: Linux 6.2.
const NEEDED: ABI = ABI::V3;

/// Where programs and their libraries are, on the usual systems. Missing ones are skipped.
const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];
/// What nearly every program reads to start.
const ALSO: [&str; 5] =
    ["/etc/ld.so.cache", "/etc/localtime", "/dev/zero", "/dev/random", "/dev/urandom"];

/// Whether this machine can confine a tool to the files that its manifest names.
///
/// # Errors
/// Says why it cannot. Then no such tool runs.
pub fn confinement() -> Result<(), String> {
    ruleset().map(drop)
}

/// The rules as one argument of the supervisor; `-` for none.
pub(crate) fn arg(rules: Option<&Filesystem>) -> String {
    match rules {
        None => "-".to_owned(),
        Some(Filesystem { read, write, create }) => json!([read, write, create]).to_string(),
    }
}

/// Binds this process to the rules of [`arg`], with the working directory as their root, and to
/// running `program`. An error means that it must not go on.
pub(crate) fn apply(arg: &str, program: &Path) -> Result<(), String> {
    if arg == "-" {
        return Ok(());
    }
    let bad = || format!("bad rules {arg}");
    let Ok(Value::Array(lists)) = serde_json::from_str(arg) else { return Err(bad()) };
    let [read, write, create] = lists.as_slice() else { return Err(bad()) };
    let seen = AccessFs::ReadFile | AccessFs::ReadDir;
    let changed = seen | AccessFs::WriteFile | AccessFs::Truncate;
    let made = changed
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let mut rules = ruleset()?;
    for path in PROGRAMS {
        if let Ok(found) = open(path) {
            rules = allow(rules, found, seen | AccessFs::Execute).map_err(|e| of(path, &e))?;
        }
    }
    for path in ALSO {
        if let Ok(found) = open(path) {
            rules = allow(rules, found, seen).map_err(|error| of(path, &error))?;
        }
    }
    let null = open("/dev/null").map_err(|error| of("/dev/null", &error))?;
    rules = allow(rules, null, changed).map_err(|error| of("/dev/null", &error))?;
    let shown = program.display().to_string();
    let program = open(program).map_err(|error| of(&shown, &error))?;
    rules = allow(rules, program, AccessFs::ReadFile | AccessFs::Execute)
        .map_err(|error| of(&shown, &error))?;
    let root = open(".").map_err(|error| of("the tool root", &error))?;
    for (list, access) in [(read, seen), (write, changed), (create, made)] {
        let Value::Array(list) = list else { return Err(bad()) };
        for path in list {
            let path = path.as_str().ok_or_else(bad)?;
            let named = |error: &dyn std::fmt::Display| of(&format!("[filesystem] {path}"), error);
            let found = match Path::new(path).is_absolute() {
                true => open(path),
                // Whoever can write beneath the root can put a symlink there.
                false => check::open_beneath(&root, Path::new(path)),
            };
            let found = found.map_err(|error| match error {
                Errno::XDEV | Errno::LOOP => named(&"leads out of the tool root"),
                error => named(&error),
            })?;
            if access.contains(AccessFs::MakeReg) && !is_folder(&found).map_err(|e| named(&e))? {
                return Err(named(&"files can be made in folders only"));
            }
            rules = allow(rules, found, access).map_err(|error| named(&error))?;
        }
    }
    match rules.restrict_self() {
        Ok(status) if status.ruleset == RulesetStatus::FullyEnforced => Ok(()),
        Ok(_) => Err("this kernel does not confine fully, which [filesystem] needs".to_owned()),
        Err(error) => Err(format!("the process cannot be confined: {error}")),
    }
}

fn ruleset() -> Result<RulesetCreated, String> {
    let needed = |error| {
        format!(
            "this kernel cannot confine a tool to files, which [filesystem] needs: Landlock of \
             Linux 6.2 or newer ({error})"
        )
    };
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))
        .and_then(Ruleset::create)
        .map_err(needed)
}

fn open(path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    openat(CWD, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn is_folder(found: &OwnedFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(found)?.st_mode) == FileType::Directory)
}

/// Adds a rule; of a file only the rights that files have.
fn allow(
    rules: RulesetCreated,
    found: OwnedFd,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let access = match is_folder(&found).map_err(|error| error.to_string())? {
        true => access,
        false => access & AccessFs::from_file(NEEDED),
    };
    rules.add_rule(PathBeneath::new(found, access)).map_err(|error| error.to_string())
}

fn of(path: &str, error: &dyn std::fmt::Display) -> String {
    format!("{path}: {error}")
}
