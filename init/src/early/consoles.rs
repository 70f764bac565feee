//! The consoles that the kernel prints on.

/// Their nodes, the main one last, as `/sys/class/tty/console/active` lists them.
pub(super) fn active() -> Vec<String> {
    let list = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut nodes: Vec<String> = Vec::new();
    for name in list.split_whitespace() {
        // tty0 is whatever virtual console is shown.
        let node = format!("/dev/{name}");
        if std::path::Path::new(&node).exists() {
            nodes.push(node);
        }
    }
    nodes
}
