//! Wire to model and back. Everything that comes in is checked here, and every fault in a message is named at once.
//!
//! Invariants, each a test in `tests/convert.rs`:
//! * `arbitrary_bytes_never_panic`: whatever decodes is either accepted or refused with its fields named.
//! * `a_node_view_survives_the_wire`.
//! * `unspecified_is_refused`: the zero of every enum means that the sender forgot it.
//! * `a_position_that_was_left_out_is_refused`: no transaction at all has a word on the wire.
//!
//! Not here: comparing a request with this node's state (`agent::api::target`).

mod backup;
mod cluster;
mod engine;
mod member;
mod node;
mod operation;
mod peer;
mod reply;
mod request;
mod rule;
mod volume;

use std::fmt;
use std::str::FromStr;

use holdfast_model::{GtidSet, Position, Term};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::refusal::DOMAIN;

/// A GTID set without any transaction. As people write it, it is an empty text, which is also what a field holds that was left
/// out.
const NO_TRANSACTIONS: &str = "none";

/// As [`Reader::position`] reads it.
fn position_to_wire(position: &Position) -> String {
    match position {
        Position::Gtids(set) if set.is_empty() => NO_TRANSACTIONS.to_owned(),
        Position::Gtids(_) | Position::Lsn(_) => position.to_string(),
    }
}

/// One field that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field, e.g. `target.cluster`.
    pub field: String,
    /// What is wrong and what to use instead.
    pub problem: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// A message that cannot be accepted, with every reason. Sent as `INVALID_ARGUMENT` with `BadRequest` details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message is not valid: {}", list(.0))]
pub struct Invalid(pub Vec<FieldError>);

fn list(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let message = invalid.to_string();
        let mut details = ErrorDetails::new();
        details.set_error_info("INVALID_ARGUMENT", DOMAIN, [] as [(String, String); 0]);
        for error in invalid.0 {
            details.add_bad_request_violation(error.field, error.problem);
        }
        Self::with_error_details(Code::InvalidArgument, message, details)
    }
}

/// A type with a form on the wire.
pub trait Wire: Sized {
    /// Its generated message.
    type Message;

    /// The message that says the same.
    fn to_wire(&self) -> Self::Message;

    /// Reads `message`, noting every fault in `reader`; `None` only if a fault was noted.
    fn read(reader: &mut Reader, message: Self::Message) -> Option<Self>;

    /// Reads a whole message.
    ///
    /// # Errors
    /// Every field that is missing or not valid, at once.
    fn from_wire(message: Self::Message) -> Result<Self, Invalid> {
        let mut reader = Reader::default();
        let read = Self::read(&mut reader, message);
        match read {
            Some(value) if reader.errors.is_empty() => Ok(value),
            Some(_) | None => Err(Invalid(reader.errors)),
        }
    }
}

/// Reads a list without its message, e.g. the `devices` of a plan.
///
/// # Errors
/// As [`Wire::from_wire`]; fields are named below `field`.
pub fn list_from_wire<T: Wire>(field: &'static str, messages: Vec<T::Message>) -> Result<Vec<T>, Invalid> {
    let mut reader = Reader::default();
    let read = reader.list(field, messages);
    match read {
        Some(values) if reader.errors.is_empty() => Ok(values),
        Some(_) | None => Err(Invalid(reader.errors)),
    }
}

/// Reads a message that must be there.
///
/// # Errors
/// As [`Wire::from_wire`]; fields are named below `field`.
pub fn required_from_wire<T: Wire>(field: &'static str, message: Option<T::Message>) -> Result<T, Invalid> {
    let mut reader = Reader::default();
    let read = reader.required(field, message);
    match read {
        Some(value) if reader.errors.is_empty() => Ok(value),
        Some(_) | None => Err(Invalid(reader.errors)),
    }
}

/// Where in a message we are, and what was wrong so far.
#[derive(Debug, Default)]
pub struct Reader {
    path: Vec<String>,
    errors: Vec<FieldError>,
}

impl Reader {
    /// Notes a fault in `field` of the message being read.
    pub(crate) fn fault<T>(&mut self, field: &str, problem: impl Into<String>) -> Option<T> {
        let mut path = self.path.join(".");
        if !path.is_empty() && !field.is_empty() {
            path.push('.');
        }
        path.push_str(field);
        self.errors.push(FieldError { field: path, problem: problem.into() });
        None
    }

    fn within<T>(&mut self, step: String, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.path.push(step);
        let value = read(self);
        self.path.pop();
        value
    }

    /// A message that must be there.
    pub(crate) fn required<T: Wire>(
        &mut self,
        field: &'static str,
        message: Option<T::Message>,
    ) -> Option<T> {
        match message {
            Some(message) => self.within(field.to_owned(), |reader| T::read(reader, message)),
            None => self.fault(field, "is missing: it must be set"),
        }
    }

    /// A message that may be left out. The outer `None` is a fault.
    pub(crate) fn optional<T: Wire>(
        &mut self,
        field: &'static str,
        message: Option<T::Message>,
    ) -> Option<Option<T>> {
        match message {
            Some(message) => self.within(field.to_owned(), |reader| T::read(reader, message)).map(Some),
            None => Some(None),
        }
    }

    /// Messages in a row; each is read, also after a fault in another.
    pub(crate) fn list<T: Wire>(&mut self, field: &'static str, messages: Vec<T::Message>) -> Option<Vec<T>> {
        let read: Vec<Option<T>> = messages
            .into_iter()
            .enumerate()
            .map(|(at, message)| self.within(format!("{field}[{at}]"), |reader| T::read(reader, message)))
            .collect();
        read.into_iter().collect()
    }

    /// A state of a `oneof` that must be set to one that this version knows.
    pub(crate) fn state<T>(&mut self, state: Option<T>) -> Option<T> {
        match state {
            Some(state) => Some(state),
            None => self.fault("state", "is missing or not known to this version: set one of its states"),
        }
    }

    /// Text with a shape.
    pub(crate) fn parse<T>(&mut self, field: &'static str, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(err) => self.fault(field, err.to_string()),
        }
    }

    /// Text with a shape that may be left out. The outer `None` is a fault.
    pub(crate) fn parse_optional<T>(&mut self, field: &'static str, text: Option<&str>) -> Option<Option<T>>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        match text {
            Some(text) => self.parse(field, text).map(Some),
            None => Some(None),
        }
    }

    /// A position. One that was left out is a fault, and not the empty set that its text would be.
    pub(crate) fn position(&mut self, field: &'static str, text: &str) -> Option<Position> {
        match text {
            "" => self.fault(field, format!("is missing: use an LSN, a GTID set or '{NO_TRANSACTIONS}'")),
            NO_TRANSACTIONS => Some(Position::Gtids(GtidSet::EMPTY)),
            text => self.parse(field, text),
        }
    }

    /// A position that may be left out. The outer `None` is a fault.
    pub(crate) fn position_optional(
        &mut self,
        field: &'static str,
        text: Option<&str>,
    ) -> Option<Option<Position>> {
        match text {
            Some(text) => self.position(field, text).map(Some),
            None => Some(None),
        }
    }

    /// Texts with a shape; each is read, also after a fault in another.
    pub(crate) fn parse_list<T>(&mut self, field: &'static str, texts: &[String]) -> Option<Vec<T>>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let read: Vec<Option<T>> = texts
            .iter()
            .enumerate()
            .map(|(at, text)| self.within(format!("{field}[{at}]"), |reader| reader.parse("", text)))
            .collect();
        read.into_iter().collect()
    }

    /// Text that must say something.
    pub(crate) fn filled(&mut self, field: &'static str, text: String) -> Option<String> {
        if text.is_empty() { self.fault(field, "is empty: it must be set") } else { Some(text) }
    }

    /// A term, which is never 0.
    pub(crate) fn term(&mut self, field: &'static str, number: u32) -> Option<Term> {
        match Term::new(number) {
            Some(term) => Some(term),
            None => self.fault(field, "is 0: terms count from 1"),
        }
    }

    /// A term that may be left out. The outer `None` is a fault.
    pub(crate) fn term_optional(&mut self, field: &'static str, number: Option<u32>) -> Option<Option<Term>> {
        match number {
            Some(number) => self.term(field, number).map(Some),
            None => Some(None),
        }
    }

    /// 128 bits as exactly 32 lower-case hex digits.
    pub(crate) fn bits_128(&mut self, field: &'static str, text: &str) -> Option<u128> {
        let digits = text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(bits) if digits => Some(bits),
            Ok(_) | Err(_) => self.fault(field, "is not valid: use exactly 32 lower-case hex digits"),
        }
    }

    /// A value of an enum: neither 0 nor one that this version does not know.
    pub(crate) fn choice<E: TryFrom<i32>>(&mut self, field: &'static str, value: i32) -> Option<E> {
        if value == 0 {
            return self.fault(field, "is unspecified: choose a value");
        }
        match E::try_from(value) {
            Ok(choice) => Some(choice),
            Err(_) => self.fault(field, format!("is {value}, which this version does not know")),
        }
    }
}
