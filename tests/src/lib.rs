//! Tests of a whole gateway: in this process (`behaviour`) and as the `evenkeel` binary (`interop`).
