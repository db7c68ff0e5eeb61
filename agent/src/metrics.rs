//! The newest view as OpenMetrics text: metrics count what the logs tell.

use holdfast_model::Position;
use holdfast_model::status::{
    BreachesView, DataView, EngineView, NodeView, OperationState, RepositoryView, VolumeView,
};
use holdfast_model::volume::DiskHealth;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

type State = Family<Vec<(String, String)>, Gauge>;

/// Renders `view`.
#[must_use]
pub fn render(view: &NodeView) -> String {
    let mut registry = Registry::with_prefix("holdfast");
    let build = State::default();
    build.get_or_create(&vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    registry.register("build", "The release that runs", build);

    one_hot(&mut registry, "gate", &["closed", "read-only", "open"], view.gate.word(), "What clients may do");
    let health = match &view.volume {
        VolumeView::Mounted { health, .. } => health.word(),
        VolumeView::Unknown
        | VolumeView::Absent { .. }
        | VolumeView::Blank { .. }
        | VolumeView::Unmounted { .. } => "absent",
    };
    let healths = ["absent", "healthy", "stalled", "sick", "gone", "read_only", "shut_down"];
    one_hot(&mut registry, "disk", &healths, health, "How the data disk is doing");
    let engines = ["stopped", "starting", "running", "stopping", "unkillable"];
    one_hot(&mut registry, "engine", &engines, engine_word(&view.engine), "The engine's process");
    let datas =
        ["unknown", "absent", "incomplete", "initialising", "restoring", "ready", "rewinding", "broken"];
    one_hot(&mut registry, "data", &datas, data_word(&view.data), "The data directory");

    if let VolumeView::Mounted { space, .. } = &view.volume {
        bytes(&mut registry, "volume_size", "Capacity of the volume", space.total.bytes());
        bytes(&mut registry, "volume_free", "Free for the engine", space.free.bytes());
    }
    if let DiskHealth::Stalled { for_ms } = stalled(view) {
        number(&mut registry, "disk_stalled_milliseconds", "How long the probe write waits", for_ms);
    }
    if let Some(rule) = &view.rule {
        number(&mut registry, "term", "Term of the newest rule", u64::from(rule.id.term.number()));
    }
    let reachable = matches!(view.repository, RepositoryView::Ready { .. } | RepositoryView::Empty);
    number(&mut registry, "repository_reachable", "Whether the repository answers", u64::from(reachable));
    // Only Postgres counts bytes.
    let lsn = |position: &Option<Position>| position.as_ref().and_then(Position::lsn);
    if let (Some(acked), Some(shipped)) = (lsn(&view.log.acked), lsn(&view.log.shipped)) {
        bytes(
            &mut registry,
            "log_unshipped",
            "Acked log that is not shipped yet",
            acked.bytes_since(shipped),
        );
    }
    number(
        &mut registry,
        "log_shipping_failing",
        "Whether shipping fails now",
        u64::from(view.log.failing.is_some()),
    );
    let running =
        view.operations.iter().filter(|o| matches!(o.state, OperationState::Running { .. })).count();
    number(&mut registry, "operations_running", "Long work under way", running as u64);

    breaches(&mut registry, &view.breaches);

    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        Err(std::fmt::Error) => String::new(),
    }
}

fn breaches(registry: &mut Registry, view: &BreachesView) {
    let counted: Family<Vec<(String, String)>, Counter> = Family::default();
    for (kind, count) in [("cancelled", view.cancelled), ("ended", view.ended)] {
        counted.get_or_create(&vec![("kind".to_owned(), kind.to_owned())]).inc_by(count);
    }
    let help = "Commits that were answered, or became visible, without their acks, since the agent started";
    registry.register("promise_breaches", help, counted);

    let settings = State::default();
    for weakened in &view.weakened {
        let of = |name: &Option<String>| name.clone().unwrap_or_default();
        let labels = [
            ("setting", weakened.setting.clone()),
            ("value", weakened.value.clone()),
            ("role", of(&weakened.role)),
            ("database", of(&weakened.database)),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
        settings.get_or_create(&labels).set(1);
    }
    let help =
        "Settings that let commits be answered without acks; no role is every role, no database every one";
    registry.register("promise_weakened", help, settings);
}

fn stalled(view: &NodeView) -> DiskHealth {
    match &view.volume {
        VolumeView::Mounted { health, .. } => health.clone(),
        VolumeView::Unknown
        | VolumeView::Absent { .. }
        | VolumeView::Blank { .. }
        | VolumeView::Unmounted { .. } => DiskHealth::Healthy,
    }
}

const fn engine_word(engine: &EngineView) -> &'static str {
    match engine {
        EngineView::Stopped { .. } => "stopped",
        EngineView::Starting { .. } => "starting",
        EngineView::Running { .. } => "running",
        EngineView::Stopping { .. } => "stopping",
        EngineView::Unkillable { .. } => "unkillable",
    }
}

const fn data_word(data: &DataView) -> &'static str {
    match data {
        DataView::Unknown => "unknown",
        DataView::Absent => "absent",
        DataView::Incomplete => "incomplete",
        DataView::Initialising => "initialising",
        DataView::Restoring { .. } => "restoring",
        DataView::Ready => "ready",
        DataView::Rewinding { .. } => "rewinding",
        DataView::Broken { .. } => "broken",
    }
}

/// A gauge per state, 1 for the one that holds, so that alerts can name a state.
fn one_hot(registry: &mut Registry, name: &str, states: &[&str], now: &str, help: &str) {
    let family = State::default();
    for state in states {
        family.get_or_create(&vec![("state".to_owned(), (*state).to_owned())]).set(i64::from(*state == now));
    }
    registry.register(format!("{name}_state"), help, family);
}

fn bytes(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register_with_unit(name, help, Unit::Bytes, gauge);
}

fn number(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

#[cfg(test)]
mod tests {
    use holdfast_model::status::Weakened;

    use super::*;
    use crate::api::explain::tests::serving;

    #[test]
    fn a_serving_node_shows_exactly_one_gate_state() {
        let text = render(&serving());
        assert!(text.contains("holdfast_gate_state{state=\"open\"} 1"), "{text}");
        assert!(text.contains("holdfast_gate_state{state=\"closed\"} 0"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn breaches_are_counted_and_what_invites_them_is_named() {
        let weakened = Weakened {
            setting: "synchronous_commit".to_owned(),
            value: "off".to_owned(),
            role: Some("app".to_owned()),
            database: None,
        };
        let breaches = BreachesView { cancelled: 2, ended: 0, weakened: [weakened].into() };
        let text = render(&NodeView { breaches, ..serving() });
        for line in [
            "holdfast_promise_breaches_total{kind=\"cancelled\"} 2",
            "holdfast_promise_breaches_total{kind=\"ended\"} 0",
            "holdfast_promise_weakened{setting=\"synchronous_commit\",value=\"off\",role=\"app\",database=\"\"} 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}: {text}");
        }
    }
}
