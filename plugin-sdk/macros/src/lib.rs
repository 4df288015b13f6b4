//! The derive and attribute macros of the policy SDK.
