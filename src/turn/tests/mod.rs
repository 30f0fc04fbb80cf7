//! rule tests
