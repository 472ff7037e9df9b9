//! What is counted, and that the walk sees each thing once.

use super::*;

#[test]
fn todo_count() {
    let shape = Shape::default();
    let f = Features { text: "Hello there. What is 3.14 times 20?\nA. one\nB. 2 two", shape: &shape };
    let d = f.walk(|_, _| ());
    println!("{d:?}");
}
