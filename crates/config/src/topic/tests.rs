//! Patterns against a naive matcher, and coverage against every name of a small world.
