//! ake-heat: the work behind AKE's Heat resources.
