//! Who may work on which sector.
