//! The worker that ships acked log, for as long as this node serves; started by `decide`, observed through [`LogView`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_model::status::{LogView, RepositoryView};
use holdfast_model::{Position, Rule};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{Node, Reconciler};
use crate::chain::Chain;
use crate::jobs::ship::{ShipJob, Shipped};
use crate::jobs::{Access, EnginePlaces};
use crate::worker::{JobEnd, JobHandle, Role};

const START_DEADLINE: Duration = Duration::from_secs(10);
/// Before a worker that failed is started again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The worker, if one runs, and what it said last.
#[derive(Debug, Default)]
pub(super) struct Shipping {
    view: Arc<Mutex<LogView>>,
    task: JoinSet<()>,
}

impl Shipping {
    pub(super) fn view(&self) -> LogView {
        read(&self.view)
    }

    /// Ends the worker: it holds the volume open.
    pub(super) fn stop(&mut self) {
        self.task.abort_all();
        // What the next one ships is another reign, perhaps from another disk.
        set(&self.view, |view| *view = LogView::default());
    }
}

fn read(view: &Mutex<LogView>) -> LogView {
    view.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set(view: &Mutex<LogView>, change: impl FnOnce(&mut LogView)) {
    change(&mut view.lock().unwrap_or_else(PoisonError::into_inner));
}

impl Reconciler {
    pub(super) fn start_shipping(&mut self) {
        let RepositoryView::Ready { cluster, .. } = self.node.repository.borrow().clone() else { return };
        let (Some(access), Some(rule)) = (self.node.access(cluster), self.node.gate.borrow().rule.clone())
        else {
            return;
        };
        while self.shipping.task.try_join_next().is_some() {}
        set(&self.shipping.view, |view| view.running = true);
        let (node, view) = (Arc::clone(&self.node), Arc::clone(&self.shipping.view));
        self.shipping.task.spawn(async move {
            if let Err(err) = ship(&node, access, rule, &view).await {
                let why = Chain(&*err).to_string();
                warn!(error = why, "log shipping ended, starting it again");
                set(&view, |view| view.failing = Some(why));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            set(&view, |view| view.running = false);
            node.wake.notify_one();
        });
    }
}

/// Once when it begins to fail and once when that is over: the text of each failure is a little different.
fn tell(before: &LogView, failing: Option<&str>) {
    match (&before.failing, failing) {
        (None, Some(why)) => warn!(error = why, "log not shipped, trying again"),
        (Some(_), None) => info!("log shipped again"),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn ship(node: &Node, access: Access, rule: Rule, view: &Mutex<LogView>) -> Result<(), AnyError> {
    let interval_ms = u64::try_from(node.config.log_interval.as_millis())?;
    info!(term = %rule.id.term, "shipping log");
    let job = ShipJob { access, engine: EnginePlaces::from(&node.setup.layout), rule, interval_ms };
    let worker = node.helper.start_worker(Role::Ship, START_DEADLINE).await?;
    let handle = JobHandle::start(worker, &job, START_DEADLINE).await?;
    loop {
        match handle.next().await? {
            JobEnd::Done(_) => return Ok(()),
            JobEnd::Note(note) => {
                let Shipped { shipped, acked, failing } = serde_json::from_value(note)?;
                tell(&read(view), failing.as_deref());
                let (shipped, acked) = (shipped.map(Position::from), acked.map(Position::from));
                set(view, |view| *view = LogView { running: true, shipped, acked, failing });
            }
        }
    }
}
