//! Evidence, for people: written to the ledger and put into the repository. Nobody waits for the latter: what cannot be kept now
//! is tried again for a while.
//!
//! The certificate of a promotion is kept by whoever coordinated it and by whoever was promoted, which are two nodes, or one and
//! somebody from outside. Every other node reads it from the repository when somebody asks.

use std::time::Duration;

use holdfast_model::status::RepositoryView;
use holdfast_model::{ClusterId, Position, Term};
use holdfast_replication::account::LossCertificate;
use holdfast_replication::choose::Certificate;
use holdfast_replication::promise::Attempt;
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::coordinate::newest_rule;
use crate::chain::Chain;
use crate::clock;
use crate::jobs::Access;
use crate::ledger::{Ledger, LedgerError, NewReign};
use crate::reconcile::Node;

/// Between two tries. A primary's zone that is lost takes a store with it that is to come back, too.
const AGAIN_AFTER: Duration = Duration::from_secs(15);
/// An hour.
const TRIES: u32 = 240;
/// For a look into the repository while somebody waits for an explanation.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
const CERTIFICATE: &str = "certificate";

/// Where evidence goes.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    /// None without a repository, or before the volume belongs to a cluster.
    access: Option<Access>,
    ledger: Ledger,
    tasks: TaskTracker,
}

impl Shelf {
    /// Keeps what a promotion is decided on, before it is. A node that cannot write it down goes on: the promise is elsewhere.
    pub(super) fn keep_certificate(&self, certificate: Certificate<Position>) {
        let Attempt { term, id } = certificate.attempt;
        let loss = LossCertificate::new(certificate, clock::wall_clock());
        if let Err(err) = self.remember(&loss) {
            warn!(error = %Chain(&err), %term, "loss certificate not written down");
        }
        self.keep(term, format!("{CERTIFICATE}-{id:032x}"), loss);
    }

    /// Writes it down unless it is known, or older than what is.
    fn remember(&self, loss: &LossCertificate) -> Result<(), LedgerError> {
        let known = self.ledger.load::<NewReign>()?.map(|known| known.loss.certificate.attempt);
        let attempt = loss.certificate.attempt;
        if known.is_some_and(|known| known == attempt || known.term > attempt.term) {
            return Ok(());
        }
        self.ledger.store(&NewReign { loss: loss.clone() })
    }

    /// Keeps `evidence` of something that happens as `term` begins. What is there of that name stays.
    pub(super) fn keep<T: Serialize + Send + Sync + 'static>(&self, term: Term, what: String, evidence: T) {
        let Some(access) = self.access.clone() else { return };
        self.tasks.spawn(async move {
            for tried in 1..=TRIES {
                let Err(err) = put(&access, term, &what, &evidence).await else { return };
                // Said once: what follows is told by the repository's own state.
                if tried == 1 {
                    warn!(error = %Chain(&*err), %term, what, "evidence not kept in the repository, trying again");
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            warn!(%term, what, "evidence not kept in the repository");
        });
    }
}

async fn put<T: Serialize + Sync>(
    access: &Access,
    term: Term,
    what: &str,
    evidence: &T,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Ok(access.open().await?.keep_evidence(term, what, evidence).await?)
}

impl Node {
    /// The cluster that the volume belongs to.
    pub(super) fn volume_cluster(&self) -> Option<ClusterId> {
        let desk = self.desk.borrow().clone();
        desk.and_then(|desk| desk.facts().identity.cluster_id)
    }

    pub(super) fn shelf(&self) -> Shelf {
        let access = self.volume_cluster().and_then(|cluster| self.access(cluster));
        Shelf { access, ledger: self.ledger.clone(), tasks: self.tasks.clone() }
    }

    /// How the newest reign that is known came about; the newest that can be told of when that one cannot.
    pub(super) async fn newest_certificate(&self) -> Result<Option<LossCertificate>, LedgerError> {
        let known = self.ledger.load::<NewReign>()?.map(|known| known.loss);
        let (term, answers) = {
            let view = self.view.borrow();
            let answers = matches!(view.repository, RepositoryView::Ready { .. });
            (newest_rule(&view).map(|rule| rule.id.term), answers)
        };
        // A cluster's first reign needs none.
        let is_newest =
            known.as_ref().map(|loss| loss.certificate.attempt.term) >= term || term == Some(Term::FIRST);
        let shelf = self.shelf();
        let Some(access) = shelf.access.clone().filter(|_| answers && !is_newest) else { return Ok(known) };
        match timeout(LOOK_WITHIN, Box::pin(look(&access))).await {
            Ok(Ok(Some(found))) => {
                shelf.remember(&found)?;
                Ok(self.ledger.load::<NewReign>()?.map(|known| known.loss))
            }
            Ok(Ok(None)) => Ok(known),
            Ok(Err(err)) => {
                info!(error = %Chain(&*err), "the newest loss certificate cannot be read");
                Ok(known)
            }
            Err(_late) => Ok(known),
        }
    }
}

async fn look(access: &Access) -> Result<Option<LossCertificate>, Box<dyn std::error::Error + Send + Sync>> {
    let found = access.open().await?.newest_evidence::<LossCertificate>(CERTIFICATE).await?;
    Ok(found.map(|(_term, loss)| loss))
}
