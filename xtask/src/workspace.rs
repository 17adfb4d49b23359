//! Where the workspace is, what is in it.

use crate::{Outcome, process};
use cargo_metadata::{Metadata, MetadataCommand, Package};
use std::path::PathBuf;

/// The folder with the workspace's Cargo.toml.
pub(crate) fn root() -> PathBuf {
    // `cargo run` sets the variable, so that a moved checkout works; the compiled-in value is
    // for the binary started by hand.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

/// What cargo knows of the workspace's own crates. Resolves nothing: needs no network and
/// leaves Cargo.lock alone.
pub(crate) fn metadata() -> Outcome<Metadata> {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().map_err(
        |error| format!("cannot read the workspace; does `cargo metadata` work?\n{error}").into(),
    )
}

/// Whether the crate may be published: its Cargo.toml does not say `publish = false`.
pub(crate) fn is_publishable(package: &Package) -> bool {
    package.publish.as_ref().is_none_or(|registries| !registries.is_empty())
}

/// The files git tracks or would track, relative to the root, with `/` between folders,
/// sorted. Files that are deleted but not yet committed are left out, as are links.
pub(crate) fn files() -> Outcome<Vec<String>> {
    let root = root();
    let listed = process::output(process::command("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .map_err(|error| format!("cannot list the files; run this in a git checkout\n{error}"))?;
    let mut files = Vec::new();
    for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(name)
            .map_err(|_| format!("a file name is not UTF-8: {}", String::from_utf8_lossy(name)))?;
        if root.join(name).symlink_metadata().is_ok_and(|found| found.is_file()) {
            files.push(name.to_owned());
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}
