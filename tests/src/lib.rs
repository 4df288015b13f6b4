//! Tests of a whole gateway: in this process (`behaviour`) and as the `evenkeel` binary (`interop`). The dashboards of the
//! documentation, which two of the tests read.

pub mod dashboards;
