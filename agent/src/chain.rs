//! Prints an error with all its causes: messages never repeat their source, so the chain is told whole.

use std::error::Error;
use std::fmt;

/// `err`, then each cause, joined by `: `, on one line. Libraries that print their own cause are not told twice.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line = |err: &dyn Error| err.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let mut told = one_line(self.0);
        let mut cause = self.0.source();
        while let Some(err) = cause {
            let text = one_line(err);
            if !told.contains(&text) {
                told.push_str(": ");
                told.push_str(&text);
            }
            cause = err.source();
        }
        f.write_str(&told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn every_cause_is_told_once_and_on_one_line() {
        let cause = Box::new(Link { text: "connection\n  refused", source: None });
        let library = Box::new(Link { text: "ask: connection refused", source: Some(cause) });
        let ours = Link { text: "list repository", source: Some(library) };
        assert_eq!(Chain(&ours).to_string(), "list repository: ask: connection refused");
    }
}
