//! Reads fields out of a TOML table and collects every problem instead of stopping at the first.
//!
//! Not here: what the fields mean. See [`super`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use toml::{Table, Value};

/// One thing wrong with the configuration, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The field as `section.name`.
    pub field: String,
    /// What is wrong and how to fix it.
    pub problem: String,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Hands out fields and remembers what was asked for, what was missing and what was wrong.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    table: &'a Table,
    asked: BTreeSet<String>,
    issues: Vec<Issue>,
}

impl<'a> Reader<'a> {
    /// Reads from `table`.
    #[must_use]
    pub(super) const fn new(table: &'a Table) -> Self {
        Self { table, asked: BTreeSet::new(), issues: Vec::new() }
    }

    /// Notes a problem.
    pub(super) fn issue(&mut self, field: &str, problem: impl Into<String>) {
        self.issues.push(Issue { field: field.to_owned(), problem: problem.into() });
    }

    /// The value at `section.name`, if it is there.
    fn raw(&mut self, field: &str) -> Option<&'a Value> {
        self.asked.insert(field.to_owned());
        let (section, name) = field.split_once('.').expect("fields are written section.name");
        self.table.get(section)?.as_table()?.get(name)
    }

    /// An optional text that parses as `T`.
    pub(super) fn optional<T>(&mut self, field: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let text = self.text(field)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(err) => {
                self.issue(field, err.to_string());
                None
            }
        }
    }

    /// A text that must be there and parses as `T`; `hint` says what to write.
    pub(super) fn required<T>(&mut self, field: &str, hint: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        if self.raw(field).is_none() {
            self.issue(field, format!("is missing: {hint}"));
            return None;
        }
        self.optional(field)
    }

    /// An optional text.
    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        match self.raw(field)? {
            Value::String(text) => Some(text.clone()),
            other @ (Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_)) => {
                let kind = other.type_str();
                self.issue(field, format!("must be a text in quotes, not {kind}"));
                None
            }
        }
    }

    /// An optional truth value.
    pub(super) fn flag(&mut self, field: &str, default: bool) -> bool {
        match self.raw(field) {
            None => default,
            Some(Value::Boolean(value)) => *value,
            Some(other) => {
                let kind = other.type_str();
                self.issue(field, format!("must be true or false, not {kind}"));
                default
            }
        }
    }

    /// An optional whole number, at most `most`.
    pub(super) fn number(&mut self, field: &str, default: u32, most: u32) -> u32 {
        let Some(value) = self.raw(field) else { return default };
        match value.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= most) {
            Some(number) => number,
            None => {
                self.issue(field, format!("must be a whole number from 0 to {most}"));
                default
            }
        }
    }

    /// How many tables a list such as `[[cluster.peers]]` holds; their fields are read with [`Self::entry`] as
    /// `section.name[0].field`. Those that are not `known` are told.
    pub(super) fn entries(&mut self, field: &str, known: &[&str]) -> usize {
        let Some(value) = self.raw(field) else { return 0 };
        let tables = value.as_array().filter(|entries| entries.iter().all(Value::is_table));
        let Some(tables) = tables else {
            self.issue(field, format!("must be a list of tables: write [[{field}]] above each"));
            return 0;
        };
        for (at, table) in tables.iter().enumerate() {
            for name in table.as_table().into_iter().flat_map(Table::keys) {
                if !known.contains(&name.as_str()) {
                    let problem = format!("is not a known field: [[{field}]] takes {}", known.join(", "));
                    self.issue(&format!("{field}[{at}].{name}"), problem);
                }
            }
        }
        tables.len()
    }

    /// A field of an entry that must be there and parses as `T`.
    pub(super) fn entry<T>(&mut self, field: &str, hint: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(text) = self.entry_text(field) else {
            self.issue(field, format!("is missing: {hint}"));
            return None;
        };
        match text.parse() {
            Ok(value) => Some(value),
            Err(err) => {
                self.issue(field, err.to_string());
                None
            }
        }
    }

    /// A field of an entry, if it is there; what is no text is an empty one, which parses as nothing.
    pub(super) fn entry_text(&self, field: &str) -> Option<String> {
        let (list, rest) = field.split_once('[')?;
        let (at, name) = rest.split_once("].")?;
        let (section, list) = list.split_once('.')?;
        let entries = self.table.get(section)?.as_table()?.get(list)?.as_array()?;
        let value = entries.get(at.parse::<usize>().ok()?)?.as_table()?.get(name)?;
        Some(value.as_str().unwrap_or_default().to_owned())
    }

    /// An optional TCP port.
    pub(super) fn port(&mut self, field: &str, default: u16) -> u16 {
        match self.raw(field) {
            None => default,
            Some(value) => match value.as_integer().and_then(|n| u16::try_from(n).ok()) {
                Some(port) => port,
                None => {
                    self.issue(field, "must be a port number from 0 to 65535");
                    default
                }
            },
        }
    }

    /// An optional duration such as `200ms` or `2s`, within `least..=most`.
    pub(super) fn duration(
        &mut self,
        field: &str,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        let Some(text) = self.text(field) else { return default };
        match humantime::parse_duration(&text) {
            Ok(value) if (least..=most).contains(&value) => value,
            Ok(_) => {
                let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
                self.issue(field, format!("must lie between {least} and {most}"));
                default
            }
            Err(_) => {
                self.issue(
                    field,
                    format!("{text:?} is no duration: write one such as \"200ms\", \"2s\" or \"5m\""),
                );
                default
            }
        }
    }

    /// An optional list of texts.
    pub(super) fn texts(&mut self, field: &str) -> Vec<String> {
        match self.raw(field) {
            None => Vec::new(),
            Some(Value::Array(values)) => {
                let texts: Vec<_> = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                if texts.len() != values.len() {
                    self.issue(field, "must be a list of texts in quotes");
                }
                texts
            }
            Some(other) => {
                let kind = other.type_str();
                self.issue(field, format!("must be a list of texts in quotes, not {kind}"));
                Vec::new()
            }
        }
    }

    /// An optional table of settings: texts, numbers and truth values, as text.
    pub(super) fn settings(&mut self, field: &str) -> Vec<(String, String)> {
        let Some(value) = self.raw(field) else { return Vec::new() };
        let Value::Table(table) = value else {
            self.issue(field, "must be a table such as { max_connections = \"200\" }");
            return Vec::new();
        };
        let mut settings = Vec::new();
        for (name, value) in table {
            match value {
                Value::String(text) => settings.push((name.clone(), text.clone())),
                Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                    settings.push((name.clone(), value.to_string()));
                }
                Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                    self.issue(&format!("{field}.{name}"), "must be a text, a number or true or false");
                }
            }
        }
        settings
    }

    /// Every problem, those of unknown fields included.
    #[must_use]
    pub(super) fn finish(mut self) -> Vec<Issue> {
        let known: BTreeSet<&str> =
            self.asked.iter().filter_map(|f| f.split_once('.').map(|(s, _)| s)).collect();
        for (section, value) in self.table {
            if !known.contains(section.as_str()) {
                let names: Vec<_> = known.iter().copied().collect();
                let problem = format!("is not a known section: use one of {}", names.join(", "));
                self.issues.push(Issue { field: section.clone(), problem });
                continue;
            }
            let Some(fields) = value.as_table() else {
                let problem = format!("must be a section: write [{section}]");
                self.issues.push(Issue { field: section.clone(), problem });
                continue;
            };
            for name in fields.keys() {
                let field = format!("{section}.{name}");
                if !self.asked.contains(&field) {
                    let prefix = format!("{section}.");
                    let names: Vec<_> = self.asked.iter().filter_map(|f| f.strip_prefix(&prefix)).collect();
                    let problem = format!("is not a known field: [{section}] takes {}", names.join(", "));
                    self.issues.push(Issue { field, problem });
                }
            }
        }
        self.issues
    }
}
