//! Cycles of a graph.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

/// Gives cycles, the shortest first, each from a node back to it; no two of them share a node. None means that there is
/// no cycle.
pub fn cycles<Node: Ord + Clone>(graph: &BTreeMap<Node, BTreeSet<Node>>) -> Vec<Vec<Node>> {
    let mut graph = graph.clone();
    let mut found = Vec::new();
    while let Some(cycle) = graph.keys().filter_map(|node| way_back(&graph, node)).min_by_key(Vec::len) {
        graph.retain(|node, _| !cycle.contains(node));
        found.push(cycle);
    }
    found
}

/// The shortest way from a node back to it, over nodes that are keys.
fn way_back<Node: Ord + Clone>(graph: &BTreeMap<Node, BTreeSet<Node>>, start: &Node) -> Option<Vec<Node>> {
    let mut before: BTreeMap<&Node, &Node> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(node) = next.pop_front() {
        for target in graph.get(node).into_iter().flatten().filter(|target| graph.contains_key(*target)) {
            if before.contains_key(target) {
                continue;
            }
            before.insert(target, node);
            if target == start {
                let mut way = vec![start.clone()];
                let mut at = node;
                while at != start {
                    way.push(at.clone());
                    at = before.get(at)?;
                }
                way.push(start.clone());
                way.reverse();
                return Some(way);
            }
            next.push_back(target);
        }
    }
    None
}

#[test]
fn each_cycle_is_found_and_nothing_else() {
    let graph = |arrows: &[(char, &str)]| arrows.iter().map(|(from, to)| (*from, to.chars().collect())).collect();
    let check = |arrows: &[(char, &str)], expected: &[&str]| {
        let found: Vec<String> = cycles(&graph(arrows)).into_iter().map(String::from_iter).collect();
        assert_eq!(found, expected, "{arrows:?}");
    };
    check(&[('a', "bc"), ('b', "c"), ('c', "d")], &[]);
    check(&[('a', "a")], &["aa"]);
    check(&[('a', "b"), ('b', "c"), ('c', "a")], &["abca"]);
    check(&[('a', "b"), ('b', "cd"), ('c', "a"), ('d', "b"), ('x', "y"), ('y', "x")], &["bdb", "xyx"]);
}
