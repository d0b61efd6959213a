//! Throwaway servers, for the demo and for tests.
