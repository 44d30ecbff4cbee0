//! A kind that no code names is handed to its host and recorded as any other.

use fleetward_app::people::access::Read;
use fleetward_app::testing::levitate::Levitate;
use fleetward_app::work::action::Asked;
use fleetward_app::work::run;

use fleetward_domain::work::operation::{OperationStatus, RolloutPolicy};
use fleetward_protocol::action::{ActionRequest, Contract as _};
use fleetward_protocol::order::{Authority, Order};
use fleetward_protocol::output::{Record, Stream};
use fleetward_protocol::run::Outcome;
use fleetward_protocol::time::Timestamp;
use serde_json::json;
use tokio::time::timeout;

use super::controller::TestController;
use super::{SOON, enrolled};

#[tokio::test]
async fn a_kind_that_nobody_knows_is_ordered_and_its_report_is_kept() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let params = json!({ "height": 12 }).as_object().unwrap().clone();
    let asked = Asked { kind: Levitate::KIND.to_owned(), params };
    let operation = controller.ask(vec![asked], "web-1", RolloutPolicy::default()).await.unwrap();
    let stream = timeout(SOON, session.accept_run()).await.unwrap();
    let order = Order::open(&stream.open.dispatch.as_ref().unwrap().order).unwrap();
    let action = ActionRequest::new(&Levitate { height: 12 }).unwrap();
    assert_eq!((&order.authority, order.limits.timeout_ms), (&Authority::Run(action), 7_000));

    let mut log = Vec::new();
    let mut say = |stream, payload: &[u8]| {
        Record { stream, at: Timestamp::from_millis(1), payload }.append_to(&mut log);
    };
    say(Stream::Stdout, b"up\n");
    say(Stream::Report, br#"{"reached":12}"#);
    timeout(SOON, stream.play_log(log, Outcome::Exited(0))).await.unwrap();
    let (status, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(status, OperationStatus::Success);
    let shown = run::get(controller.app(), &controller.permit::<Read>(), runs[0].id).await.unwrap();
    assert_eq!((shown.step.kind.as_str(), shown.step.subject.as_str()), ("levitate", "to 12 m"));
    assert_eq!(shown.report.as_deref(), Some(r#"{"reached":12}"#));
}
