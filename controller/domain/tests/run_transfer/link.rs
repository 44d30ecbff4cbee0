//! One connection: a control stream, and a stream per run. Each stream keeps its order; between streams there
//! is none. Either end may be gone while the other does not know it yet.

use std::collections::{BTreeMap, VecDeque};

use fleetward_protocol::wire;
use serde::{Serialize, de::DeserializeOwned};

/// The control stream's number.
pub(crate) const CONTROL: u32 = 0;

#[derive(Default)]
pub(crate) struct Link {
    streams: BTreeMap<u32, Stream>,
    pub(crate) host_is_gone: bool,
    pub(crate) controller_is_gone: bool,
}

#[derive(Default)]
struct Stream {
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
}

impl Link {
    pub(crate) fn new() -> Self {
        let mut link = Self::default();
        link.streams.insert(CONTROL, Stream::default());
        link
    }

    pub(crate) fn open(&mut self) -> u32 {
        let number = u32::try_from(self.streams.len()).unwrap();
        self.streams.insert(number, Stream::default());
        number
    }

    pub(crate) fn send_up<T: Serialize>(&mut self, stream: u32, message: &T) {
        if !self.controller_is_gone {
            self.streams.get_mut(&stream).unwrap().up.push_back(frame(message));
        }
    }

    pub(crate) fn send_down<T: Serialize>(&mut self, stream: u32, message: &T) {
        if !self.host_is_gone {
            self.streams.get_mut(&stream).unwrap().down.push_back(frame(message));
        }
    }

    /// The next frame of one of the streams that have any; what the peer sent before it went may still come.
    pub(crate) fn take_up(&mut self, which: usize) -> Option<(u32, Vec<u8>)> {
        if self.controller_is_gone {
            return None;
        }
        let mut filled: Vec<_> =
            self.streams.iter_mut().filter(|(_, stream)| !stream.up.is_empty()).collect();
        let chosen = which.checked_rem(filled.len())?;
        let (number, stream) = filled.get_mut(chosen)?;
        Some((**number, stream.up.pop_front()?))
    }

    pub(crate) fn take_down(&mut self, which: usize) -> Option<(u32, Vec<u8>)> {
        if self.host_is_gone {
            return None;
        }
        let mut filled: Vec<_> =
            self.streams.iter_mut().filter(|(_, stream)| !stream.down.is_empty()).collect();
        let chosen = which.checked_rem(filled.len())?;
        let (number, stream) = filled.get_mut(chosen)?;
        Some((**number, stream.down.pop_front()?))
    }
}

fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    wire::frame(message, wire::MAX_RUN_FRAME).unwrap()
}

pub(crate) fn read<T: DeserializeOwned>(frame: &[u8]) -> T {
    let (prefix, body) = frame.split_first_chunk::<4>().unwrap();
    assert_eq!(wire::frame_length(*prefix, wire::MAX_RUN_FRAME).unwrap(), body.len());
    wire::decode(body, wire::MAX_RUN_FRAME).unwrap()
}
