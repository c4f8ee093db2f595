//! A picture of a definition.

use std::fmt::Write;

use crate::definition::Definition;
use crate::key::Value;
use crate::plan::{LeafKind, Node, Plan};
use crate::policy::Join;

impl<I: Value, C: 'static> Definition<I, C> {
    /// The definition as a Mermaid flowchart: a box a step, a cylinder a transaction, a stadium a
    /// wait, a double box a child, a diamond before a step that is taken under a condition, a frame
    /// around a group. What can be taken back bears a `⟲`.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        self.plan.to_mermaid()
    }
}

impl Plan {
    pub(crate) fn to_mermaid(&self) -> String {
        let mut chart = Chart { plan: self, text: "flowchart TD\n".to_owned(), groups: 0 };
        chart.line(1, "start((start))");
        let ends = chart.sequence(&self.root, vec!["start".to_owned()], 1);
        chart.line(1, "finish((end))");
        chart.connect(&ends, "finish", 1);
        chart.text
    }
}

struct Chart<'a> {
    plan: &'a Plan,
    text: String,
    groups: usize,
}

impl Chart<'_> {
    /// Draws nodes one after the other; returns what comes last.
    fn sequence(&mut self, nodes: &[Node], mut from: Vec<String>, depth: usize) -> Vec<String> {
        for node in nodes {
            from = match node {
                Node::Leaf(step) => self.leaf(*step, &from, depth),
                Node::Sequence(nodes) => self.sequence(nodes, from, depth),
                Node::Parallel { join, branches } => {
                    self.groups += 1;
                    let title = match join {
                        Join::All => "all",
                        Join::FailFast => "fail fast",
                    };
                    self.line(depth, &format!("subgraph group{} [\"{title}\"]", self.groups));
                    let mut ends = Vec::new();
                    for branch in branches {
                        ends.extend(self.sequence(std::slice::from_ref(branch), from.clone(), depth + 1));
                    }
                    self.line(depth, "end");
                    ends
                }
            };
        }
        from
    }

    fn leaf(&mut self, step: usize, from: &[String], depth: usize) -> Vec<String> {
        let leaf = &self.plan.leaves[step];
        let id = format!("s{step}");
        let name = escape(&leaf.name);
        let undo = if leaf.undo.is_some() { " ⟲" } else { "" };
        let shape = match &leaf.kind {
            LeafKind::Job(_) => format!("{id}[\"{name}{undo}\"]"),
            LeafKind::TxJob(_) => format!("{id}[(\"{name}{undo}\")]"),
            LeafKind::ForEach(_) => format!("{id}[\"{name} (each){undo}\"]"),
            LeafKind::Sleep(_) => format!("{id}([\"{name}: sleep{undo}\"])"),
            LeafKind::Signal { .. } => format!("{id}([\"{name}: signal{undo}\"])"),
            LeafKind::Child { definition, .. } => format!("{id}[[\"{name}: {}{undo}\"]]", escape(definition)),
        };
        if leaf.condition.is_none() {
            self.line(depth, &shape);
            self.connect(from, &id, depth);
            return vec![id];
        }
        let condition = format!("c{step}");
        self.line(depth, &format!("{condition}{{\"{name}?\"}}"));
        self.connect(from, &condition, depth);
        self.line(depth, &shape);
        self.line(depth, &format!("{condition} -->|yes| {id}"));
        vec![id, condition]
    }

    fn connect(&mut self, from: &[String], to: &str, depth: usize) {
        for from in from {
            self.line(depth, &format!("{from} --> {to}"));
        }
    }

    fn line(&mut self, depth: usize, line: &str) {
        writeln!(self.text, "{:1$}{line}", "", depth * 4).expect("a string takes any text");
    }
}

/// Text inside quotes of a Mermaid label.
fn escape(text: &str) -> String {
    let escaped = |c| match c {
        '"' => "#quot;".to_owned(),
        '<' => "#lt;".to_owned(),
        '>' => "#gt;".to_owned(),
        '#' => "#35;".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}
