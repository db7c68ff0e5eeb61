//! The second listener: plain, read-only HTTP for kubelets, load balancers and Prometheus, which carry no certificate.
//! Exactly `/livez`, `/readyz`, `/primary`, `/replica` and `/metrics`; everything else is 404.
//!
//! Answers hold one word of the gate and no reasons: who may not read the status may not read it here either.
//!
//! Invariants, each a test below: `a_probe_answers_what_clients_may_do`. That nothing else answers is tested over the
//! wire in `cli/tests/authorisation.rs`.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use holdfast_model::status::{EngineView, Gate, NodeView};
use tokio::sync::watch;

/// The paths that answer.
pub const PATHS: [&str; 5] = ["/livez", "/readyz", "/primary", "/replica", "/metrics"];

/// Renders the metrics in the OpenMetrics text format; must not block.
#[derive(Clone)]
pub struct MetricsText(Arc<dyn Fn() -> String + Send + Sync>);

impl MetricsText {
    /// Asks `render` at each scrape.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }
}

impl fmt::Debug for MetricsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsText")
    }
}

/// A question that a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Whether clients may do anything here.
    Ready,
    /// Whether clients may write here.
    Primary,
    /// Whether this is a replica that clients may read.
    Replica,
}

impl Probe {
    /// The answer for `view`. An engine that does not answer, such as one that waits for acks in the middle of a shutdown,
    /// lets nobody in whatever its gate is.
    #[must_use]
    pub fn holds(self, view: &NodeView) -> bool {
        let EngineView::Running { in_recovery: replays, .. } = view.engine else { return false };
        match (self, &view.gate) {
            (_, Gate::Closed { .. }) => false,
            (Self::Ready, Gate::ReadOnly { .. } | Gate::Open { .. }) => true,
            (Self::Primary, gate) => matches!(gate, Gate::Open { .. }),
            (Self::Replica, Gate::ReadOnly { .. }) => replays,
            (Self::Replica, Gate::Open { .. }) => false,
        }
    }
}

type View = watch::Receiver<Arc<NodeView>>;

/// The five paths over `view`.
pub fn router(view: View, metrics: MetricsText) -> Router {
    let answer = |probe: Probe| {
        move |State(view): State<View>| async move {
            let view = view.borrow();
            let code = if probe.holds(&view) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (code, format!("{}\n", view.gate.word()))
        }
    };
    let render =
        move || async move { ([(header::CONTENT_TYPE, OPENMETRICS)], (metrics.0)()).into_response() };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(answer(Probe::Ready)))
        .route("/primary", get(answer(Probe::Primary)))
        .route("/replica", get(answer(Probe::Replica)))
        .route("/metrics", get(render))
        .with_state(view)
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::explain::tests::serving;
    use holdfast_model::Term;
    use holdfast_model::status::GateClosed;

    #[track_caller]
    fn holds(gate: Gate, in_recovery: bool) -> [bool; 3] {
        let mut view = serving();
        view.gate = gate;
        if let EngineView::Running { in_recovery: replays, .. } = &mut view.engine {
            *replays = in_recovery;
        }
        [Probe::Ready, Probe::Primary, Probe::Replica].map(|probe| probe.holds(&view))
    }

    #[test]
    fn an_engine_that_does_not_answer_serves_nobody() {
        let mut view = serving();
        assert!(Probe::Primary.holds(&view));
        view.engine = EngineView::Starting { pid: 7, since: holdfast_model::Tick::from_millis(0) };
        assert!(![Probe::Ready, Probe::Primary, Probe::Replica].iter().any(|probe| probe.holds(&view)));
    }

    #[test]
    fn a_probe_answers_what_clients_may_do() {
        let term = Term::FIRST;
        assert_eq!(holds(Gate::Closed { why: GateClosed::Starting }, false), [false, false, false]);
        assert_eq!(holds(Gate::Open { term }, false), [true, true, false]);
        assert_eq!(holds(Gate::ReadOnly { term }, true), [true, false, true]);
        assert_eq!(
            holds(Gate::ReadOnly { term }, false),
            [true, false, false],
            "a primary that is nearly full"
        );
    }
}
