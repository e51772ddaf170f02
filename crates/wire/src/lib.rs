//! Tidegate's wire.
