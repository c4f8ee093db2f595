use super::error::{Error, Result};
use super::redis::Redis;
use super::server::wait_until;

/// The slots of every cluster.
const SLOTS: u16 = 16_384;

/// A Redis cluster of three masters, each with a third of the slots; stopped and removed when
/// dropped.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Three nodes that know each other. They keep nothing on disk unless these arguments ask for
    /// it.
    ///
    /// # Errors
    /// What is missing, or why it did not come up.
    pub fn start(arguments: &[&str]) -> Result<Self, Error> {
        let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let arguments: Vec<&str> = own.iter().chain(arguments).copied().collect();
        let nodes = [(); 3].map(|()| Redis::start(&arguments));
        let nodes = nodes.into_iter().collect::<Result<_>>()?;
        let cluster = Self { nodes };
        cluster.join()?;
        Ok(cluster)
    }

    /// Where its nodes are, with commas between.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes.iter().map(Redis::url).collect::<Vec<_>>().join(",")
    }

    /// Its nodes, to be killed and restarted.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Ends all nodes at once, as a power failure would.
    pub fn kill(&self) {
        self.nodes.iter().for_each(Redis::kill);
    }

    /// Starts all nodes again and waits until they found each other.
    ///
    /// # Errors
    /// Why it did not come up.
    pub fn restart(&self) -> Result<(), Error> {
        self.nodes.iter().try_for_each(Redis::restart)?;
        self.wait_until_whole()
    }

    /// Waits until every node finds the cluster whole.
    ///
    /// # Errors
    /// What the node that does not find it whole has to say.
    pub fn wait_until_whole(&self) -> Result<(), Error> {
        for node in &self.nodes {
            let mut info = Ok(String::new());
            let whole = wait_until(|| {
                info = node.ask("CLUSTER INFO");
                info.as_ref().is_ok_and(|info| finds_it_whole(info, self.nodes.len()))
            });
            if !whole {
                return Err(Error::new(format!("{} misses others of its cluster: {}", node.url(), info?)));
            }
        }
        Ok(())
    }

    fn join(&self) -> Result<()> {
        let share = SLOTS.div_ceil(3);
        for (epoch, node) in (1..).zip(&self.nodes) {
            let first = share * (epoch - 1);
            let last = (first + share).min(SLOTS) - 1;
            node.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"))?;
            // Nodes of the same epoch would settle first who is right, and be down meanwhile.
            node.ask(&format!("CLUSTER SET-CONFIG-EPOCH {epoch}"))?;
        }
        for node in &self.nodes[1..] {
            self.nodes[0].ask(&format!("CLUSTER MEET 127.0.0.1 {}", node.port()))?;
        }
        self.wait_until_whole()
    }
}

fn finds_it_whole(info: &str, nodes: usize) -> bool {
    let says = |line: String| info.lines().any(|said| said == line);
    says("cluster_state:ok".to_owned())
        && says(format!("cluster_slots_ok:{SLOTS}"))
        && says(format!("cluster_known_nodes:{nodes}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_whole_when_every_slot_and_node_is_there() {
        let info = |state, slots, nodes| {
            format!("cluster_state:{state}\r\ncluster_slots_ok:{slots}\r\ncluster_known_nodes:{nodes}\r\n")
        };
        assert!(finds_it_whole(&info("ok", 16384, 3), 3));
        assert!(!finds_it_whole(&info("fail", 16384, 3), 3));
        assert!(!finds_it_whole(&info("ok", 10922, 3), 3));
        assert!(!finds_it_whole(&info("ok", 16384, 2), 3));
    }
}
