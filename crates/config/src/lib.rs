//! Tidegate's config.
