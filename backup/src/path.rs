//! Paths inside a backup, and the order in which they come.
//!
//! A backup lists directories before what is in them and siblings by name: the order of a depth-first walk. That
//! order lets two lists be compared as streams, proves that no path comes twice, and shows every parent before its
//! children, with memory for one branch of the tree only.
//!
//! Invariants, each a test below:
//! * `no_path_leads_out_of_the_root`.
//! * `a_list_out_of_order_or_without_its_parents_is_refused`.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

const PATH_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 255;

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {given:?} is not allowed in a backup: {rule}")]
pub struct PathError {
    /// The path.
    pub given: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// A path relative to the root of a backup: one or more names joined by `/`, none of them empty, `.` or `..`.
/// Ordered as a depth-first walk meets paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

impl RelPath {
    /// Checks a path.
    ///
    /// # Errors
    /// Absolute, `.` or `..` within, empty names, NUL or control characters, or too long.
    pub fn new(text: &str) -> Result<Self, PathError> {
        let bad = |rule| Err(PathError { given: text.to_owned(), rule });
        if text.starts_with('/') {
            return bad("it must be relative");
        }
        if text.len() > PATH_BYTES_MAX {
            return bad("it must have at most 1024 bytes");
        }
        if text.chars().any(char::is_control) {
            return bad("it must not hold control characters");
        }
        for name in text.split('/') {
            match name {
                "" => return bad("no part of it may be empty"),
                "." | ".." => return bad("no part of it may be '.' or '..'"),
                _ if name.len() > NAME_BYTES_MAX => return bad("each part must have at most 255 bytes"),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that it is in; `None` directly below the root.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}
impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl TryFrom<String> for RelPath {
    type Error = PathError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}
impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks that paths come in the order of a walk, each once and each below a directory that came before.
#[derive(Debug, Default)]
pub(crate) struct WalkOrder {
    last: Option<RelPath>,
    branch: Vec<String>,
}

impl WalkOrder {
    pub(crate) fn directory(&mut self, path: &RelPath) -> Result<(), PathError> {
        self.file(path)?;
        self.branch.push(path.as_str().to_owned());
        Ok(())
    }

    pub(crate) fn file(&mut self, path: &RelPath) -> Result<(), PathError> {
        let bad = |rule| Err(PathError { given: path.to_string(), rule });
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return bad("it comes twice or out of order");
        }
        let parent = path.parent();
        while self.branch.last().is_some_and(|open| Some(open.as_str()) != parent) {
            self.branch.pop();
        }
        if parent != self.branch.last().map(String::as_str) {
            return bad("it is not below a directory of the backup");
        }
        self.last = Some(path.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        for bad in ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", "./a", "a\0b", "a\nb"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(RelPath::new(&"x".repeat(256)).is_err());
        assert!(RelPath::new(&"x/".repeat(600)).is_err());
        assert_eq!(path("base/1/PG_VERSION").parent(), Some("base/1"));
    }

    #[test]
    fn a_list_out_of_order_or_without_its_parents_is_refused() {
        let mut order = WalkOrder::default();
        order.directory(&path("a")).unwrap();
        order.directory(&path("a/b")).unwrap();
        order.file(&path("a/b/c")).unwrap();
        order.file(&path("a/c")).unwrap();
        order.file(&path("a-b")).unwrap();
        assert!(order.file(&path("a-b")).is_err(), "twice");
        assert!(order.file(&path("a/d")).is_err(), "back into a closed directory");
        assert!(order.file(&path("b/c")).is_err(), "without its parent");
        assert!(order.file(&path("a-b/c")).is_err(), "below a file");
        order.file(&path("c")).unwrap();
    }

    #[test]
    fn a_directory_comes_before_its_content_and_after_smaller_siblings() {
        let mut paths = [path("a-b"), path("a/c"), path("a"), path("a/b/z"), path("a/b")];
        paths.sort();
        assert_eq!(paths.map(String::from), ["a", "a/b", "a/b/z", "a/c", "a-b"]);
    }

    proptest! {
        #[test]
        fn checking_never_panics(text in ".{0,40}") {
            if let Ok(path) = RelPath::new(&text) {
                prop_assert!(!path.as_str().split('/').any(|name| name == ".." || name.is_empty()));
            }
        }
    }
}
