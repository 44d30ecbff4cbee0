//! An application with the agents' port, and nothing else of a controller.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use fleetward_app::App;
use fleetward_app::testing::{Admin, NAME, TestApp};
use fleetward_pki::{Rotating, ServerPurpose};

use crate::LinkServer;

pub(super) struct TestController {
    app: TestApp,
    link: LinkServer,
}

impl TestController {
    pub(super) async fn start() -> Self {
        Self::open(TestApp::start().await, "127.0.0.1:0".parse().unwrap())
    }

    /// Stops the controller and starts it again on the same data and port.
    pub(super) async fn restart(self) -> Self {
        let address = self.address();
        self.link.shutdown().await;
        Self::open(self.app.restart().await, address)
    }

    pub(super) async fn stop(self) {
        self.link.shutdown().await;
        self.app.stop().await;
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.link.local_address()
    }

    fn open(app: TestApp, listen: SocketAddr) -> Self {
        let link = LinkServer::start(app.app(), listen, certificate(app.app())).unwrap();
        Self { app, link }
    }
}

impl Deref for TestController {
    type Target = Admin;

    fn deref(&self) -> &Admin {
        &self.app
    }
}

/// What the port shows who it is with.
pub(super) fn certificate(app: &App) -> Arc<Rotating> {
    let certificate = app.authority().ensure_server(ServerPurpose::Link, NAME, app.now()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Arc::new(Rotating::new(provider, certificate).unwrap())
}
