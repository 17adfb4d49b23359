//! Compares published fixtures with the commit in which they were published. Regenerating a
//! fixture and correcting it by hand look the same here: both are refused.

use super::Report;
use crate::{Outcome, diff, process, terminal};
use std::path::Path;
use std::process::Command;

const MAIN: [&str; 2] = ["refs/remotes/origin/main", "refs/heads/main"];

/// Holds the work tree against the published commit. A commit that cannot be found is a
/// remark, and on a build server an error.
pub(super) fn check(root: &Path, build_server: bool) -> Outcome<Report> {
    let (commit, what) = match base(root) {
        Base::Commit(commit, what) => (commit, what),
        Base::Nothing => {
            let summary = "published fixtures: none, this is the first commit".to_owned();
            return Ok(Report { summary, problems: Vec::new() });
        }
        Base::Unknown(why) if build_server => {
            return Err(format!("contract: cannot compare published fixtures: {why}").into());
        }
        Base::Unknown(why) => {
            let summary = format!("published fixtures: NOT COMPARED: {why}");
            return Ok(Report { summary, problems: Vec::new() });
        }
    };
    let mut problems = Vec::new();
    let files = published(root, &commit)?;
    for (path, blob) in &files {
        let old = git_bytes(root, &["cat-file", "blob", blob])?;
        match std::fs::read(root.join(path)) {
            Ok(new) if new == old => {}
            Ok(new) => problems.push(format!(
                "{path}: is published and has changed; restore it and add a new version beside \
                 it (- is on disk, + was published)\n{}",
                difference(&new, &old).trim_end()
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => problems.push(format!(
                "{path}: is published and is gone; restore it and add a new version beside it"
            )),
            Err(error) => return Err(format!("cannot read {path}: {error}").into()),
        }
    }
    let short = commit.get(..10).unwrap_or(&commit);
    let files = terminal::count(files.len(), "published fixture");
    let summary = if problems.is_empty() {
        format!("{files}, as in {short}, {what}")
    } else {
        format!("{files} in {short}, {what}; {} changed or gone", problems.len())
    };
    Ok(Report { summary, problems })
}

/// What the fixtures are held against.
enum Base {
    /// A commit, and what it is.
    Commit(String, &'static str),
    /// The repository begins with HEAD: nothing can have been published before.
    Nothing,
    /// Nobody can say, and why.
    Unknown(&'static str),
}

fn base(root: &Path) -> Base {
    let commit = |name: &str| {
        git(root, &["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
    };
    let Some(head) = commit("HEAD") else {
        return Base::Unknown("there is no git repository with a commit");
    };
    let parent = commit("HEAD^1");
    let shallow =
        git(root, &["rev-parse", "--is-shallow-repository"]).is_none_or(|word| word != "false");
    if parent.is_none() && !shallow {
        return Base::Nothing;
    }
    let Some(main) = MAIN.into_iter().find_map(commit) else {
        return Base::Unknown("there is neither origin/main nor main; fetch the main branch");
    };
    match git(root, &["merge-base", &head, &main]) {
        Some(base) if base != head => Base::Commit(base, "where this branch left main"),
        Some(_) => match parent {
            Some(parent) => Base::Commit(parent, "the commit before this one"),
            None => Base::Unknown("the clone is shallow; fetch the history"),
        },
        None if shallow => Base::Unknown("the clone is shallow; fetch the history"),
        None => Base::Unknown("HEAD and main have no commit in common"),
    }
}

/// The versioned fixtures of a commit: path and blob.
fn published(root: &Path, commit: &str) -> Outcome<Vec<(String, String)>> {
    let listed =
        git_bytes(root, &["ls-tree", "-r", "-z", "--full-tree", commit, "--", "fixtures/"])?;
    let mut files = Vec::new();
    for entry in listed.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        // `100644 blob 5716ca…\tfixtures/a/v1/b.json`
        let entry = String::from_utf8_lossy(entry);
        let Some((about, path)) = entry.split_once('\t') else {
            return Err(format!("cannot read what git lists: {entry}").into());
        };
        if let ["100644" | "100755", "blob", blob] = about.split(' ').collect::<Vec<_>>()[..]
            && is_versioned(path)
        {
            files.push((path.to_owned(), blob.to_owned()));
        }
    }
    Ok(files)
}

/// Whether one of the file's folders is a version, `v1` or `v27`.
pub(super) fn is_versioned(path: &str) -> bool {
    let Some((folders, _)) = path.rsplit_once('/') else { return false };
    folders.split('/').any(|folder| {
        folder
            .strip_prefix('v')
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// JSON is compared one member a line: a record of two thousand characters on one line is no
/// readable difference.
fn difference(on_disk: &[u8], wanted: &[u8]) -> String {
    match (pretty(on_disk), pretty(wanted)) {
        (Some(new), Some(old)) if new != old => diff::lines(&new, &old),
        _ => diff::bytes(on_disk, wanted),
    }
}

fn pretty(bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<serde_json::Value>() {
        text.push_str(&serde_json::to_string_pretty(&value.ok()?).ok()?);
        text.push('\n');
    }
    Some(text)
}

/// One line that git prints; `None` when git fails.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let said = git_bytes(root, arguments).ok()?;
    String::from_utf8(said).ok().map(|line| line.trim_end().to_owned())
}

fn git_bytes(root: &Path, arguments: &[&str]) -> Outcome<Vec<u8>> {
    process::output(git_at(root).args(arguments))
}

/// Git in a folder. A git hook that runs this program names its own repository in variables;
/// the folder alone decides here.
fn git_at(folder: &Path) -> Command {
    let mut command = process::command("git");
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("GIT_")) {
            command.env_remove(&name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A git repository that is removed with this value.
    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new() -> Self {
            let repository = Self(tempfile::tempdir().unwrap());
            repository.git(&["init", "--quiet", "--initial-branch=main"]);
            repository
        }

        fn root(&self) -> PathBuf {
            self.0.path().to_owned()
        }

        fn git(&self, arguments: &[&str]) {
            let settings =
                ["user.name=Test", "user.email=test@countersign.example", "commit.gpgsign=false"];
            let mut command = git_at(self.0.path());
            command.args(settings.iter().flat_map(|setting| ["-c", setting]));
            process::output(command.args(arguments)).unwrap();
        }

        fn write(&self, path: &str, text: &str) {
            let at = self.0.path().join(path);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, text).unwrap();
        }

        fn remove(&self, path: &str) {
            std::fs::remove_file(self.0.path().join(path)).unwrap();
        }

        fn commit(&self, files: &[(&str, &str)]) {
            for (path, text) in files {
                self.write(path, text);
            }
            self.git(&["add", "--all"]);
            self.git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
        }

        /// `problems` are the starts of what is found.
        fn check(&self, summary: &str, problems: &[&str]) {
            let report = check(&self.root(), true).unwrap();
            assert!(report.summary.contains(summary), "{} / {summary}", report.summary);
            assert_eq!(report.problems.len(), problems.len(), "{:#?}", report.problems);
            for (found, start) in report.problems.iter().zip(problems) {
                assert!(found.starts_with(start), "{found:?} should begin with {start:?}");
            }
        }
    }

    const ONE: (&str, &str) = ("fixtures/a/v1/one.json", "{\"a\":1,\"b\":2}\n");
    const TWO: (&str, &str) = ("fixtures/a/v1/deep/two.txt", "two\n");
    const LOOSE: (&str, &str) = ("fixtures/api/core.txt", "pub mod core\n");

    #[test]
    fn a_branch_may_add_and_nothing_else() {
        let repository = Repository::new();
        repository.commit(&[ONE, TWO, LOOSE]);
        repository.git(&["checkout", "--quiet", "-b", "work"]);
        repository.commit(&[("fixtures/a/v2/one.json", "{}\n"), ("fixtures/a/v1/more.json", "{}")]);
        repository.write(LOOSE.0, "pub mod other\n");
        repository.check("2 published fixtures, as in ", &[]);

        repository.write(ONE.0, "{\"a\":1,\"b\":3}\n");
        repository.remove(TWO.0);
        repository.check(
            "where this branch left main; 2 changed or gone",
            &[
                "fixtures/a/v1/deep/two.txt: is published and is gone; restore it and add a new \
                 version beside it",
                "fixtures/a/v1/one.json: is published and has changed; restore it and add a new \
                 version beside it (- is on disk, + was published)\n        \
                 1   {\n        2     \"a\": 1,\n        3 -   \"b\": 3\n        3 +   \"b\": 2",
            ],
        );
        // Committing makes it no better, and what main does meanwhile makes it no worse.
        repository.commit(&[]);
        repository.git(&["checkout", "--quiet", "main"]);
        repository.commit(&[("fixtures/b/v1/c.json", "{}")]);
        repository.git(&["checkout", "--quiet", "work"]);
        repository.check("2 changed or gone", &["fixtures/a/v1/deep", "fixtures/a/v1/one"]);
    }

    #[test]
    fn main_is_compared_with_the_commit_before() {
        let repository = Repository::new();
        repository.commit(&[ONE]);
        repository.check("none, this is the first commit", &[]);
        repository.commit(&[TWO]);
        repository.check("1 published fixture, as in ", &[]);
        repository.commit(&[(ONE.0, "{\"b\":2,\"a\":1}\n")]);
        repository
            .check("the commit before this one; 1 changed", &["fixtures/a/v1/one.json: is pub"]);
    }

    #[test]
    fn layout_alone_is_a_change() {
        let repository = Repository::new();
        repository.commit(&[ONE]);
        repository.commit(&[(ONE.0, "{\"a\":1, \"b\":2}\n")]);
        let problem = "fixtures/a/v1/one.json: is published and has changed; restore it and add a \
                       new version beside it (- is on disk, + was published)\n";
        let lines = "        1 - {\"a\":1, \"b\":2}\n        1 + {\"a\":1,\"b\":2}";
        repository.check("1 changed", &[&format!("{problem}{lines}")]);
        repository.commit(&[ONE]);
        repository.commit(&[(ONE.0, "{\"a\":1,\"b\":2}")]);
        repository.check("1 changed", &[problem]);
    }

    #[test]
    fn a_build_server_needs_the_history() {
        let refused = |root: &Path, why: &str| {
            let error = check(root, true).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(why), "{error:?} should contain {why:?}");
            let report = check(root, false).unwrap();
            assert!(report.summary.contains("NOT COMPARED"), "{}", report.summary);
            assert!(report.problems.is_empty());
        };
        let origin = Repository::new();
        origin.commit(&[ONE]);
        origin.commit(&[TWO]);

        let at = tempfile::tempdir().unwrap();
        let clone = |name: &str, options: &[&str]| {
            let from = format!("file://{}", origin.root().display());
            let mut command = git_at(at.path());
            command.args(["clone", "--quiet"]).args(options).args([from.as_str(), name]);
            process::output(&mut command).unwrap();
            at.path().join(name)
        };
        refused(&clone("shallow", &["--depth=1"]), "shallow");
        let whole = clone("whole", &[]);
        assert!(check(&whole, true).unwrap().summary.contains("1 published fixture, as in"));

        origin.git(&["branch", "--move", "main", "trunk"]);
        refused(&origin.root(), "neither origin/main nor main");
        refused(at.path(), "no git repository");
    }

    #[test]
    fn a_version_is_a_folder() {
        for (path, expected) in [
            ("fixtures/a/v1/b.json", true),
            ("fixtures/a/v27/b/c.json", true),
            ("fixtures/v1", false),
            ("fixtures/a/v1.json", false),
            ("fixtures/a/v/b.json", false),
            ("fixtures/a/v1a/b.json", false),
            ("fixtures/a/b.json", false),
        ] {
            assert_eq!(is_versioned(path), expected, "{path}");
        }
    }
}
