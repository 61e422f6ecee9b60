//! The only code that speaks to OpenStack.
