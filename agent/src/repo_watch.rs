//! Asks the repository now and then whether it answers and what it holds. Only for people and for filling an empty
//! volume: no commit and no gate waits for it (I12).

use std::time::Duration;

use holdfast_backup::backup::{Backup, CatalogError};
use holdfast_backup::repository::{Found, Location, Repository, RepositoryError};
use holdfast_backup::rules::RuleError;
use holdfast_backup::store::{ConnectError, RepositoryConfig, StoreError};
use holdfast_model::status::RepositoryView;
use holdfast_model::{ClusterName, Term};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chain::Chain;

const WHEN_READY: Duration = Duration::from_secs(60);
const OTHERWISE: Duration = Duration::from_secs(3);
/// All of one look.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// No client could be made.
    #[error("connect to the repository")]
    Connect(#[from] ConnectError),
    /// It does not answer, or refuses.
    #[error("look for the cluster")]
    Find(#[from] RepositoryError),
    /// Its rules cannot be read.
    #[error("read rules")]
    Rules(#[from] RuleError),
    /// Its backups cannot be listed.
    #[error("list backups")]
    List(#[from] StoreError),
    /// A manifest cannot be read.
    #[error("read a backup")]
    Catalog(#[from] CatalogError),
    /// Several clusters have the name.
    #[error("the repository holds several clusters of that name ({0}): give each its own prefix")]
    Several(String),
    /// No answer.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
}

/// The open repository of the cluster of that name, if there is exactly one.
///
/// # Errors
/// [`LookError`].
pub async fn open(config: &RepositoryConfig, name: &ClusterName) -> Result<Option<Repository>, LookError> {
    let location = Location::connect(config)?;
    match location.find(name).await? {
        Found::None => Ok(None),
        Found::One(cluster) => Ok(Some(location.open(&cluster).await?)),
        Found::Several(all) => {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            Err(LookError::Several(all.join(", ")))
        }
    }
}

/// Looks until cancelled; `wake` makes it look at once.
pub async fn run(
    config: Option<RepositoryConfig>,
    name: ClusterName,
    wake: std::sync::Arc<Notify>,
    out: watch::Sender<RepositoryView>,
    cancel: CancellationToken,
) {
    let Some(config) = config else {
        out.send_replace(RepositoryView::Disabled);
        cancel.cancelled().await;
        return;
    };
    loop {
        let look = tokio::time::timeout(DEADLINE, Box::pin(look(&config, &name)));
        let view = tokio::select! {
            () = cancel.cancelled() => return, // cancel-safe
            looked = look => match looked.map_err(|_| LookError::Late).and_then(|view| view) {
                Ok(view) => view,
                Err(err) => RepositoryView::Unreachable { why: Chain(&err).to_string() },
            },
        };
        let pause = if matches!(view, RepositoryView::Ready { .. }) { WHEN_READY } else { OTHERWISE };
        tell(&out, view);
        tokio::select! {
            () = cancel.cancelled() => return, // cancel-safe
            () = wake.notified() => {} // cancel-safe
            () = tokio::time::sleep(pause) => {} // cancel-safe
        }
    }
}

fn tell(out: &watch::Sender<RepositoryView>, view: RepositoryView) {
    out.send_if_modified(|old| {
        match (&*old, &view) {
            // The first failure stands until the next success: the text of each is a little different.
            (RepositoryView::Unreachable { .. }, RepositoryView::Unreachable { .. }) => return false,
            (_, RepositoryView::Unreachable { why }) => warn!(error = why, "repository unreachable"),
            (RepositoryView::Unreachable { .. }, _) => info!("repository reachable again"),
            (_, _) => {}
        }
        let changed = *old != view;
        *old = view;
        changed
    });
}

async fn look(config: &RepositoryConfig, name: &ClusterName) -> Result<RepositoryView, LookError> {
    let Some(repository) = open(config, name).await? else { return Ok(RepositoryView::Empty) };
    let newest_term = repository.rules().await?.last().map_or(Term::FIRST, |rule| rule.id.term);
    let newest_backup = repository.backups().await?.into_iter().rev().find_map(|backup| match backup {
        Backup::Complete(manifest) => Some(manifest.id.to_string()),
        Backup::Unreadable { .. } => None,
    });
    Ok(RepositoryView::Ready { cluster: repository.cluster().clone(), newest_term, newest_backup })
}
