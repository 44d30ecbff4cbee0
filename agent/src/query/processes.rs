//! Lists the processes that take the most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use fleetward_protocol::object::{Class, Object};
use fleetward_protocol::query::processes::{Most, ProcessItem, Processes};
use fleetward_protocol::text::Text;

use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::clock;
use crate::platform::processes::{self, Process};
use crate::platform::users::Names;

/// For how long the host is looked at.
const SPAN: Duration = Duration::from_millis(500);

impl Look for Processes {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let begun = Instant::now();
        let before: HashMap<u32, Duration> =
            processes::read_all().filter_map(|pid| Some((pid, processes::read_cpu(pid)?))).collect();
        tokio::time::sleep(SPAN).await;
        let span = begun.elapsed();

        let mut names = Names::default();
        let mut found = Vec::new();
        for process in processes::read_all().filter_map(processes::read_process) {
            let user = names.user(process.uid);
            let is_meant = process.pid != std::process::id()
                && self.means(user)
                && teller.allowed().allows(&Object::named(Class::Users, user));
            if !is_meant {
                continue;
            }
            // One that has come meanwhile has taken meanwhile all that it has taken.
            let taken = process.cpu.saturating_sub(before.get(&process.pid).copied().unwrap_or_default());
            found.push((share(taken, span), process));
            if found.len() > 2 * self.count() {
                keep(&mut found, self);
            }
        }
        if found.is_empty() {
            processes::read_process(std::process::id())
                .ok_or_else(|| Stop::failed("/proc cannot be read; see whether it is mounted on the host"))?;
        }
        keep(&mut found, self);
        let now = clock::now();
        for (cpu_share, process) in found {
            teller
                .item(&ProcessItem {
                    pid: process.pid,
                    name: Text::of(&process.name),
                    user: Text::of(names.user(process.uid)),
                    cpu_share,
                    cpu_ms: u64::try_from(process.cpu.as_millis()).unwrap_or(u64::MAX),
                    memory: process.memory,
                    threads: process.threads,
                    state: Text::of(process.state),
                    parent: process.parent,
                    unit: processes::read_unit(process.pid).map(Text::of),
                    since: now - process.age,
                })
                .await?;
        }
        Ok(())
    }
}

/// Keeps those that take the most, in that order.
fn keep(found: &mut Vec<(u32, Process)>, asked: &Processes) {
    found.sort_by_key(|(share, process)| {
        let (share, memory) = (u64::from(*share), process.memory);
        let taken = match asked.most.unwrap_or(Most::Cpu) {
            Most::Cpu => (share, memory),
            Most::Memory => (memory, share),
        };
        (Reverse(taken), process.pid)
    });
    found.truncate(asked.count());
}

/// Of one processor, in hundredths of a percent.
fn share(taken: Duration, span: Duration) -> u32 {
    let share = taken.as_micros() * 10_000 / span.as_micros().max(1);
    u32::try_from(share).unwrap_or(u32::MAX)
}
