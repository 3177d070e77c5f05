//! The program `turbotunnel`.

fn main() {}
