//! Which of many hosts an expression means.
//!
//! The tree is walked once, with the hosts that are still in question at each node; so each distinct value is
//! compared with a pattern once, however many hosts have it. Every step is taken from a [`Budget`].

use std::collections::HashMap;

use super::HostView;
use super::budget::{Budget, TooCostly};
use super::matching::{Field, Node};
use super::pattern::Pattern;

/// Each so many values of a table cost one step to make.
const VALUES_PER_STEP: usize = 64;

pub(super) struct Selection<'s, 'a> {
    hosts: &'s [HostView<'a>],
    budget: &'s mut Budget,
    tags: Option<Tags<'a>>,
}

/// The tags of all hosts, each by its number.
struct Tags<'a> {
    distinct: Vec<&'a str>,
    /// Of each host, in the order of the hosts.
    of_hosts: Vec<Vec<usize>>,
}

impl<'s, 'a> Selection<'s, 'a> {
    pub(super) const fn new(hosts: &'s [HostView<'a>], budget: &'s mut Budget) -> Self {
        Self { hosts, budget, tags: None }
    }

    /// The positions of the hosts that the node means, in their order.
    pub(super) fn all(&mut self, node: &Node) -> Result<Vec<usize>, TooCostly> {
        self.among(node, (0..self.hosts.len()).collect())
    }

    /// Recursion is bounded by the depth of expressions.
    fn among(&mut self, node: &Node, hosts: Vec<usize>) -> Result<Vec<usize>, TooCostly> {
        self.budget.take(hosts.len() + 1)?;
        match node {
            Node::All => Ok(hosts),
            // A group that nobody explained is an error before anything is selected.
            Node::Group(_) => Ok(Vec::new()),
            Node::Name(name) => Ok(self.keep(hosts, |host| host.name == name)),
            Node::Compare(number, comparison, wanted) => Ok(self
                .keep(hosts, |host| number.of(host).is_some_and(|value| comparison.holds(value, *wanted)))),
            Node::Field(Field::Tag, pattern) => self.with_tag(pattern, hosts),
            Node::Field(Field::Address, pattern) => self.with_address(pattern, hosts),
            Node::Field(field, pattern) => self.with_value(*field, pattern, hosts),
            Node::Not(node) => {
                let found = self.among(node, hosts.clone())?;
                Ok(without(hosts, &found))
            }
            Node::And(nodes) => nodes.iter().try_fold(hosts, |left, node| self.among(node, left)),
            Node::Or(nodes) => {
                let (mut found, mut left) = (Vec::new(), hosts);
                for node in nodes {
                    let more = self.among(node, left.clone())?;
                    left = without(left, &more);
                    found.extend(more);
                }
                found.sort_unstable();
                Ok(found)
            }
        }
    }

    fn keep(&self, mut hosts: Vec<usize>, is_meant: impl Fn(&HostView<'a>) -> bool) -> Vec<usize> {
        hosts.retain(|&at| self.hosts.get(at).is_some_and(&is_meant));
        hosts
    }

    fn with_tag(&mut self, pattern: &Pattern, hosts: Vec<usize>) -> Result<Vec<usize>, TooCostly> {
        let all = self.hosts;
        let tags = match &mut self.tags {
            Some(tags) => tags,
            none => none.insert(Tags::of(all, self.budget)?),
        };
        self.budget.take(tags.distinct.len() / VALUES_PER_STEP)?;
        let mut verdicts = vec![None; tags.distinct.len()];
        let mut found = Vec::new();
        for at in hosts {
            for &tag in tags.of_hosts.get(at).into_iter().flatten() {
                self.budget.take(1)?;
                let (Some(verdict), Some(text)) = (verdicts.get_mut(tag), tags.distinct.get(tag)) else {
                    continue;
                };
                let is_meant = match *verdict {
                    Some(known) => known,
                    None => *verdict.insert(pattern.matches(text, self.budget)?),
                };
                if is_meant {
                    found.push(at);
                    break;
                }
            }
        }
        Ok(found)
    }

    fn with_address(&mut self, pattern: &Pattern, hosts: Vec<usize>) -> Result<Vec<usize>, TooCostly> {
        let mut found = Vec::new();
        for at in hosts {
            let facts = self.hosts.get(at).and_then(|host| host.facts);
            for address in facts.into_iter().flat_map(|facts| &facts.addresses) {
                if pattern.matches_folded(address, self.budget)? {
                    found.push(at);
                    break;
                }
            }
        }
        Ok(found)
    }

    fn with_value(
        &mut self,
        field: Field,
        pattern: &Pattern,
        hosts: Vec<usize>,
    ) -> Result<Vec<usize>, TooCostly> {
        let mut verdicts: HashMap<&'a str, bool> = HashMap::new();
        let mut found = Vec::new();
        for at in hosts {
            let Some(value) = self.hosts.get(at).and_then(|host| field.value(host)) else { continue };
            let is_meant = match field {
                // Hardly two hosts have the same.
                Field::Name => pattern.matches(value, self.budget)?,
                _ => match verdicts.get(value) {
                    Some(known) => *known,
                    None => {
                        let is_meant = pattern.matches_folded(value, self.budget)?;
                        verdicts.insert(value, is_meant);
                        is_meant
                    }
                },
            };
            if is_meant {
                found.push(at);
            }
        }
        Ok(found)
    }
}

impl<'a> Tags<'a> {
    fn of(hosts: &[HostView<'a>], budget: &mut Budget) -> Result<Self, TooCostly> {
        let mut numbers: HashMap<&'a str, usize> = HashMap::new();
        let mut tags = Self { distinct: Vec::new(), of_hosts: Vec::with_capacity(hosts.len()) };
        for host in hosts {
            budget.take(host.tags.len() + 1)?;
            let number = |tag: &&'a str| {
                *numbers.entry(tag).or_insert_with(|| {
                    tags.distinct.push(tag);
                    tags.distinct.len() - 1
                })
            };
            tags.of_hosts.push(host.tags.iter().map(number).collect());
        }
        Ok(tags)
    }
}

/// Those that are not among `others`; both in order.
fn without(mut hosts: Vec<usize>, others: &[usize]) -> Vec<usize> {
    let mut others = others.iter().peekable();
    hosts.retain(|at| others.next_if_eq(&at).is_none());
    hosts
}
