//! Tidegate's hub.
