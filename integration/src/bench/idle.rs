//! What an agent costs while nobody does anything: memory and processor time of each of its processes.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::time::{self, Instant};

use super::fault::Medium;
use super::stage::Stage;
use crate::demo::narrator::Narrator;
use crate::footprint::{self, Usage};
use crate::process::is_root;
use crate::scratch::Scratch;

/// What can be chosen.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 15)]
    postgres: u32,
    /// Write the figures as JSON to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// One process. Memory in MiB, processor time in percent of one core.
#[derive(Debug, Clone, Default, Serialize)]
struct Figures {
    part: String,
    resident_mib: f64,
    /// What it shares with the others counted once between them.
    proportional_mib: f64,
    cpu_percent: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    seconds: f64,
    processes: Vec<Figures>,
    sum: Figures,
}

/// Has a node serve, leaves it alone, and looks.
///
/// # Errors
/// No root, or the node does not come to serve.
pub async fn run(options: &Options) -> Result<()> {
    ensure!(is_root(), "loop devices need root");
    let mut narrator = Narrator::begin();
    narrator.scene("An agent that has nothing to do");
    let scratch = Scratch::new()?;
    let stage = Stage::serving(&scratch, Medium::plain(&scratch)?, options.postgres).await?;
    stage.settles().await?;

    let processes = footprint::of_agent(&stage.node)?;
    let before: Vec<Usage> = processes.iter().map(|process| Usage::of(process.pid)).collect::<Result<_>>()?;
    let since = Instant::now();
    time::sleep(Duration::from_secs(options.seconds)).await;
    let seconds = since.elapsed().as_secs_f64();
    let mut figures = Vec::new();
    for (process, before) in processes.iter().zip(before) {
        let Ok(now) = Usage::of(process.pid) else {
            narrator.say(&format!("{} ended meanwhile", process.part));
            continue;
        };
        figures.push(Figures {
            part: process.part.clone(),
            resident_mib: mib(now.resident_kib),
            proportional_mib: mib(footprint::proportional_kib(process.pid)?),
            cpu_percent: 100.0 * (now.cpu_seconds - before.cpu_seconds) / seconds,
        });
    }
    let total = |of: fn(&Figures) -> f64| figures.iter().map(of).sum();
    let sum = Figures {
        part: "all".to_owned(),
        resident_mib: total(|one| one.resident_mib),
        proportional_mib: total(|one| one.proportional_mib),
        cpu_percent: total(|one| one.cpu_percent),
    };
    narrator.say(&format!("{seconds:.0} s without a client:"));
    narrator.show(&table(figures.iter().chain([&sum])));
    if let Some(file) = &options.report {
        let report = Report { seconds, processes: figures, sum };
        fs::write(file, serde_json::to_string_pretty(&report)?).context("write the report")?;
    }
    stage.daemon.stop().await
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

fn table<'a>(figures: impl Iterator<Item = &'a Figures>) -> String {
    let mut table = String::from(" RSS MiB   PSS MiB     CPU %  process\n");
    for Figures { part, resident_mib, proportional_mib, cpu_percent } in figures {
        writeln!(table, "{resident_mib:>8.1} {proportional_mib:>9.1} {cpu_percent:>9.2}  {part}")
            .expect("a string takes all text");
    }
    table
}
