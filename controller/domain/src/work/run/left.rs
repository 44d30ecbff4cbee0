//! What a script left running, in words.

use fleetward_protocol::run::{Fate, Left};

/// What became of the processes that held a run's output open after its script's end; fits behind the run's state.
#[must_use]
pub fn describe_left(left: &Left) -> String {
    let span = span(left.held_ms);
    // Whoever holds the output is at least one process, though it need not be one of the run's.
    let one = left.processes <= 1;
    let left_running = match left.processes {
        0 | 1 => format!("left 1 process running; it held its output open for {span} more, and"),
        many => format!("left {many} processes running; they held its output open for {span} more, and"),
    };
    match left.fate {
        Fate::LetGo => format!("its output was held open for {span} more by a process that it left"),
        Fate::Unkept if one => format!("{left_running} what it writes is no longer kept"),
        Fate::Unkept => format!("{left_running} what they write is no longer kept"),
        Fate::CutOff => {
            let writer = if one { "it ends when it writes" } else { "they end when they write" };
            format!(
                "{left_running} most likely {writer} again: nobody reads it (`drains` in the host's agent.toml)"
            )
        }
        Fate::Stopped if one => {
            format!("1 process that it had left running was stopped {span} after its end")
        }
        Fate::Stopped => {
            format!("{} processes that it had left running were stopped {span} after its end", left.processes)
        }
        Fate::Unstoppable if one => {
            format!("1 process did not end when it was killed, for {span}, and may still run")
        }
        Fate::Unstoppable => {
            format!(
                "{} processes did not end when they were killed, for {span}, and may still run",
                left.processes
            )
        }
    }
}

/// A length of time, as short as a person reads it.
fn span(ms: u64) -> String {
    let tenths = ms / 100;
    match tenths {
        0..600 => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => format!("{} min {} s", tenths / 600, tenths % 600 / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_told_in_words() {
        let told = |processes, held_ms, fate| describe_left(&Left { processes, held_ms, fate });
        for (told, words) in [
            (told(0, 5012, Fate::LetGo), "its output was held open for 5.0 s more by a process that it left"),
            (
                told(1, 5012, Fate::Unkept),
                "left 1 process running; it held its output open for 5.0 s more, and what it writes is no longer kept",
            ),
            (
                told(3, 30_000, Fate::Unkept),
                "left 3 processes running; they held its output open for 30.0 s more, and what they write is no \
                 longer kept",
            ),
            (
                told(0, 5000, Fate::CutOff),
                "left 1 process running; it held its output open for 5.0 s more, and most likely it ends when it \
                 writes again: nobody reads it (`drains` in the host's agent.toml)",
            ),
            (
                told(2, 900, Fate::Stopped),
                "2 processes that it had left running were stopped 0.9 s after its end",
            ),
            (
                told(1, 90_000, Fate::Unstoppable),
                "1 process did not end when it was killed, for 1 min 30 s, and may still run",
            ),
        ] {
            assert_eq!(told, words);
        }
        assert!(told(u32::MAX, u64::MAX, Fate::Stopped).contains("307445734561825 min"));
    }
}
