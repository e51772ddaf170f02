//! Tidegate's registry.
