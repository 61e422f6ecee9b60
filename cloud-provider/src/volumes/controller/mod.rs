//! The cloud's side of volumes.
