//! The files of the repository, read once and handed to every check.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// Folders that hold nothing of ours. Other folders that begin with a dot are read.
const SKIPPED: &[&str] = &[".git", "target", "node_modules"];

/// Path below the top folder, with `/`, to text. A file that is not text reads as empty.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads everything below `root`.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    /// A tree that exists in a test only.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self {
            files: files.collect(),
        }
    }

    /// Every file, in order of path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The Rust sources.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether `path` is a file or a folder with a file in it. The empty path is the top folder.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self
                .files
                .range(folder.clone()..)
                .next()
                .is_some_and(|(p, _)| p.starts_with(&folder))
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> anyhow::Result<()> {
        let entries =
            fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            let path = format!("{prefix}{name}");
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                self.read_folder(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() {
                // A file may vanish between the listing and the reading, as editors' files do.
                let bytes = fs::read(entry.path()).unwrap_or_default();
                self.files
                    .insert(path, String::from_utf8(bytes).unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// The part of a Rust file that is not tests: what stands above its test module, and nothing of a
/// file that is test code as a whole.
pub(crate) fn without_tests(text: &str) -> &str {
    let mut offset = 0;
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().copied().unwrap_or_default();
        let tests_follow = line.trim_end() == "#[cfg(test)]" && next.starts_with("mod tests");
        if tests_follow || line.trim_end() == "#![cfg(test)]" {
            return text.get(..offset).unwrap_or(text);
        }
        offset += line.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_and_a_mere_prefix_is_not() {
        let tree = Tree::of(&[("docs/a.md", ""), ("docs/b/c.md", "")]);
        assert!(tree.holds("docs") && tree.holds("docs/b") && tree.holds("docs/a.md"));
        assert!(!tree.holds("doc") && !tree.holds("docs/c.md"));
    }

    #[test]
    fn build_output_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["target/debug", "src", ".ci"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
            fs::write(folder.path().join(path).join("file"), "text").unwrap();
        }
        let tree = Tree::read(folder.path()).unwrap();
        let paths: Vec<&str> = tree.files().map(|(path, _)| path).collect();
        assert_eq!(paths, [".ci/file", "src/file"]);
    }

    #[test]
    fn only_the_test_module_at_the_foot_is_left_out() {
        let file = "fn a() {}\n#[cfg(test)]\nuse b;\nfn c() {}\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(
            without_tests(file),
            "fn a() {}\n#[cfg(test)]\nuse b;\nfn c() {}\n"
        );
        assert_eq!(
            without_tests("//! All tests.\n#![cfg(test)]\nfn a() {}\n"),
            "//! All tests.\n"
        );
    }
}
