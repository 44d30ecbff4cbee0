//! A hostile peer: frames of any kind in any order, given to each end of each stream.
#![no_main]

use fleetward_protocol::message::{AgentMessage, ControllerMessage, RunDown, RunUp, Welcome};
use fleetward_protocol::session::{
    AgentSession, ControllerEvent, ControllerSession, Monotonic, RunSink, RunSource, SinkEvent,
};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let now = Monotonic::default();
    let clock = Timestamp::from_millis(0);
    let welcome = Welcome {
        controller_version: String::new(),
        clock,
        heartbeat_ms: 3000,
        silence_ms: 9000,
        quarantined: false,
    };
    let mut controller = ControllerSession::new(now);
    let mut agent: Option<AgentSession> = None;
    let mut sink = RunSink::new(0);
    let mut source = RunSource::new(0);
    source.handle_accepted();
    let mut log = Vec::new();
    let mut rest = bytes;
    while let Some((&[a, b], tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes([a, b])).min(tail.len());
        let (frame, tail) = tail.split_at(length);
        rest = tail;
        if let Ok(message) = wire::decode::<AgentMessage>(frame, wire::MAX_CONTROL_FRAME) {
            if let AgentMessage::Hello(hello) = &message {
                agent.get_or_insert_with(|| AgentSession::new(hello.clone(), now));
            }
            if let Ok(ControllerEvent::Hello(_)) = controller.handle_message(message, now) {
                controller.welcome(welcome.clone());
            }
            while controller.poll_transmit().is_some() {}
        }
        if let (Some(agent), Ok(message)) =
            (&mut agent, wire::decode::<ControllerMessage>(frame, wire::MAX_CONTROL_FRAME))
        {
            let _ = agent.handle_message(message, now);
            let _ = agent.handle_timeout(agent.poll_timeout(), clock);
            while agent.poll_transmit().is_some() {}
        }
        if let Ok(message) = wire::decode::<RunUp>(frame, wire::MAX_RUN_FRAME) {
            if let Ok(SinkEvent::Output { offset, bytes }) = sink.handle_message(message) {
                // Every byte once, in order.
                assert_eq!(offset, log.len() as u64);
                assert!(!bytes.is_empty());
                log.extend(bytes);
                let _ = sink.handle_committed(log.len() as u64);
            }
        }
        if let Ok(message) = wire::decode::<RunDown>(frame, wire::MAX_RUN_FRAME) {
            let _ = source.handle_message(&message);
            while source.poll_transmit().is_some() {}
        }
    }
});
