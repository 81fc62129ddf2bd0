//! A layer over a tree, as values: what both show together, and which layer makes one tree another. Pure.

use super::path::RelativePath;
use super::tree::{Kind, Node, Tree};

/// What a layer over a tree shows.
pub(super) fn shown(base: &Tree, layer: &Tree) -> Tree {
    let mut tree = base.clone();
    for (path, node) in layer {
        if !matches!(node.kind, Kind::Directory { opaque: false }) {
            hide_below(&mut tree, path);
        }
        if node.kind == Kind::Whiteout {
            tree.remove(path);
            continue;
        }
        let mut node = node.clone();
        if let Kind::Directory { opaque } = &mut node.kind {
            *opaque = false;
        }
        tree.insert(path.clone(), node);
    }
    tree
}

fn hide_below(tree: &mut Tree, path: &RelativePath) {
    let hidden: Vec<_> = inner(tree, path).cloned().collect();
    hidden.iter().for_each(|path| drop(tree.remove(path)));
}

/// The paths below one.
pub(super) fn inner<'a>(
    tree: &'a Tree,
    path: &RelativePath,
) -> impl Iterator<Item = &'a RelativePath> {
    let first = RelativePath::of_bytes([path.bytes(), b"/"].concat());
    let start = first.clone();
    tree.range(start..)
        .map(|(path, _)| path)
        .take_while(move |path| path.bytes().starts_with(first.bytes()))
}

/// Puts a node into a tree; what is in the way gives way, and missing directories are made.
pub(super) fn put(tree: &mut Tree, path: &RelativePath, node: Node) {
    let kind = Kind::Directory { opaque: false };
    for parent in path.parents() {
        if !is_directory(tree.get(&parent)) {
            let directory = Node { kind: kind.clone(), mode: 0o755, base: None, ..node.clone() };
            tree.insert(parent, directory);
        }
    }
    if node.kind != kind {
        hide_below(tree, path);
    }
    tree.insert(path.clone(), node);
}

fn is_directory(node: Option<&Node>) -> bool {
    node.is_some_and(|node| matches!(node.kind, Kind::Directory { .. }))
}

/// The smallest layer that makes the base show the target.
pub(super) fn between(base: &Tree, target: &Tree) -> Tree {
    let mut layer = Tree::new();
    for (path, node) in target {
        if !base.get(path).is_some_and(|below| looks_same(below, node)) {
            layer.insert(path.clone(), node.clone());
        }
    }
    for (path, node) in base {
        // What lies in a directory that is gone, or is none any more, goes with it.
        let seen = path.parent().is_none_or(|parent| is_directory(target.get(&parent)));
        if seen && !target.contains_key(path) {
            let whiteout = Node { kind: Kind::Whiteout, mode: 0, ..node.clone() };
            layer.insert(path.clone(), whiteout);
        }
    }
    let parents: Vec<_> = layer.keys().flat_map(RelativePath::parents).collect();
    for parent in parents {
        if let Some(node) = target.get(&parent) {
            layer.entry(parent).or_insert_with(|| node.clone());
        }
    }
    layer
}

/// Whether both are the same to whoever looks; all files of a disk belong to its user.
fn looks_same(a: &Node, b: &Node) -> bool {
    let kinds = match (&a.kind, &b.kind) {
        (Kind::File { object: a, .. }, Kind::File { object: b, .. }) => a == b,
        (a, b) => a == b,
    };
    kinds && (a.mode, a.modified) == (b.mode, b.modified)
}
