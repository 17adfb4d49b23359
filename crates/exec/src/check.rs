//! What is checked before a process exists: which file runs, and where its paths lead.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, accessat, fstat, openat, openat2,
    statat,
};
use rustix::io::Errno;

/// Finds the file to run: as it stands when it has a slash (a relative one is beneath `root`),
/// else the first executable of that name in `search`. An error says what is missing.
pub(crate) fn program(name: &str, root: &Path, search: &[PathBuf]) -> Result<PathBuf, String> {
    if name.is_empty() {
        return Err("the program has no name".to_owned());
    }
    if name.contains('/') {
        return executable(&root.join(name));
    }
    let mut refused = None;
    // A relative entry would look wherever the tool works, which is where it may write.
    for directory in search.iter().filter(|directory| directory.is_absolute()) {
        let candidate = directory.join(name);
        match executable(&candidate) {
            Ok(found) => return Ok(found),
            Err(reason) if candidate.exists() => drop(refused.get_or_insert(reason)),
            Err(_) => {}
        }
    }
    let path = std::env::join_paths(search).unwrap_or_default();
    Err(refused.unwrap_or_else(|| format!("{name} was not found in PATH {}", path.display())))
}

/// Refuses what `execvp` would hand to `/bin/sh`: a file that is neither ELF nor `#!`.
fn executable(path: &Path) -> Result<PathBuf, String> {
    let fail = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let meta = path.metadata().map_err(|error| fail(&error))?;
    if !meta.is_file() {
        return Err(fail(&"not a file"));
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())
        .map_err(|_| fail(&"not executable by this user"))?;
    let mut head = Vec::new();
    // What we may execute but not read, a shell could not read either.
    if let Ok(file) = File::open(path) {
        file.take(4).read_to_end(&mut head).map_err(|error| fail(&error))?;
        if !head.starts_with(b"\x7fELF") && !head.starts_with(b"#!") {
            return Err(fail(&"neither a binary nor a script with an interpreter line"));
        }
    }
    Ok(path.to_owned())
}

/// Each is an existing regular file, itself no symbolic link, that not everybody can read.
pub(crate) fn credentials(root: &Path, paths: &[String]) -> Result<(), String> {
    for path in paths {
        let shown = countersign_core::text::reveal(path);
        let found = std::fs::symlink_metadata(root.join(path))
            .map_err(|error| format!("the credential file {shown}: {error}"))?;
        if !found.is_file() {
            return Err(format!("the credential file {shown} is no regular file"));
        }
        if found.mode() & 0o004 != 0 {
            return Err(format!("everybody can read the credential file {shown}"));
        }
    }
    Ok(())
}

/// Checks that every path leads to something beneath `root`, or to where something may be
/// created. An error names the first that does not.
///
/// It holds when it is checked. The tool opens the path again, and whoever can write beneath
/// `root` can put a symlink there in between. Mounts and hard links count as beneath.
pub(crate) fn paths(root: &Path, paths: &[String]) -> Result<(), String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_fd = openat(CWD, root, flags, Mode::empty())
        .map_err(|error| format!("root {}: {error}", root.display()))?;
    for path in paths {
        let result = match beneath(&root_fd, path, open_resolved) {
            // An old kernel, or a filter that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => beneath(&root_fd, path, open_walked),
            result => result,
        };
        result.map_err(|error| match error {
            Errno::XDEV | Errno::LOOP => format!("path {path:?} leads out of the root"),
            Errno::INVAL => format!("path {path:?} is not a plain relative path"),
            error => format!("path {path:?}: {error}"),
        })?;
    }
    Ok(())
}

/// Opens what is beneath `root` to refer to it, not to read it.
pub(crate) fn open_beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    match open_resolved(root, path) {
        Err(Errno::NOSYS | Errno::PERM) => open_walked(root, path),
        result => result,
    }
}

type Open = fn(&OwnedFd, &Path) -> Result<OwnedFd, Errno>;

fn beneath(root: &OwnedFd, path: &str, open: Open) -> Result<(), Errno> {
    let path = Path::new(path);
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.as_os_str().is_empty() || !path.components().all(plain) {
        return Err(Errno::INVAL);
    }
    // From the whole path up to its deepest directory that exists.
    let mut missing = None;
    for prefix in path.ancestors() {
        let prefix = if prefix.as_os_str().is_empty() { Path::new(".") } else { prefix };
        match open(root, prefix) {
            Ok(found) => {
                return match missing {
                    None => Ok(()),
                    // It did not open for want of a target, so an entry here is a dangling link.
                    Some(name) => match statat(&found, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Err(Errno::NOENT) => Ok(()),
                        Ok(_) => Err(Errno::LOOP),
                        Err(error) => Err(error),
                    },
                };
            }
            Err(Errno::NOENT) => missing = prefix.file_name(),
            Err(error) => return Err(error),
        }
    }
    Err(Errno::NOENT)
}

/// Follows symlinks that stay beneath `root`.
fn open_resolved(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut result = Err(Errno::AGAIN);
    // EAGAIN: something was renamed meanwhile, and the kernel cannot tell.
    for _ in 0..8 {
        result = openat2(root, path, flags, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// Follows no symlink at all: stricter, for want of better.
fn open_walked(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(root, ".", flags, Mode::empty())?;
    for part in path.components() {
        at = openat(&at, part.as_os_str(), flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&at)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        for (target, link) in [
            ("sub", "inside"),
            ("../secret", "outside"),
            ("/etc", "absolute"),
            ("nowhere", "dangling"),
            ("../new", "dangling_outside"),
            ("loop", "loop"),
            ("../..", "sub/up"),
            ("/proc/self/root", "magic"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        dir
    }

    #[test]
    fn credentials_are_regular_files_that_not_everybody_can_read() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = dir.path().join(name);
            std::fs::write(&path, "secret").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("own", 0o600);
        file("group", 0o640);
        file("open", 0o644);
        symlink("own", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        for (path, good) in [
            ("own", true),
            ("group", true),
            ("open", false),
            ("link", false),
            ("folder", false),
            ("missing", false),
        ] {
            let found = credentials(dir.path(), &[path.to_owned()]);
            assert_eq!(found.is_ok(), good, "{path}: {found:?}");
        }
    }

    #[test]
    fn paths_stay_beneath_the_root() {
        let dir = root();
        let root = dir.path().join("root");
        let fd: OwnedFd = File::open(&root).unwrap().into();
        // path, followed, walked
        for (path, resolved, walked) in [
            ("file", true, true),
            (".", true, true),
            ("./sub//deep/", true, true),
            ("sub/new", true, true),
            ("sub/new/newer", true, true),
            ("new", true, true),
            ("inside", true, false),
            ("inside/new", true, false),
            ("outside", false, false),
            ("absolute", false, false),
            ("absolute/passwd", false, false),
            ("dangling", false, false),
            ("dangling/new", false, false),
            ("dangling_outside", false, false),
            ("loop", false, false),
            ("sub/up", false, false),
            ("sub/up/secret", false, false),
            ("magic/etc", false, false),
            ("file/new", false, false),
            ("", false, false),
            ("..", false, false),
            ("sub/..", false, false),
            ("new/../../secret", false, false),
            ("/etc/passwd", false, false),
            ("nul\0", false, false),
        ] {
            assert_eq!(beneath(&fd, path, open_resolved).is_ok(), resolved, "resolved {path:?}");
            assert_eq!(beneath(&fd, path, open_walked).is_ok(), walked, "walked {path:?}");
            assert_eq!(paths(&root, &[path.to_owned()]).is_ok(), resolved, "{path:?}");
        }
    }

    #[test]
    fn the_program_is_found_or_the_reason_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text, mode) in [
            ("tool", "#!/bin/true\n", 0o755),
            ("plain", "#!/bin/true\n", 0o644),
            ("shell", "echo hello\n", 0o755),
        ] {
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(at("directory")).unwrap();
        let search = [PathBuf::from("."), PathBuf::from("/nonexistent"), dir.path().to_owned()];
        let find = |name: &str| program(name, dir.path(), &search);
        assert_eq!(find("tool"), Ok(at("tool")));
        assert_eq!(find("./tool"), Ok(at("./tool")));
        assert_eq!(find("/bin/sh"), Ok(PathBuf::from("/bin/sh")));
        for (name, reason) in [
            ("missing", "missing was not found in PATH .:/nonexistent:"),
            ("plain", "not executable"),
            ("shell", "interpreter line"),
            ("directory", "not a file"),
            ("./missing", "No such file"),
            ("", "no name"),
            ("to\0ol", "not found"),
        ] {
            let found = find(name);
            assert!(found.as_ref().is_err_and(|text| text.contains(reason)), "{name}: {found:?}");
        }
        assert!(program("tool", dir.path(), &[PathBuf::from(".")]).is_err());
    }
}
