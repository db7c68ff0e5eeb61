//! Tables for people: pure functions from model terms to text, without colour, so that they can be cut and grepped.

mod backup;
mod company;
mod explain;
mod status;
mod volume;

pub use backup::{backup_detail, backups, log_status};
pub use company::members;
pub use explain::explanation;
pub use status::{node, operation_line, operations, view_line};
pub use volume::{consent, plan};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn with_header(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = bare();
    table.set_header(header.iter().copied()).add_rows(rows);
    trimmed(&table)
}

fn key_value(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = bare();
    table.add_rows(rows.into_iter().map(|(key, value)| [key.to_owned(), value]));
    trimmed(&table)
}

/// Without the padding at either end of each line.
fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect::<Vec<_>>().join("\n")
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}
