//! Secrets are compared, bounded, and not shown.
