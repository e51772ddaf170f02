//! See `benches/` beside this folder.
