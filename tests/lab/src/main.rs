//! `ake-lab`: starts, shows and ends a lab.

fn main() {}
