//! The demo's voice: the only place of this crate that prints.

use std::time::Duration;

use tokio::time::Instant;

/// Prints scenes and what happens in them, with the time since the curtain rose.
#[derive(Debug)]
pub struct Narrator {
    start: Instant,
    scene: u32,
}

impl Narrator {
    /// Begins.
    #[must_use]
    pub fn begin() -> Self {
        Self { start: Instant::now(), scene: 0 }
    }

    /// A new scene.
    pub fn scene(&mut self, title: &str) {
        self.scene += 1;
        print(&format!("\n{}. {title}", self.scene));
    }

    /// Something that happens in it.
    pub fn say(&self, what: &str) {
        let elapsed = self.start.elapsed();
        for line in what.trim_end().lines() {
            print(&format!("{:>9}  {line}", stamp(elapsed)));
        }
    }

    /// Something to read as it is: a table, say.
    pub fn show(&self, text: &str) {
        for line in text.trim_end().lines() {
            print(&format!("           {line}"));
        }
    }
}

fn stamp(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

#[expect(clippy::print_stdout, reason = "telling is what the demo is for")]
fn print(line: &str) {
    println!("{line}");
}
