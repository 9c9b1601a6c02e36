//! The loops that carry sectors through their plan.
