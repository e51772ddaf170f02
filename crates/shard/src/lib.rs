//! Tidegate's shard.
