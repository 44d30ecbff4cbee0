//! The fleet, live.

use std::collections::{HashMap, VecDeque};

use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use fleetward_app as app;
use fleetward_app::fleet::online::FleetEvent;
use fleetward_app::people::access::{Permit, Read};
use fleetward_app::people::tenant;
use fleetward_app::work::operation::Reference;
use fleetward_protocol::id::TenantId;
use fleetward_protocol::name::TenantName;
use fleetward_store::StoreError;
use futures_util::Stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::fleet::host;
use crate::lasting::Unread;
use crate::sse;
use crate::work::view::operation_view;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(fleet))
}

/// The fleet, live.
///
/// Server-sent events: `host` (data: `Host`), `operation` (data: `Operation`), and `resync` (no data) when
/// events may have been missed: load the lists again.
#[utoipa::path(
    get, path = "/events", operation_id = "fleetEvents", tag = "event",
    responses((status = 200, description = "The events.", body = String, content_type = "text/event-stream"), Failure),
)]
async fn fleet(State(site): State<Site>, permit: Allowed<Read>) -> Result<Response, ApiError> {
    let watcher = Watcher {
        changes: site.app.fleet().watch(),
        tenants: tenant::names(&site.app, &permit.scope()).await?,
        permit: permit.permit().clone(),
        site: site.clone(),
        queue: VecDeque::new(),
    };
    Ok(sse::respond(&site, permit.lasting(), watcher.stream(), Unread::Ends))
}

/// The most changes that are told in one go; what comes twice among them is told once.
const BATCH: usize = 256;

/// One listener.
struct Watcher {
    changes: Receiver<FleetEvent>,
    tenants: HashMap<TenantId, TenantName>,
    permit: Permit<Read>,
    site: Site,
    queue: VecDeque<FleetEvent>,
}

impl Watcher {
    fn stream(self) -> impl Stream<Item = Event> + Send + 'static {
        futures_util::stream::unfold(self, |mut watcher| async move {
            let event = watcher.next().await?;
            Some((event, watcher))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(change) = self.queue.pop_front() {
                match self.load(change).await {
                    Ok(Some(event)) => return Some(event),
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(?error, "fleet.events_broke");
                        return None;
                    }
                }
            }
            match self.changes.recv().await {
                Ok(change) => self.collect(change),
                Err(RecvError::Lagged(_)) => return Some(Event::default().event("resync").data("{}")),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Takes a change and what is waiting behind it.
    fn collect(&mut self, change: FleetEvent) {
        self.queue.push_back(change);
        while self.queue.len() < BATCH {
            match self.changes.try_recv() {
                Ok(change) if self.queue.contains(&change) => {}
                Ok(change) => self.queue.push_back(change),
                // A lag is reported again by the next `recv`.
                Err(TryRecvError::Empty | TryRecvError::Closed | TryRecvError::Lagged(_)) => break,
            }
        }
    }

    /// What changed, as it is now; `None` if the listener may not see it, or it is gone.
    async fn load(&self, change: FleetEvent) -> Result<Option<Event>, ApiError> {
        let scope = self.permit.scope();
        match change {
            FleetEvent::Host { tenant, host } if scope.includes(tenant) => {
                match app::fleet::host::get_by_id(&self.site.app, &self.permit, host).await {
                    Ok(found) => Ok(Some(sse::event("host", &host::view(found, &self.tenants)?))),
                    Err(StoreError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            FleetEvent::Operation { tenant, operation } if scope.includes(tenant) => {
                let reference = Reference::Id(operation);
                match app::work::operation::get(&self.site.app, &self.permit, reference).await {
                    Ok(found) => {
                        let found =
                            app::work::operation::overview(&self.site.app, &self.permit, found).await?;
                        Ok(Some(sse::event("operation", &operation_view(&found)?)))
                    }
                    Err(app::work::operation::OperationError::NotFound) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            FleetEvent::Host { .. } | FleetEvent::Operation { .. } => Ok(None),
        }
    }
}
